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

/// The same values in f32.
fn widen(matrix: &mut HostMatrix) {
    let mut wide = HostMatrix::zeroed(Dtype::F32, matrix.rows, matrix.cols);
    for (bytes, value) in wide.data.bytes_mut().chunks_mut(4).zip(elements(matrix)) {
        bytes.copy_from_slice(&value.to_le_bytes());
    }
    *matrix = wide;
}

fn widen_all(weights: &mut HostWeights) {
    weights.head.iter_mut().chain([&mut weights.embedding]).for_each(widen);
    for layer in &mut weights.layers {
        let matrices = [&mut layer.qkv, &mut layer.output, &mut layer.gate_up, &mut layer.down];
        matrices.into_iter().for_each(widen);
    }
}

struct Case {
    config: ModelConfig,
    dtype: Dtype,
    lora: LoraWeights,
}

impl Case {
    fn new(config: ModelConfig, dtype: Dtype, rank: usize) -> Self {
        let lora = LoraWeights::random(&config, dtype, rank, 5);
        Self { config, dtype, lora }
    }

    fn weights(&self) -> HostWeights {
        HostWeights::random(&self.config, self.dtype, 1).into_host().unwrap()
    }

    fn model<B: Backend>(&self, backend: B, weights: HostWeights) -> Model<B> {
        let limits = ModelLimits { rows: 64, logits: 64 };
        Model::new(backend, &self.config, weights, limits).unwrap()
    }

    /// The adapter merged into the weights, in their element type or in f32.
    fn merged<B: Backend>(&self, backend: B, is_wide: bool) -> Vec<f32> {
        let mut weights = self.weights();
        if is_wide {
            widen_all(&mut weights);
        }
        merge_all(&mut weights, &self.config, &self.lora);
        let mut model = self.model(backend, weights);
        model.reserve(8).unwrap();
        logits(&mut model, None)
    }

    /// The adapter beside the weights, and the weights alone.
    fn beside<B: Backend>(&self, backend: B) -> [Vec<f32>; 2] {
        let mut model = self.model(backend, self.weights());
        let memory = ImageMemory::pageable(model.slab_bytes());
        let image = self.lora.pack(&self.config, &memory, AdapterId([5; 32])).unwrap();
        model.reserve(8 + image.map.slabs as usize).unwrap();
        let slabs: Vec<u32> = (8..8 + image.map.slabs).rev().collect();
        model.load_adapter(AdapterSlot(3), &image, &slabs);
        [Some(AdapterSlot(3)), None].map(|adapter| logits(&mut model, adapter))
    }
}

/// Both are as far from the truth, weights merged in f32, as their element type makes them: merged
/// ones are rounded once more, and so are low ranks between the adapter's halves.
#[test]
fn an_adapter_equals_merged_weights() {
    let Some(open) = device() else { return };
    for (config, dtype, rank) in [
        (tiny(), Dtype::F32, 3),
        (middle(), Dtype::F32, 16),
        (middle(), Dtype::F16, 24),
        (middle(), Dtype::Bf16, 16),
        (middle(), Dtype::Bf16, 128),
    ] {
        let case = Case::new(config, dtype, rank);
        let truth = case.merged(open(), true);
        let of_merged = distance(&case.merged(open(), false), &truth);
        let [of_adapter, of_base] = case.beside(open()).map(|found| distance(&found, &truth));
        let errors = format!("rank {rank} in {dtype:?}: {of_adapter:.2e}, merged {of_merged:.2e}");
        println!("{errors}, base {of_base:.2e}");
        assert!(of_adapter <= (1.5 * of_merged).max(1e-4), "{errors}");
        assert!(of_base > 3.0 * of_adapter, "the adapter matters: {errors}, base {of_base:.2e}");
    }
}
