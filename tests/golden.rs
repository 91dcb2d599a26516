//! Tiny checkpoints and adapters against what transformers and peft compute (see
//! `golden/README.md`): logits on every path of the CPU backend and on a GPU, and greedy answers.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
};

use half::{bf16, f16};
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use switchyard::{
    adapters::{AdapterStore, BaseIdentity, Registry},
    checkpoint::Checkpoint,
    model::{AdapterImage, Model, ModelLimits},
};
use switchyard_kernels::{
    AdapterSlot, Backend, Batch, Dtype, HostMemory, RowToken, Segment,
    cpu::{Cpu, Isa},
};
use tokio::runtime::Runtime;

use crate::{cuda, harness::root};

const PAGE_TOKENS: usize = 16;
/// Largest difference of logits in f32 over the largest logit.
const TOLERANCE: f64 = 1e-4;
/// Largest distance of half-precision logits from float64, over that of PyTorch's.
const HALF_TOLERANCE: f64 = 1.5;
/// Where the two best tokens are closer than this, either may win.
const MARGIN: f64 = 1e-3;

fn golden(path: &str) -> PathBuf {
    root().join("tests/golden").join(path)
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Every golden adapter's image in an element type, registered against the base that it was made
/// for.
fn adapters(dtype: Dtype) -> HashMap<String, Arc<AdapterImage>> {
    let checkpoint = Checkpoint::open(&golden("models/base-f32")).unwrap();
    let fingerprint = checkpoint.fingerprint().unwrap();
    let base = BaseIdentity {
        id: "base-f32".to_owned(),
        aliases: Vec::new(),
        revision: None,
        fingerprint,
        config: checkpoint.config,
        dtype,
    };
    let store = AdapterStore::new(base, None, (HostMemory::pageable(), usize::MAX));
    let refresh =
        Registry::new(Arc::clone(&store)).refresh(&[golden("adapters")], &BTreeMap::new());
    let problems: Vec<_> = refresh.problems.iter().map(ToString::to_string).collect();
    assert!(problems.is_empty(), "{problems:?}");
    let runtime = Runtime::new().unwrap();
    let image = |lease| runtime.block_on(store.image(lease)).unwrap();
    refresh.catalogue.iter().map(|lease| (lease.name.clone(), image(lease))).collect()
}

/// One sequence in the first slabs of the pool, its adapter in the slabs after them.
struct Sequence<B: Backend> {
    model: Model<B>,
    adapter: Option<AdapterSlot>,
    rows: usize,
}

impl<B: Backend> Sequence<B> {
    fn new(case: &Case, dtype: Dtype, backend: B) -> Self {
        let checkpoint = Checkpoint::open(&golden("models").join(&case.model)).unwrap();
        let weights = checkpoint.weights(Some(dtype), |_, _| {}).unwrap();
        let limits = ModelLimits { rows: 64, logits: 64 };
        let mut model = Model::new(backend, &checkpoint.config, weights, limits).unwrap();
        let pages = limits.rows / PAGE_TOKENS;
        let adapter = case.adapters.get(&dtype);
        let slabs = adapter.map_or(0, |image| image.map.slabs) as usize;
        model.reserve(pages + slabs).unwrap();
        let slot = adapter.map(|image| {
            let slabs: Vec<u32> = (pages as u32..(pages + slabs) as u32).collect();
            model.load_adapter(AdapterSlot(0), image, &slabs);
            AdapterSlot(0)
        });
        Self { model, adapter: slot, rows: 0 }
    }

    /// Continues with `tokens`; logits of those at `wanted`, `[wanted, vocabulary]`.
    fn forward(&mut self, tokens: &[u32], wanted: &[u32]) -> Vec<f32> {
        let rows = tokens.len() as u32;
        let start = self.rows as u32;
        self.rows += tokens.len();
        let pages = self.rows.div_ceil(PAGE_TOKENS) as u32;
        self.model.forward(&Batch {
            tokens: tokens.iter().copied().map(RowToken::Known).collect(),
            positions: (start..start + rows).collect(),
            seq_indptr: vec![0, rows],
            page_indptr: vec![0, pages],
            page_indices: (0..pages).collect(),
            segments: vec![Segment { rows: 0..rows, adapter: self.adapter }],
            logit_rows: wanted.to_vec(),
        });
        self.model.logits()
    }
}

fn best(logits: &[f32]) -> u32 {
    let better = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
    (0..logits.len()).reduce(better).unwrap() as u32
}

/// Largest difference over largest reference.
fn largest_error(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let difference = largest(&mut found.iter().zip(expected).map(|(a, b)| (a - b).abs()));
    f64::from(difference / largest(&mut expected.iter().map(|x| x.abs())))
}

/// Length of the difference over length of the reference.
fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    (difference / expected.iter().map(|&x| square(x)).sum::<f64>()).sqrt()
}

/// A model, perhaps with an adapter, and what is expected of it.
struct Case {
    key: String,
    model: String,
    /// The adapter in each element type.
    adapters: HashMap<Dtype, Arc<AdapterImage>>,
    prompt: Vec<u32>,
    positions: Vec<u32>,
    greedy: Vec<u32>,
    margins: Vec<f64>,
    /// `[positions, vocabulary]` by PyTorch in float64.
    exact: Vec<f32>,
    /// The same in half precision.
    halves: HashMap<Dtype, Vec<f32>>,
}

