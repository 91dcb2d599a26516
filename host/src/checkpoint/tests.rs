use std::{
    collections::BTreeMap,
    fs,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use switchyard_kernels::{Linear, MatrixSource};

use super::*;
use crate::model::RopeScaling;

fn golden(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/models").join(model)
}

/// A copy of a golden model to be spoilt.
fn copy(model: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(model)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), dir.path().join(entry.file_name())).unwrap();
    }
    dir
}

/// Opens and loads; the error's text if either is refused.
fn outcome(dir: &Path) -> Result<HostWeights, String> {
    let checkpoint = Checkpoint::open(dir).map_err(|error| error.to_string())?;
    let weights = checkpoint.weights(None, |_, _| {}).map_err(|error| error.to_string())?;
    weights.into_host().map_err(|error| error.to_string())
}

#[track_caller]
fn refused(dir: &Path, parts: &[&str]) {
    let error = outcome(dir).err().expect("refused");
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn configurations_are_read() {
    let open = |model| Checkpoint::open(&golden(model)).unwrap();
    let base = open("base-f32");
    assert_eq!((base.config.vocabulary, base.config.hidden, base.config.layers), (352, 64, 2));
    assert_eq!((base.config.heads, base.config.kv_heads, base.config.head_dim), (4, 2, 16));
    assert_eq!((base.dtype, &base.eos[..]), (Dtype::F32, &[321][..]));
    assert_eq!(base.config.rope_scaling, RopeScaling::None);
    let wide = open("head-dim-f16");
    assert_eq!((wide.config.linear_shape(Linear::Query), wide.dtype), ((128, 64), Dtype::F16));
    let linear = open("rope-linear-bf16").config;
    assert_eq!(linear.rope_scaling, RopeScaling::Linear { factor: 4.0 });
    let llama3 = open("rope-llama3-f16").config;
    assert_eq!(llama3.rope_theta, 500_000.0);
    let RopeScaling::Llama3 { original_positions: 64, .. } = llama3.rope_scaling else {
        panic!("{:?}", llama3.rope_scaling);
    };
}

#[test]
fn pieces_of_a_stack_are_parts_of_the_whole() {
    let checkpoint = Checkpoint::open(&golden("sharded-bf16")).unwrap();
    for dtype in [Dtype::Bf16, Dtype::F32, Dtype::F16] {
        let stacks = || checkpoint.weights(Some(dtype), |_, _| {}).unwrap().layers.remove(1);
        let whole = stacks().qkv.into_host().unwrap();
        let qkv = stacks().qkv;
        assert_eq!(qkv.shape(), [3 * 64, 64]);
        // Ends within a tensor, on its border and two tensors on.
        let tensor = 64 * 64 * dtype.size();
        let mut start = 0;
        for len in [8, tensor - 8, tensor / 2, tensor, tensor / 2 - 16, 16] {
            let mut piece = vec![0; len];
            qkv.read(start, &mut piece).unwrap();
            assert!(piece == whole.data.bytes()[start..][..len], "{dtype:?}: {len} from {start}");
            start += len;
        }
        assert_eq!(start, qkv.bytes());
    }
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_named_with_the_tensor() {
    let dir = copy("base-f32");
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let weights = checkpoint.weights(None, |_, _| {}).unwrap();
    let file = dir.path().join("model.safetensors");
    fs::File::options().write(true).open(&file).unwrap().set_len(9000).unwrap();
    let error = weights.into_host().err().expect("refused").to_string();
    assert!(error.contains("model.safetensors: ") && error.contains("(tensor `"), "{error}");
}

#[test]
fn weights_are_stacked_and_converted() {
    let checkpoint = Checkpoint::open(&golden("sharded-bf16")).unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let steps = Arc::clone(&seen);
    let progress = move |read, all| steps.lock().unwrap().push((read, all));
    let weights = checkpoint.weights(Some(Dtype::F32), progress).unwrap().into_host().unwrap();
    let steps = seen.lock().unwrap();
    let (read, all) = *steps.last().unwrap();
    assert!(read == all && steps.is_sorted(), "progress ends at the total");
    let name = "model.layers.1.self_attn.k_proj.weight";
    let (file, entry) = checkpoint.shards.find(name).unwrap();
    let expected = file.read_f32(entry).unwrap();
    let qkv = &weights.layers[1].qkv;
    assert_eq!((qkv.rows, qkv.cols, qkv.dtype), (3 * 64, 64, Dtype::F32));
    let keys = &qkv.data.bytes()[64 * 64 * 4..2 * 64 * 64 * 4];
    let expected: Vec<u8> = expected.iter().flat_map(|x| x.to_le_bytes()).collect();
    assert!(keys == expected, "the keys stand after the queries");
    assert!(weights.head.is_some() && weights.layers[1].qkv_bias.is_none());
    let biased = outcome(&golden("biases-bf16")).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(biased.layers[0].gate_up_bias.as_ref().unwrap().len(), 192);
    assert_eq!(biased.layers[0].qkv_bias.as_ref().unwrap().len(), 64 + 32 + 32);
    let tied = outcome(&golden("tied-bf16")).unwrap_or_else(|error| panic!("{error}"));
    assert!(tied.head.is_none() && tied.layers.len() == 3);
}

#[test]
fn the_fingerprint_is_of_the_weights_not_of_the_files() {
    let print = |dir: &Path| Checkpoint::open(dir).unwrap().fingerprint().unwrap();
    let sharded = golden("sharded-bf16");
    let joined = tempfile::tempdir().unwrap();
    fs::copy(sharded.join("config.json"), joined.path().join("config.json")).unwrap();
    let mut files = Vec::new();
    for entry in fs::read_dir(&sharded).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "safetensors") {
            files.push(fs::read(path).unwrap());
        }
    }
    let parsed: Vec<_> =
        files.iter().map(|file| safetensors::SafeTensors::deserialize(file).unwrap()).collect();
    let tensors: BTreeMap<_, _> = parsed.iter().flat_map(|file| file.tensors()).collect();
    let bytes = safetensors::serialize(&tensors, None).unwrap();
    fs::write(joined.path().join("model.safetensors"), bytes).unwrap();
    assert_eq!(print(&sharded), print(joined.path()));
    assert_ne!(print(&sharded), print(&golden("biases-bf16")));
}

