mod hostile;
mod refresh;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use safetensors::{Dtype as Stored, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use switchyard_kernels::{HostMemory, Linear};

use super::*;
use crate::{
    checkpoint::Checkpoint,
    model::{AdapterImage, ImageMemory},
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden")
}

pub(super) fn base() -> BaseIdentity {
    let checkpoint = Checkpoint::open(&golden().join("models/base-f32")).unwrap();
    BaseIdentity {
        id: "base-f32".to_owned(),
        aliases: vec!["golden/tiny".to_owned()],
        revision: Some("c0ffee".to_owned()),
        fingerprint: checkpoint.fingerprint().unwrap(),
        config: checkpoint.config,
        dtype: Dtype::F32,
    }
}

/// A copy of a golden adapter in `parent`, under `name`.
pub(super) fn copy(adapter: &str, parent: &Path, name: &str) -> PathBuf {
    let to = parent.join(name);
    fs::create_dir_all(&to).unwrap();
    for file in [directory::WEIGHTS, directory::CONFIG] {
        fs::copy(golden().join("adapters").join(adapter).join(file), to.join(file)).unwrap();
    }
    to
}

fn configure(dir: &Path, key: &str, value: Value) {
    let path = dir.join(directory::CONFIG);
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// A tensor to be written: type, shape, bytes.
type Tensor = (Stored, Vec<usize>, Vec<u8>);

/// Rewrites the weights after `change`.
fn rewrite(
    dir: &Path,
    metadata: &[(&str, &str)],
    change: impl FnOnce(&mut BTreeMap<String, Tensor>),
) {
    let path = dir.join(directory::WEIGHTS);
    let bytes = fs::read(&path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let own = |view: TensorView| (view.dtype(), view.shape().to_vec(), view.data().to_vec());
    let mut tensors: BTreeMap<_, _> =
        file.tensors().into_iter().map(|(name, view)| (name, own(view))).collect();
    change(&mut tensors);
    let view = |(dtype, shape, data): &'_ Tensor| (*dtype, shape.clone(), data.clone());
    let owned: Vec<_> = tensors.iter().map(|(name, t)| (name.clone(), view(t))).collect();
    let views = owned.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    let metadata: HashMap<_, _> =
        metadata.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    fs::write(path, safetensors::serialize(views, Some(metadata)).unwrap()).unwrap();
}

fn read_for(dir: &Path, base: &BaseIdentity, mismatch: bool) -> Result<AdapterImage, String> {
    let directory = directory::AdapterDirectory::open(dir, base, mismatch);
    let memory = ImageMemory::pageable(base.slab_bytes());
    directory.and_then(|directory| directory.pack(&memory)).map_err(|error| error.to_string())
}

pub(super) fn read(dir: &Path) -> Result<AdapterImage, String> {
    read_for(dir, &base(), false)
}

#[track_caller]
fn refused(dir: &Path, parts: &[&str]) {
    let error = read(dir).err().expect("refused");
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn ranks_and_scales_are_per_module() {
    let image = |name: &str| read(&golden().join("adapters").join(name)).unwrap();
    let scale = |image: &AdapterImage, layer, linear| {
        image.map.linear(layer, linear).map(|l| (l.padded_rank, l.scale))
    };
    let r3 = image("r3");
    assert_eq!((r3.rank, scale(&r3, 1, Linear::Value)), (3, Some((8, 2.0))));
    assert_eq!(scale(&r3, 0, Linear::Key), None, "undeclared and absent");
    assert_eq!((image("r8").rank, image("r24").rank, image("r64").rank), (8, 24, 64));
    let patterns = image("patterns");
    assert_eq!(patterns.rank, 12);
    assert_eq!(scale(&patterns, 0, Linear::Query), Some((8, 20.0 / 8.0)));
    assert_eq!(scale(&patterns, 1, Linear::Query), Some((16, 20.0 / 12.0)));
    assert_eq!(scale(&patterns, 0, Linear::Up), Some((8, 40.0 / 5.0)));
    assert_eq!(scale(&patterns, 1, Linear::Up), Some((8, 8.0 / 5.0)));
    assert_eq!(scale(&patterns, 1, Linear::Output), Some((8, 1.0)));
    assert_eq!(scale(&image("rslora"), 0, Linear::Down), Some((16, 2.0)));
    let one_layer = image("one-layer");
    assert_eq!(scale(&one_layer, 0, Linear::Gate), None);
    assert!(scale(&one_layer, 1, Linear::Gate).is_some());
}

#[test]
fn settings_that_change_the_result_are_refused() {
    let cases = [
        ("use_dora", json!(true), "DoRA"),
        ("modules_to_save", json!(["lm_head"]), "fully trained"),
        ("bias", json!("all"), "biases"),
        ("lora_bias", json!(true), "biases"),
        ("layer_replication", json!([[0, 2]]), "replicated"),
        ("trainable_token_indices", json!([1]), "trained tokens"),
        ("alora_invocation_tokens", json!([1, 2]), "activated"),
        ("init_lora_weights", json!("pissa_niter_16"), "base's weights"),
        ("init_lora_weights", json!("olora"), "base's weights"),
        ("init_lora_weights", json!("loftq"), "base's weights"),
        ("loftq_config", json!({"loftq_bits": 4}), "LoftQ"),
        ("fan_in_fan_out", json!(true), "transposed"),
        ("target_parameters", json!(["x"]), "bare parameters"),
        ("peft_type", json!("IA3"), "LORA"),
        ("task_type", json!("SEQ_CLS"), "CAUSAL_LM"),
        ("some_new_thing", json!(0.5), "not known"),
        ("target_modules", json!(["q_proj", "v_proj", "lm_head"]), "lm_head"),
        ("target_modules", json!(["q_proj", "v_proj", "k_proj"]), "lora_A"),
        ("target_modules", json!(["q_proj"]), "v_proj"),
        ("target_modules", json!("(unclosed"), "regular expression"),
        ("rank_pattern", json!({"q_proj": 4}), "rank 3"),
        ("rank_pattern", json!({"q_proj": -4}), "above 0"),
        ("r", json!(8), "rank 3"),
        ("r", json!("3"), "above 0"),
        ("lora_alpha", json!(null), "above 0"),
        ("layers_to_transform", json!([0]), "target_modules"),
    ];
    for (key, value, part) in cases {
        let parent = tempfile::tempdir().unwrap();
        let dir = copy("r3", parent.path(), "a");
        configure(&dir, key, value.clone());
        refused(&dir, &[part, &dir.display().to_string()]);
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = copy("r3", parent.path(), "a");
    for (key, value) in [
        ("some_new_thing", json!(null)),
        ("init_lora_weights", json!("gaussian")),
        ("target_modules", json!("(?!.*mlp).*self_attn\\.(q|v)_proj")),
        ("exclude_modules", json!(["k_proj"])),
        ("lora_dropout", json!(0.1)),
    ] {
        configure(&dir, key, value.clone());
        assert!(read(&dir).is_ok(), "{key} {value}");
    }
}

#[test]
fn names_of_tensors_are_read_in_every_form() {
    let parent = tempfile::tempdir().unwrap();
    let plain = read(&copy("r3", parent.path(), "plain")).unwrap().id;
    let renamed = |from: &str, to: &str| {
        let dir = copy("r3", parent.path(), "renamed");
        rewrite(&dir, &[], |tensors| {
            let old = std::mem::take(tensors);
            *tensors = old.into_iter().map(|(k, t)| (k.replace(from, to), t)).collect();
        });
        dir
    };
    for (from, to) in [("base_model.model.", ""), (".weight", ".default.weight")] {
        assert_eq!(read(&renamed(from, to)).unwrap().id, plain, "same content, same adapter");
    }
    let cases = [
        ("layers.0.self_attn.q_proj", "layers.2.self_attn.q_proj", "2 layers"),
        ("layers.0.", "layers.00.", "names no LoRA weight"),
        ("self_attn.q_proj", "self_attn.qkv_proj", "fused"),
        ("lora_A.weight", "lora_magnitude_vector.weight", "DoRA"),
        ("lora_A.weight", "lora_embedding_A", "embeddings"),
        ("lora_B.weight", "lora_B.bias", "biases"),
        ("model.layers.0.self_attn.q_proj.lora_A", "modules_to_save", "fully trained"),
        ("layers.1.self_attn.v_proj.lora_B.", "layers.1.self_attn.v_proj.lora_B.x.", "several"),
    ];
    for (from, to, part) in cases {
        refused(&renamed(from, to), &[part, directory::WEIGHTS]);
    }
}

#[test]
fn tensors_are_checked_before_they_are_used() {
    let key = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
    type Change = fn(&mut Tensor);
    let cases: [(Change, &str); 5] = [
        (|t| t.1 = vec![64, 3], "[rank, in]".trim_matches(['[', ']'])),
        (|t| *t = (Stored::F32, vec![0, 64], vec![]), "rank"),
        (|t| *t = (Stored::F32, vec![300, 64], vec![0; 300 * 64 * 4]), "300"),
        (|t| t.2[8..12].copy_from_slice(&f32::NAN.to_le_bytes()), "NaN"),
        (|t| *t = (Stored::I32, t.1.clone(), t.2.clone()), "I32"),
    ];
    for (change, part) in cases {
        let parent = tempfile::tempdir().unwrap();
        let dir = copy("r3", parent.path(), "a");
        rewrite(&dir, &[], |tensors| change(tensors.get_mut(key).unwrap()));
        refused(&dir, &[part, "q_proj.lora_", directory::WEIGHTS]);
    }
    let parent = tempfile::tempdir().unwrap();
    let dir = copy("r3", parent.path(), "a");
    rewrite(&dir, &[], |tensors| drop(tensors.remove(key)));
    refused(&dir, &["model.layers.0.self_attn.q_proj", "lora_A"]);
    // 1e5 is finite in f32 and infinite in f16.
    let dir = copy("r3", parent.path(), "b");
    rewrite(&dir, &[], |tensors| {
        tensors.get_mut(key).unwrap().2[..4].copy_from_slice(&1e5f32.to_le_bytes());
    });
    let narrow = BaseIdentity { dtype: Dtype::F16, ..base() };
    let error = read_for(&dir, &narrow, false).err().unwrap();
    assert!(error.contains("infinity as f16"), "{error}");
}

#[test]
fn another_base_is_refused_unless_allowed() {
    let fingerprint = base().fingerprint;
    let (own, other) = (fingerprint.as_str(), "b3:00");
    // Base, revision and fingerprint that the adapter states, and whether it is taken.
    let cases = [
        (Some("base-f32"), None, None, true),
        (Some("/somewhere/else/base-f32/"), None, None, true),
        (Some("golden/tiny"), None, None, true),
        (Some("other/tiny"), None, None, true),
        (None, None, None, true),
        (Some("meta/other"), None, None, false),
        (Some("base-f32"), Some("c0ffee"), None, true),
        (Some("base-f32"), Some("main"), None, true),
        (Some("base-f32"), Some("decaf"), None, false),
        (Some("meta/other"), Some("decaf"), Some(own), true),
        (Some("base-f32"), Some("c0ffee"), Some(other), false),
    ];
    for (name, revision, fingerprint, taken) in cases {
        for in_weights in [false, true] {
            let parent = tempfile::tempdir().unwrap();
            let dir = copy("r3", parent.path(), "a");
            configure(&dir, "base_model_name_or_path", json!(name));
            configure(&dir, "revision", json!(revision));
            match fingerprint {
                Some(print) if in_weights => {
                    rewrite(&dir, &[("switchyard.base_fingerprint", print)], |_| {});
                }
                print => configure(&dir, "switchyard.base_fingerprint", json!(print)),
            }
            match read(&dir) {
                Ok(_) => assert!(taken, "{name:?} {revision:?} {fingerprint:?}"),
                Err(error) => {
                    assert!(!taken, "{error}");
                    assert!(error.contains(name.unwrap_or("unnamed")), "{error}");
                    assert!(error.contains("base-f32") && error.contains("allow_base_mismatch"));
                    assert!(read_for(&dir, &base(), true).is_ok(), "allowed");
                }
            }
        }
    }
}
