//! What the model's and the engine's tests share: a tiny decoder, and what must hold of any.

pub(crate) mod probe;

use std::sync::Arc;

use switchyard_kernels::{
    AdapterSlot, Batch, Dtype, HostMatrix, Linear, RowToken, Segment,
    cpu::{Cpu, Isa},
};

use super::*;
use probe::Probe;

const LIMITS: ModelLimits = ModelLimits { rows: 64, logits: 64 };

/// A decoder whose widths divide by nothing large and whose queries are grouped.
pub(crate) fn tiny() -> ModelConfig {
    ModelConfig {
        vocabulary: 97,
        hidden: 64,
        intermediate: 96,
        layers: 2,
        heads: 4,
        kv_heads: 2,
        head_dim: 16,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_positions: 512,
    }
}

/// A tiny model on a CPU backend under observation.
pub(crate) fn tiny_model(probe: Probe, dtype: Dtype, limits: ModelLimits) -> Model<Probe> {
    let weights = HostWeights::random(&tiny(), dtype, 1);
    Model::new(probe, &tiny(), weights, limits).expect("fits")
}

/// An adapter of the tiny model, packed; `id` is its seed too.
pub(crate) fn tiny_adapter(dtype: Dtype, rank: usize, id: u8) -> Arc<AdapterImage> {
    let weights = LoraWeights::random(&tiny(), dtype, rank, id.into());
    let memory = ImageMemory::pageable(tiny().attention_shape(dtype).slab_bytes());
    Arc::new(weights.pack(&tiny(), &memory, AdapterId([id; 32])).expect("packs"))
}

/// The elements of a matrix, row-major.
pub(crate) fn elements(matrix: &HostMatrix) -> Vec<f32> {
    let bytes = matrix.data.bytes();
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    match matrix.dtype {
        Dtype::F32 => {
            let word = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            bytes.chunks(4).map(word).collect()
        }
        Dtype::F16 => bytes.chunks(2).map(|x| half::f16::from_bits(half(x)).to_f32()).collect(),
        Dtype::Bf16 => bytes.chunks(2).map(|x| half::bf16::from_bits(half(x)).to_f32()).collect(),
    }
}

/// One sequence from position 0 in slabs `0..`, logits of its last row.
fn prefill(tokens: &[u32], adapter: Option<AdapterSlot>) -> Batch {
    let rows = tokens.len() as u32;
    let pages = rows.div_ceil(16);
    Batch {
        tokens: tokens.iter().copied().map(RowToken::Known).collect(),
        positions: (0..rows).collect(),
        seq_indptr: vec![0, rows],
        page_indptr: vec![0, pages],
        page_indices: (0..pages).collect(),
        segments: vec![Segment { rows: 0..rows, adapter }],
        logit_rows: vec![rows - 1],
    }
}

/// `w[rows of the linear] += scale * B A`.
fn merge(w: &mut HostMatrix, first_row: usize, lora: &LoraLinear) {
    let (a, b) = (elements(&lora.a), elements(&lora.b));
    let (rank, input) = (lora.a.rows, lora.a.cols);
    let mut merged = elements(w);
    for (out, b) in b.chunks(rank).enumerate() {
        for (i, w) in merged[(first_row + out) * input..][..input].iter_mut().enumerate() {
            let delta: f32 = b.iter().enumerate().map(|(r, b)| b * a[r * input + i]).sum();
            *w += lora.scale * delta;
        }
    }
    for (bytes, w) in w.data.bytes_mut().chunks_mut(4).zip(merged) {
        bytes.copy_from_slice(&w.to_le_bytes());
    }
}

#[test]
fn adapter_path_equals_merged_weights() {
    let tokens: Vec<u32> = (0..40).map(|i| i * 7 % 97).collect();
    for rank in [3, 8, 24, 64] {
        let lora = LoraWeights::random(&tiny(), Dtype::F32, rank, 5);
        let weights = HostWeights::random(&tiny(), Dtype::F32, 1);
        let mut weights = weights.into_host().expect("drawn, not read");
        for lora in &lora.linears {
            let layer = &mut weights.layers[lora.layer];
            match lora.linear {
                Linear::Query => merge(&mut layer.qkv, 0, lora),
                Linear::Key => merge(&mut layer.qkv, 64, lora),
                Linear::Value => merge(&mut layer.qkv, 96, lora),
                Linear::Output => merge(&mut layer.output, 0, lora),
                Linear::Gate => merge(&mut layer.gate_up, 0, lora),
                Linear::Up => merge(&mut layer.gate_up, 96, lora),
                Linear::Down => merge(&mut layer.down, 0, lora),
            }
        }
        let cpu = Cpu::new(Isa::Portable, 2).expect("available everywhere");
        let mut merged = Model::new(cpu, &tiny(), weights, LIMITS).expect("fits");
        merged.reserve(8).expect("fits");
        merged.forward(&prefill(&tokens, None));
        let expected = merged.logits();

        let mut model = tiny_model(Probe::new(Isa::Portable), Dtype::F32, LIMITS);
        let image = tiny_adapter(Dtype::F32, rank, 5);
        model.reserve(8 + image.map.slabs as usize).expect("fits");
        let slabs: Vec<u32> = (0..image.map.slabs).map(|slab| slab + 8).rev().collect();
        model.load_adapter(AdapterSlot(3), &image, &slabs);
        model.forward(&prefill(&tokens, Some(AdapterSlot(3))));
        let largest = expected.iter().fold(0f32, |max, x| max.max(x.abs()));
        for (ours, expected) in model.logits().iter().zip(&expected) {
            let error = (ours - expected).abs() / largest;
            assert!(error <= 1e-5, "rank {rank}: {ours} against {expected}");
        }
        model.forward(&prefill(&tokens, None));
        assert_ne!(model.logits(), expected, "the adapter matters");
    }
}

#[test]
fn nothing_of_lora_runs_without_an_adapter_in_the_batch() {
    let mut model = tiny_model(Probe::new(Isa::Portable), Dtype::Bf16, LIMITS);
    let image = tiny_adapter(Dtype::Bf16, 8, 1);
    model.reserve(8 + image.map.slabs as usize).expect("fits");
    let slabs: Vec<u32> = (8..8 + image.map.slabs).collect();
    model.load_adapter(AdapterSlot(0), &image, &slabs);
    let record = model.backend.record();
    let mut seen_after = |adapter| {
        model.forward(&prefill(&[1, 2, 3], adapter));
        let record = record.lock().unwrap();
        (record.shrinks, record.deltas)
    };
    assert_eq!(seen_after(None), (0, 0));
    assert_eq!(seen_after(Some(AdapterSlot(0))), (8, 8));
}