#[test]
fn what_is_not_understood_is_refused_by_name() {
    let cases: [(&str, &str, &[&str]); 12] = [
        ("\"LlamaForCausalLM\"", "\"MixtralForCausalLM\"", &["architectures", "LlamaForCausalLM"]),
        ("\"silu\"", "\"gelu\"", &["hidden_act", "silu"]),
        ("\"hidden_size\": 64", "\"hidden_size\": 48", &["tensor `", "[352, 64]", "[352, 48]"]),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", &["model.layers.2.", "none of"]),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1", &["model.layers.1.", "no place"]),
        (
            "\"num_hidden_layers\": 2",
            "\"num_hidden_layers\": 99999999999",
            &["`num_hidden_layers`"],
        ),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", &["num_key_value_heads"]),
        ("\"head_dim\": 16", "\"head_dim\": 15", &["head_dim", "even"]),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"yarn\"", &["rope_type", "yarn", "llama3"]),
        ("\"eos_token_id\": 321", "\"eos_token_id\": \"x\"", &["eos_token_id", "config.json"]),
        (
            "\"attention_bias\": false",
            "\"attention_bias\": 1",
            &["attention_bias", "true or false"],
        ),
        ("\"vocab_size\"", "\"quantization_config\": {\"bits\": 4}, \"vocab_size\"", &["quantiz"]),
    ];
    for (from, to, parts) in cases {
        let dir = copy("base-f32");
        let path = dir.path().join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{from} is in {text}");
        fs::write(&path, text.replacen(from, to, 1)).unwrap();
        refused(dir.path(), parts);
    }
}

#[test]
fn shards_that_do_not_fit_the_index_are_refused() {
    let index = "model.safetensors.index.json";
    let cases: [(&str, &str, &[&str]); 3] = [
        ("model-00002-of-00003", "../model-00002-of-00003", &["weight_map", index]),
        ("model-00002-of-00003", "model-00009-of-00003", &["model-00009", index]),
        ("\"lm_head.weight\"", "\"lm_tail.weight\"", &["lm_tail.weight", index]),
    ];
    for (from, to, parts) in cases {
        let dir = copy("sharded-bf16");
        let path = dir.path().join(index);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace(from, to)).unwrap();
        refused(dir.path(), parts);
    }
    let dir = copy("sharded-bf16");
    fs::remove_file(dir.path().join("config.json")).unwrap();
    refused(dir.path(), &["config.json"]);
}

#[test]
fn conversion_rounds_and_returns() {
    let mut bf16 = [0; 4];
    let one_third = [1.0f32 / 3.0, -2.5].map(f32::to_le_bytes).concat();
    tensor_file::convert((&one_third, Dtype::F32), (&mut bf16, Dtype::Bf16));
    assert_eq!(bf16, [0xab, 0x3e, 0x20, 0xc0]);
    let mut back = [0; 8];
    tensor_file::convert((&bf16, Dtype::Bf16), (&mut back, Dtype::F32));
    let mut again = [0; 4];
    tensor_file::convert((&back, Dtype::F32), (&mut again, Dtype::Bf16));
    assert_eq!(again, bf16);
}

/// A way to spoil a file.
#[derive(Clone, Debug)]
enum Damage {
    Truncate(prop::sample::Index),
    Replace(prop::sample::Index, u8),
    Insert(prop::sample::Index, Vec<u8>),
}

fn damage() -> impl Strategy<Value = Damage> {
    let bytes = prop::collection::vec(any::<u8>(), 1..20);
    prop_oneof![
        any::<prop::sample::Index>().prop_map(Damage::Truncate),
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, to)| Damage::Replace(at, to)),
        (any::<prop::sample::Index>(), bytes).prop_map(|(at, what)| Damage::Insert(at, what)),
    ]
}

impl Damage {
    /// Spoils the first `head` bytes.
    fn apply(&self, bytes: &mut Vec<u8>, head: usize) {
        let head = head.min(bytes.len());
        match self {
            Self::Truncate(at) => bytes.truncate(at.index(head)),
            Self::Replace(at, to) => bytes[at.index(head)] = *to,
            Self::Insert(at, what) => {
                let at = at.index(head);
                bytes.splice(at..at, what.iter().copied());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn damaged_files_are_refused_by_name(file in 0usize..5, damage in damage()) {
        let (model, name) = [
            ("rope-llama3-f16", "model.safetensors"),
            ("rope-llama3-f16", "config.json"),
            ("rope-llama3-f16", "generation_config.json"),
            ("sharded-bf16", "model.safetensors.index.json"),
            ("sharded-bf16", "model-00002-of-00003.safetensors"),
        ][file];
        let dir = copy(model);
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        damage.apply(&mut bytes, 4000);
        fs::write(&path, bytes).unwrap();
        if let Err(error) = outcome(dir.path()) {
            let place = dir.path().display().to_string();
            prop_assert!(error.contains(&place), "no place in {error:?}");
        }
    }
}
