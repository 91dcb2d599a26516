//! `config.json` and `generation_config.json` as Hugging Face writes them for Llama models.

use std::path::Path;

use serde_json::Value;

use super::{CheckpointError, FileError, JsonObject, layout::Layout};
use crate::model::{ModelConfig, RopeScaling};

const MAX_VOCABULARY: usize = 1 << 22;
const MAX_WIDTH: usize = 1 << 20;
const MAX_LAYERS: usize = 1024;
const MAX_HEADS: usize = 1024;
const MAX_HEAD_DIM: usize = 1024;
const MAX_POSITIONS: usize = 1 << 26;

/// What the two files say.
pub(super) struct Description {
    pub(super) config: ModelConfig,
    pub(super) layout: Layout,
    pub(super) eos: Vec<u32>,
    pub(super) name_or_path: Option<String>,
    pub(super) revision: Option<String>,
}

/// Reads both files; `generation_config.json` may be missing.
pub(super) fn read(dir: &Path) -> Result<Description, CheckpointError> {
    let json = JsonObject::read(&dir.join("config.json"))?;
    check_kind(&json)?;
    let config = model_config(&json)?;
    let layout = Layout {
        attention_bias: json.flag("attention_bias")?.unwrap_or(false),
        mlp_bias: json.flag("mlp_bias")?.unwrap_or(false),
        tied: json.flag("tie_word_embeddings")?.unwrap_or(false),
    };
    let mut eos = Vec::new();
    let generation = JsonObject::read_optional(&dir.join("generation_config.json"))?;
    for json in generation.iter().chain([&json]) {
        end_tokens(json, config.vocabulary, &mut eos)?;
    }
    let name_or_path = json.text("_name_or_path")?.filter(|name| !name.is_empty());
    let revision = json.text("_commit_hash")?.map(str::to_owned).or_else(|| snapshot(dir));
    Ok(Description { config, layout, eos, name_or_path: name_or_path.map(str::to_owned), revision })
}

/// Refuses every model whose forward pass would differ from the one that is implemented.
fn check_kind(json: &JsonObject) -> Result<(), CheckpointError> {
    let refuse = |key: &str, supported| {
        let found = json.get(key).map_or("missing".to_owned(), Value::to_string);
        Err(CheckpointError::Unsupported {
            path: json.path().to_owned(),
            key: key.to_owned(),
            found,
            supported,
        })
    };
    let architecture = match json.get("architectures") {
        Some(list) => (list.get(0).and_then(Value::as_str), "architectures", "LlamaForCausalLM"),
        None => (json.text("model_type")?, "model_type", "llama"),
    };
    let (found, key, name) = architecture;
    if found != Some(name) {
        return refuse(key, "LlamaForCausalLM (model_type llama)");
    }
    if json.text("hidden_act")?.is_some_and(|act| act != "silu") {
        return refuse("hidden_act", "silu");
    }
    if json.get("quantization_config").is_some() {
        return refuse("quantization_config", "weights in F32, F16 or BF16");
    }
    if json.positive("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return refuse("partial_rotary_factor", "1.0");
    }
    Ok(())
}

