//! An adapter beside the weights against the same adapter merged into them.

use half::{bf16, f16};
use switchyard::model::{
    AdapterId, HostWeights, ImageMemory, LoraLinear, LoraWeights, Model, ModelConfig, ModelLimits,
};
use switchyard_kernels::{
    AdapterSlot, Backend, Batch, Dtype, HostMatrix, Linear, RowToken, Segment,
};

use super::{device, distance, middle, tiny};

const TOKENS: u32 = 60;

/// The elements of a matrix, row-major.
fn elements(matrix: &HostMatrix) -> Vec<f32> {
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let bytes = matrix.data.bytes();
    match matrix.dtype {
        Dtype::F32 => {
            bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
        }
        Dtype::F16 => bytes.chunks(2).map(|x| f16::from_bits(half(x)).to_f32()).collect(),
        Dtype::Bf16 => bytes.chunks(2).map(|x| bf16::from_bits(half(x)).to_f32()).collect(),
    }
}

/// `w[rows from first on] += scale * B A`, in the matrix's element type.
fn merge(w: &mut HostMatrix, first: usize, lora: &LoraLinear) {
    let (a, b) = (elements(&lora.a), elements(&lora.b));
    let (rank, inputs) = (lora.a.rows, lora.a.cols);
    let mut merged = elements(w);
    for (row, b) in b.chunks(rank).enumerate() {
        let out = &mut merged[(first + row) * inputs..][..inputs];
        for (b, a) in b.iter().zip(a.chunks(inputs)) {
            out.iter_mut().zip(a).for_each(|(w, a)| *w += lora.scale * b * a);
        }
    }
    let dtype = w.dtype;
    for (bytes, w) in w.data.bytes_mut().chunks_mut(dtype.size()).zip(merged) {
        match dtype {
            Dtype::F32 => bytes.copy_from_slice(&w.to_le_bytes()),
            Dtype::F16 => bytes.copy_from_slice(&f16::from_f32(w).to_le_bytes()),
            Dtype::Bf16 => bytes.copy_from_slice(&bf16::from_f32(w).to_le_bytes()),
        }
    }
}

fn merge_all(weights: &mut HostWeights, config: &ModelConfig, lora: &LoraWeights) {
    let (query, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
    for lora in &lora.linears {
        let layer = &mut weights.layers[lora.layer];
        match lora.linear {
            Linear::Query => merge(&mut layer.qkv, 0, lora),
            Linear::Key => merge(&mut layer.qkv, query, lora),
            Linear::Value => merge(&mut layer.qkv, query + kv, lora),
            Linear::Output => merge(&mut layer.output, 0, lora),
            Linear::Gate => merge(&mut layer.gate_up, 0, lora),
            Linear::Up => merge(&mut layer.gate_up, config.intermediate, lora),
            Linear::Down => merge(&mut layer.down, 0, lora),
        }
    }
}

/// Logits of the last two tokens: one at the end of a prompt, one decoded.
fn logits<B: Backend>(model: &mut Model<B>, adapter: Option<AdapterSlot>) -> Vec<f32> {
    let vocabulary = model.config().vocabulary as u32;
    let mut forward = |rows: std::ops::Range<u32>| {
        let (len, pages) = (rows.end - rows.start, rows.end.div_ceil(16));
        model.forward(&Batch {
            tokens: rows.clone().map(|i| RowToken::Known(i * 7919 % vocabulary)).collect(),
            positions: rows.collect(),
            seq_indptr: vec![0, len],
            page_indptr: vec![0, pages],
            page_indices: (0..pages).collect(),
            segments: vec![Segment { rows: 0..len, adapter }],
            logit_rows: vec![len - 1],
        });
        model.logits()
    };
    [forward(0..TOKENS - 1), forward(TOKENS - 1..TOKENS)].concat()
}

/// In bf16 the merged weights are rounded once more than the adapter's.
#[test]
fn an_adapter_equals_merged_weights() {
    let Some(open) = device() else { return };
    let limits = ModelLimits { rows: 64, logits: 64 };
    for (config, dtype, rank, tolerance) in [
        (tiny(), Dtype::F32, 3, 1e-4),
        (middle(), Dtype::F32, 16, 1e-4),
        (middle(), Dtype::F16, 24, 1e-2),
        (middle(), Dtype::Bf16, 16, 3e-2),
        (middle(), Dtype::Bf16, 128, 3e-2),
    ] {
        let lora = LoraWeights::random(&config, dtype, rank, 5);
        let mut weights = HostWeights::random(&config, dtype, 1).into_host().unwrap();
        merge_all(&mut weights, &config, &lora);
        let mut merged = Model::new(open(), &config, weights, limits).unwrap();
        merged.reserve(8).unwrap();
        let expected = logits(&mut merged, None);

        let weights = HostWeights::random(&config, dtype, 1);
        let mut model = Model::new(open(), &config, weights, limits).unwrap();
        let memory = ImageMemory::pageable(model.slab_bytes());
        let image = lora.pack(&config, &memory, AdapterId([5; 32])).unwrap();
        model.reserve(8 + image.map.slabs as usize).unwrap();
        let slabs: Vec<u32> = (8..8 + image.map.slabs).rev().collect();
        model.load_adapter(AdapterSlot(3), &image, &slabs);
        let error = distance(&logits(&mut model, Some(AdapterSlot(3))), &expected);
        println!("rank {rank} in {dtype:?}: {error:.2e}");
        assert!(error <= tolerance, "rank {rank} in {dtype:?}: {error:.2e}");
        let base = distance(&logits(&mut model, None), &expected);
        assert!(base > 10.0 * tolerance, "the adapter matters: {base:.2e}");
    }
}
