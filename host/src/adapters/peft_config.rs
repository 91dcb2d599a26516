//! `adapter_config.json` as PEFT writes it.
//!
//! Settings fall into three kinds: those that are read, those that only matter while training, and
//! the rest, which change what the adapter computes and must be off. A setting that is not known
//! is taken to be of the last kind.

use std::path::Path;

use serde_json::Value;

use super::{
    AdapterError,
    targets::{Patterns, Selection},
};
use crate::checkpoint::JsonObject;

/// Where PEFT or the operator may state the base's fingerprint.
pub(super) const FINGERPRINT: &str = "switchyard.base_fingerprint";

const READ: [&str; 17] = [
    "peft_type",
    "task_type",
    "base_model_name_or_path",
    "revision",
    "r",
    "lora_alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "bias",
    "fan_in_fan_out",
    "init_lora_weights",
    FINGERPRINT,
];

/// Settings that have no effect once the weights are trained.
const TRAINING: [&str; 10] = [
    "auto_mapping",
    "inference_mode",
    "lora_dropout",
    "megatron_config",
    "megatron_core",
    "peft_version",
    "qalora_group_size",
    "eva_config",
    "runtime_config",
    "ensure_weight_tying",
];

const MERGE: &str = "merge it into the base with PEFT and serve the result, or train without it";
const CONVERT: &str = "convert it to a plain LoRA with PEFT's save_pretrained(.., \
                       path_initial_model_for_weight_conversion=..)";

/// Settings that change what is computed, with the reason why they are refused.
const REFUSED: [(&str, &str, &str); 12] = [
    ("use_dora", "DoRA is not supported", MERGE),
    ("modules_to_save", "fully trained modules are not supported", MERGE),
    ("layer_replication", "replicated layers are not supported", MERGE),
    ("trainable_token_indices", "trained tokens are not supported", MERGE),
    ("alora_invocation_tokens", "activated LoRA is not supported", "train without it"),
    ("lora_bias", "biases of LoRA weights are not supported", MERGE),
    ("target_parameters", "LoRA on bare parameters is not supported", MERGE),
    ("use_qalora", "QALoRA is not supported", MERGE),
    ("loftq_config", "LoftQ changes the base's weights", CONVERT),
    ("corda_config", "CorDA changes the base's weights", CONVERT),
    ("lora_ga_config", "LoRA-GA changes the base's weights", CONVERT),
    ("arrow_config", "Arrow routing is not supported", "use a router plugin instead"),
];

/// What a configuration says.
pub(super) struct PeftConfig {
    pub(super) base: Option<String>,
    pub(super) revision: Option<String>,
    pub(super) fingerprint: Option<String>,
    rank: f64,
    alpha: f64,
    ranks: Patterns,
    alphas: Patterns,
    rank_stabilised: bool,
    targets: Option<Selection>,
    excluded: Option<Selection>,
    layers: Option<Vec<u64>>,
}

impl PeftConfig {
    /// Reads and checks the file.
    pub(super) fn read(path: &Path) -> Result<Self, AdapterError> {
        let json = JsonObject::read(path)?;
        check_settings(&json)?;
        let required = |key: &str| {
            let number = json.positive(key)?;
            number.ok_or_else(|| json.wrong(key, "a number above 0"))
        };
        let text = |key: &str| {
            Ok::<_, AdapterError>(json.text(key)?.filter(|t| !t.is_empty()).map(str::to_owned))
        };
        Ok(Self {
            base: text("base_model_name_or_path")?,
            revision: text("revision")?,
            fingerprint: text(FINGERPRINT)?,
            rank: required("r")?,
            alpha: required("lora_alpha")?,
            ranks: Patterns::read(&json, "rank_pattern")?,
            alphas: Patterns::read(&json, "alpha_pattern")?,
            rank_stabilised: json.flag("use_rslora")?.unwrap_or(false),
            targets: Selection::read(&json, "target_modules")?,
            excluded: Selection::read(&json, "exclude_modules")?,
            layers: layers(&json)?,
        })
    }