fn values(tensor: &TensorView<'_>) -> Vec<f32> {
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let data = tensor.data();
    match tensor.dtype() {
        safetensors::Dtype::BF16 => {
            data.chunks(2).map(|x| bf16::from_bits(half(x)).to_f32()).collect()
        }
        safetensors::Dtype::F16 => {
            data.chunks(2).map(|x| f16::from_bits(half(x)).to_f32()).collect()
        }
        _ => data.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    }
}

fn cases() -> Vec<Case> {
    let images = [Dtype::F32, Dtype::F16, Dtype::Bf16].map(|dtype| (dtype, adapters(dtype)));
    let bytes = fs::read(golden("expected.safetensors")).unwrap();
    let logits = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(golden("expected.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 14, "seven models, seven adapters");
    let case = |case: &Value| {
        let key = case["key"].as_str().unwrap().to_owned();
        let adapter = case["adapter"].as_str();
        let image = |(dtype, images): &(Dtype, HashMap<String, Arc<AdapterImage>>)| {
            Some((*dtype, Arc::clone(&images[adapter?])))
        };
        let half = |dtype: Dtype| {
            (dtype, values(&logits.tensor(&format!("{key}.{}", dtype.name())).unwrap()))
        };
        Case {
            model: case["model"].as_str().unwrap().to_owned(),
            adapters: images.iter().filter_map(image).collect(),
            prompt: numbers(&case["prompt"]),
            positions: numbers(&case["positions"]),
            greedy: numbers(&case["greedy"]),
            margins: serde_json::from_value(case["margins"].clone()).unwrap(),
            exact: values(&logits.tensor(&key).unwrap()),
            halves: [Dtype::F16, Dtype::Bf16].map(half).into(),
            key,
        }
    };
    cases.iter().map(case).collect()
}

impl Case {
    /// Logits and answer in f32; gives the tokens that were compared.
    fn check<B: Backend>(&self, backend: B) -> usize {
        let (device, key) = (backend.name(), &self.key);
        let mut sequence = Sequence::new(self, Dtype::F32, backend);
        let found = sequence.forward(&self.prompt, &self.positions);
        let error = largest_error(&found, &self.exact);
        assert!(error <= TOLERANCE, "{key} on {device}: {error:.2e}");
        let mut last = found[found.len() - found.len() / self.positions.len()..].to_vec();
        let mut compared = 0;
        for (&token, &margin) in self.greedy.iter().zip(&self.margins) {
            if margin > MARGIN {
                assert_eq!(best(&last), token, "{key} on {device}");
                compared += 1;
            }
            last = sequence.forward(&[token], &[0]);
        }
        compared
    }

    /// Logits in half precision, which may be little further from the truth than PyTorch's: those
    /// of the prompt in one step, and of its last token as a step of its own.
    fn check_half<B: Backend>(&self, dtype: Dtype, open: impl Fn() -> B) {
        let (device, key, name) = (open().name(), &self.key, dtype.name());
        let found = Sequence::new(self, dtype, open()).forward(&self.prompt, &self.positions);
        let theirs = distance(&self.halves[&dtype], &self.exact);
        let ours = distance(&found, &self.exact);
        println!("{key} in {name} on {device}: {ours:.2e} from float64, PyTorch {theirs:.2e}");
        assert!(ours <= HALF_TOLERANCE * theirs, "{key} in {name} on {device}");

        let (last, before) = self.prompt.split_last().unwrap();
        let mut sequence = Sequence::new(self, dtype, open());
        sequence.forward(before, &[]);
        let decoded = sequence.forward(&[*last], &[0]);
        let of_last = self.exact.len() - decoded.len();
        let theirs = distance(&self.halves[&dtype][of_last..], &self.exact[of_last..]);
        let ours = distance(&decoded, &self.exact[of_last..]);
        println!("{key} in {name}, decoded: {ours:.2e} from float64, PyTorch {theirs:.2e}");
        assert!(ours <= HALF_TOLERANCE * theirs, "{key} in {name} on {device}, decoded");
    }
}

#[test]
fn logits_and_answers_equal_those_of_transformers() {
    let mut compared = 0;
    for case in cases() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            compared += case.check(Cpu::new(isa, 2).unwrap());
        }
    }
    assert!(compared > 300, "only {compared} tokens had a clear margin");
}

#[test]
fn half_precision_is_as_close_to_the_truth_as_pytorch() {
    for case in cases() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for dtype in [Dtype::Bf16, Dtype::F16] {
                case.check_half(dtype, || Cpu::new(isa, 2).unwrap());
            }
        }
    }
}

#[test]
fn cuda_logits_and_answers_equal_those_of_transformers() {
    let Some(open) = cuda::device() else { return };
    let compared: usize = cases().iter().map(|case| case.check(open())).sum();
    assert!(compared > 300, "only {compared} tokens had a clear margin");
}

#[test]
fn cuda_half_precision_is_as_close_to_the_truth_as_pytorch() {
    let Some(open) = cuda::device() else { return };
    for case in cases() {
        for dtype in [Dtype::Bf16, Dtype::F16] {
            case.check_half(dtype, &open);
        }
    }
}