fn model_config(json: &JsonObject) -> Result<ModelConfig, CheckpointError> {
    let hidden = json.required_count("hidden_size", 1..=MAX_WIDTH)?;
    let heads = json.required_count("num_attention_heads", 1..=MAX_HEADS)?;
    let kv_heads = json.count("num_key_value_heads", 1..=heads)?.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let expected = format!("a divisor of num_attention_heads, which is {heads}");
        return Err(json.wrong("num_key_value_heads", expected).into());
    }
    let head_dim = match json.count("head_dim", 2..=MAX_HEAD_DIM)? {
        Some(head_dim) => head_dim,
        None if hidden.is_multiple_of(heads) => hidden / heads,
        None => return Err(json.wrong("head_dim", "given: hidden_size / heads is uneven").into()),
    };
    if !head_dim.is_multiple_of(2) || head_dim > MAX_HEAD_DIM {
        return Err(json.wrong("head_dim", format!("even and up to {MAX_HEAD_DIM}")).into());
    }
    let (rope_theta, rope_scaling) = rope(json)?;
    Ok(ModelConfig {
        vocabulary: json.required_count("vocab_size", 1..=MAX_VOCABULARY)?,
        hidden,
        intermediate: json.required_count("intermediate_size", 1..=MAX_WIDTH)?,
        layers: json.required_count("num_hidden_layers", 1..=MAX_LAYERS)?,
        heads,
        kv_heads,
        head_dim,
        norm_eps: json.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope_theta,
        rope_scaling,
        max_positions: json.count("max_position_embeddings", 1..=MAX_POSITIONS)?.unwrap_or(2048),
    })
}

/// Base and stretch of the rotary frequencies: top-level `rope_theta` and `rope_scaling`, or both
/// in `rope_parameters` as transformers 5 writes them.
fn rope(json: &JsonObject) -> Result<(f32, RopeScaling), CheckpointError> {
    let parameters = json.object("rope_parameters")?;
    let scaling = match &parameters {
        Some(parameters) => Some(parameters.clone()),
        None => json.object("rope_scaling")?,
    };
    let inner = parameters.as_ref().map(|p| p.positive("rope_theta")).transpose()?.flatten();
    let theta = inner.or(json.positive("rope_theta")?).unwrap_or(10_000.0) as f32;
    let Some(scaling) = scaling else { return Ok((theta, RopeScaling::None)) };
    let kind = match scaling.text("rope_type")? {
        Some(kind) => Some(kind),
        None => scaling.text("type")?,
    };
    let number = |key: &str| -> Result<f32, FileError> {
        let number = scaling.positive(key)?;
        Ok(number.ok_or_else(|| scaling.wrong(key, "a number above 0"))? as f32)
    };
    let scaling = match kind.unwrap_or("default") {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: number("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: number("factor")?,
            low_freq_factor: number("low_freq_factor")?,
            high_freq_factor: number("high_freq_factor")?,
            original_positions: scaling
                .required_count("original_max_position_embeddings", 1..=MAX_POSITIONS)?
                as u32,
        },
        other => {
            let key = if parameters.is_some() { "rope_parameters" } else { "rope_scaling" };
            return Err(CheckpointError::Unsupported {
                path: json.path().to_owned(),
                key: format!("{key}.rope_type"),
                found: format!("{other:?}"),
                supported: "default, linear, llama3",
            });
        }
    };
    if let RopeScaling::Llama3 { low_freq_factor, high_freq_factor, .. } = scaling
        && low_freq_factor >= high_freq_factor
    {
        return Err(json.wrong("rope_scaling", "low_freq_factor below high_freq_factor").into());
    }
    Ok((theta, scaling))
}

/// Adds `eos_token_id`, one id or a list of them.
fn end_tokens(json: &JsonObject, vocabulary: usize, eos: &mut Vec<u32>) -> Result<(), FileError> {
    let Some(value) = json.get("eos_token_id") else { return Ok(()) };
    let ids = match value {
        Value::Array(ids) => &ids[..],
        one => std::slice::from_ref(one),
    };
    for id in ids {
        let id = id.as_u64().filter(|&id| id < vocabulary as u64).ok_or_else(|| {
            json.wrong("eos_token_id", format!("one or more token ids below {vocabulary}"))
        })? as u32;
        if !eos.contains(&id) {
            eos.push(id);
        }
    }
    Ok(())
}

/// The commit of a directory in Hugging Face's cache: `.../snapshots/<commit>`.
fn snapshot(dir: &Path) -> Option<String> {
    let dir = dir.canonicalize().ok()?;
    let cached = dir.parent()?.file_name()? == "snapshots";
    cached.then(|| dir.file_name()?.to_str().map(str::to_owned)).flatten()
}