    /// Whether a linear is meant to be adapted; `None` where the configuration does not say.
    pub(super) fn declares(&self, layer: usize, module: &str) -> Option<bool> {
        let targets = self.targets.as_ref()?;
        let excluded = self.excluded.as_ref().is_some_and(|e| e.contains(module));
        let layer = self.layers.as_ref().is_none_or(|layers| layers.contains(&(layer as u64)));
        Some(targets.contains(module) && layer && !excluded)
    }

    /// A listed target that is none of `modules`.
    pub(super) fn idle_target(&self, modules: &[String]) -> Option<&str> {
        self.targets.as_ref()?.idle_name(modules)
    }

    /// The rank that a linear should have.
    pub(super) fn rank(&self, module: &str) -> f64 {
        self.ranks.value(module).unwrap_or(self.rank)
    }

    /// What the product of a linear's weights is multiplied with.
    pub(super) fn scale(&self, module: &str, rank: usize) -> f32 {
        let alpha = self.alphas.value(module).unwrap_or(self.alpha);
        let rank = rank as f64;
        (alpha / if self.rank_stabilised { rank.sqrt() } else { rank }) as f32
    }
}

fn layers(json: &JsonObject) -> Result<Option<Vec<u64>>, AdapterError> {
    let Some(value) = json.get("layers_to_transform") else { return Ok(None) };
    let layers = match value {
        Value::Array(layers) => layers.iter().map(Value::as_u64).collect(),
        one => one.as_u64().map(|layer| vec![layer]),
    };
    let layers = layers.ok_or_else(|| json.wrong("layers_to_transform", "layer numbers"))?;
    Ok(Some(layers))
}

/// Refuses every setting under which the adapter would compute something else.
fn check_settings(json: &JsonObject) -> Result<(), AdapterError> {
    let refuse = |key: &str, reason: &str, remedy: &str| {
        Err(AdapterError::Setting {
            path: json.path().to_owned(),
            key: key.to_owned(),
            found: json.get(key).map_or("missing".to_owned(), Value::to_string),
            reason: reason.to_owned(),
            remedy: remedy.to_owned(),
        })
    };
    if json.text("peft_type")? != Some("LORA") {
        return refuse("peft_type", "only LORA is supported", "train a LoRA adapter");
    }
    if json.text("task_type")?.is_some_and(|task| task != "CAUSAL_LM") {
        return refuse("task_type", "only CAUSAL_LM is supported", "train for CAUSAL_LM");
    }
    if json.text("bias")?.is_some_and(|bias| bias != "none") {
        return refuse("bias", "trained biases are not supported", MERGE);
    }
    if json.flag("fan_in_fan_out")? == Some(true) {
        return refuse("fan_in_fan_out", "the base's linears are not transposed", "set it false");
    }
    if let Some(initial) = json.get("init_lora_weights") {
        let harmless = ["gaussian", "eva", "orthogonal", "true", "false"];
        if !initial.is_boolean() && !initial.as_str().is_some_and(|i| harmless.contains(&i)) {
            return refuse("init_lora_weights", "it changes the base's weights", CONVERT);
        }
    }
    let pattern = json.get("layers_pattern");
    if pattern.is_some_and(|p| p != "layers" && *p != serde_json::json!(["layers"]) && is_on(p)) {
        return refuse("layers_pattern", "a Llama decoder's layers are `layers`", "set it null");
    }
    for key in json.keys().filter(|key| json.get(key).is_some_and(is_on)) {
        if let Some((_, reason, remedy)) = REFUSED.iter().find(|(name, ..)| *name == key) {
            return refuse(key, reason, remedy);
        }
        if !READ.contains(&key) && !TRAINING.contains(&key) {
            let remedy = "remove it if it only matters in training, else merge the adapter";
            return refuse(key, "the setting is not known and may change the result", remedy);
        }
    }
    Ok(())
}

/// Whether a setting is anything but off.
fn is_on(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) | Value::Number(_) => true,
    }
}
