//! Tiny checkpoints and adapters against what transformers and peft compute (see
//! `golden/README.md`): logits on every path of the CPU backend, and greedy answers.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    sync::Arc,
};

use safetensors::SafeTensors;
use serde_json::Value;
use switchyard::{
    adapters::{AdapterStore, BaseIdentity, Registry},
    checkpoint::Checkpoint,
    model::{AdapterImage, Model, ModelLimits},
};
use switchyard_kernels::{
    AdapterSlot, Batch, Dtype, HostMemory, RowToken, Segment,
    cpu::{Cpu, Isa},
};
use tokio::runtime::Runtime;

use crate::harness::root;

const PAGE_TOKENS: usize = 16;
/// Largest difference of logits over the largest logit.
const TOLERANCE: f32 = 1e-4;
/// Where the two best tokens are closer than this, either may win.
const MARGIN: f64 = 1e-3;

fn golden(path: &str) -> PathBuf {
    root().join("tests/golden").join(path)
}

fn numbers(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

/// Every golden adapter's image, registered against the base that it was made for.
fn adapters() -> HashMap<String, Arc<AdapterImage>> {
    let checkpoint = Checkpoint::open(&golden("models/base-f32")).unwrap();
    let fingerprint = checkpoint.fingerprint().unwrap();
    let base = BaseIdentity {
        id: "base-f32".to_owned(),
        aliases: Vec::new(),
        revision: None,
        fingerprint,
        config: checkpoint.config,
        dtype: Dtype::F32,
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
struct Sequence {
    model: Model<Cpu>,
    adapter: Option<AdapterSlot>,
    rows: usize,
}

impl Sequence {
    fn new(name: &str, adapter: Option<&Arc<AdapterImage>>, isa: Isa) -> Self {
        let checkpoint = Checkpoint::open(&golden("models").join(name)).unwrap();
        let weights = checkpoint.load(Some(Dtype::F32), &mut |_, _| {}).unwrap();
        let backend = Cpu::new(isa, 2).unwrap();
        let limits = ModelLimits { rows: 64, logits: 64 };
        let mut model = Model::new(backend, &checkpoint.config, weights, limits).unwrap();
        let pages = limits.rows / PAGE_TOKENS;
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
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = |values: &mut dyn Iterator<Item = f32>| values.fold(0.0, f32::max);
    let difference = largest(&mut found.iter().zip(expected).map(|(a, b)| (a - b).abs()));
    difference / largest(&mut expected.iter().map(|x| x.abs()))
}

#[test]
fn logits_and_answers_equal_those_of_transformers() {
    let adapters = adapters();
    let bytes = fs::read(golden("expected.safetensors")).unwrap();
    let logits = SafeTensors::deserialize(&bytes).unwrap();
    let cases: Vec<Value> =
        serde_json::from_str(&fs::read_to_string(golden("expected.json")).unwrap()).unwrap();
    assert_eq!(cases.len(), 14, "seven models, seven adapters");
    let mut compared = 0;
    for case in &cases {
        let key = case["key"].as_str().unwrap();
        let expected: Vec<f32> = logits
            .tensor(key)
            .unwrap()
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        let adapter = case["adapter"].as_str().map(|name| &adapters[name]);
        let margins: Vec<f64> = serde_json::from_value(case["margins"].clone()).unwrap();
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let mut sequence = Sequence::new(case["model"].as_str().unwrap(), adapter, isa);
            let positions = numbers(&case["positions"]);
            let found = sequence.forward(&numbers(&case["prompt"]), &positions);
            let distance = distance(&found, &expected);
            assert!(distance <= TOLERANCE, "{key} on {isa}: {distance}");
            let mut last = found[found.len() - found.len() / positions.len()..].to_vec();
            for (&token, &margin) in numbers(&case["greedy"]).iter().zip(&margins) {
                if margin > MARGIN {
                    assert_eq!(best(&last), token, "{key} on {isa}");
                    compared += 1;
                }
                last = sequence.forward(&[token], &[0]);
            }
        }
    }
    assert!(compared > 300, "only {compared} tokens had a clear margin");
}
