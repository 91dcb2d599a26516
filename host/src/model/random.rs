//! Random weights of any shape, for benchmarks and tests.
//!
//! Every element is `±[1, 2) * 2^e`: random sign and mantissa bits under a fixed exponent, four
//! bf16 elements to a drawn word, and layers are drawn side by side, so that billions of elements
//! take seconds.

use std::{
    num::NonZero,
    sync::{Arc, atomic::AtomicBool},
    thread,
};

use fastrand::Rng;
use switchyard_kernels::{Dtype, HostMatrix, Linear};

use super::{
    AdapterId, AdapterImage, HostLayer, HostWeights, LoraLinear, LoraWeights, ModelConfig,
};

/// Root mean square of `±[1, 2)`.
const UNIT_RMS: f32 = 1.5275;
/// Elements of `A` and `B` alike where a whole image is drawn: about that of an `A` with 4096
/// inputs, with which a delta stays below its base product.
const TWIN_RMS: f32 = 1.0 / 64.0;

impl HostWeights {
    /// Weights that keep activations near unit size; the same seed gives the same weights.
    pub fn random(config: &ModelConfig, dtype: Dtype, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let table = (config.vocabulary, config.hidden);
        let (mut of_embedding, mut of_head) = (rng.fork(), rng.fork());
        let mut of_layers: Vec<Rng> = (0..config.layers).map(|_| rng.fork()).collect();
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let drawn = |rngs: &mut [Rng]| -> Vec<HostLayer> {
            rngs.iter_mut().map(|rng| layer(config, dtype, rng)).collect()
        };
        thread::scope(|scope| {
            let embedding = scope.spawn(|| matrix(dtype, table, 1.0, &mut of_embedding));
            let head = scope.spawn(|| linear(dtype, table, &mut of_head));
            let share = config.layers.div_ceil(processors).max(1);
            let layers = of_layers.chunks_mut(share).map(|rngs| scope.spawn(move || drawn(rngs)));
            let layers: Vec<_> = layers.collect();
            const DRAWN: &str = "drawing does not panic";
            Self {
                embedding: embedding.join().expect(DRAWN),
                layers: layers.into_iter().flat_map(|part| part.join().expect(DRAWN)).collect(),
                norm: norm(config.hidden, &mut rng),
                head: Some(head.join().expect(DRAWN)),
            }
        })
    }
}

impl LoraWeights {
    /// An adapter of one rank on all seven linears; the same seed gives the same weights.
    pub fn random(config: &ModelConfig, dtype: Dtype, rank: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut lora = |layer, which| {
            let (out, input) = config.linear_shape(which);
            let a = linear(dtype, (rank, input), &mut rng);
            let b = linear(dtype, (out, rank), &mut rng);
            LoraLinear { layer, linear: which, scale: 2.0, a, b }
        };
        let mut linears = Vec::new();
        for layer in 0..config.layers {
            linears.extend(Linear::ALL.map(|which| lora(layer, which)));
        }
        Self { linears }
    }
}

impl AdapterImage {
    /// Another adapter of the same geometry, all its bytes drawn anew: the same `id` gives the same
    /// bytes. `resident` is what its name in a catalogue would hold.
    pub fn twin(&self, id: AdapterId, resident: Arc<AtomicBool>) -> Self {
        let slabs = self.map.slabs;
        let mut bytes = Self::room(slabs, self.bytes.len() / slabs.max(1) as usize);
        let seed = id.0.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        fill(bytes.bytes_mut(), self.map.dtype, TWIN_RMS, &mut Rng::with_seed(seed));
        Self { id, rank: self.rank, map: self.map.clone(), bytes, resident }
    }
}

fn layer(config: &ModelConfig, dtype: Dtype, rng: &mut Rng) -> HostLayer {
    let query = config.heads * config.head_dim;
    let qkv = query + 2 * config.kv_heads * config.head_dim;
    HostLayer {
        attention_norm: norm(config.hidden, rng),
        qkv: linear(dtype, (qkv, config.hidden), rng),
        qkv_bias: None,
        output: linear(dtype, (config.hidden, query), rng),
        output_bias: None,
        mlp_norm: norm(config.hidden, rng),
        gate_up: linear(dtype, (2 * config.intermediate, config.hidden), rng),
        gate_up_bias: None,
        down: linear(dtype, (config.hidden, config.intermediate), rng),
        down_bias: None,
    }
}

fn norm(len: usize, rng: &mut Rng) -> Vec<f32> {
    (0..len).map(|_| 0.75 + rng.f32() / 2.0).collect()
}

/// A product that keeps unit inputs at unit size.
fn linear(dtype: Dtype, shape: (usize, usize), rng: &mut Rng) -> HostMatrix {
    matrix(dtype, shape, 1.0 / (shape.1 as f32).sqrt(), rng)
}

/// `shape` is `(rows, cols)`.
fn matrix(dtype: Dtype, shape: (usize, usize), rms: f32, rng: &mut Rng) -> HostMatrix {
    let mut matrix = HostMatrix::zeroed(dtype, shape.0, shape.1);
    fill(matrix.data.bytes_mut(), dtype, rms, rng);
    matrix
}

/// The root mean square is within a factor of `sqrt(2)` of `rms`.
fn fill(bytes: &mut [u8], dtype: Dtype, rms: f32, rng: &mut Rng) {
    let exponent = (rms / UNIT_RMS).log2().round() as i64;
    let (drawn, fixed) = match dtype {
        Dtype::F32 => (0x807f_ffff_807f_ffff, ((127 + exponent) as u64) << 23),
        Dtype::F16 => (0x83ff_83ff_83ff_83ff, ((15 + exponent) as u64) << 10),
        Dtype::Bf16 => (0x807f_807f_807f_807f, ((127 + exponent) as u64) << 7),
    };
    let fixed = fixed * if dtype.size() == 4 { 0x1_0000_0001 } else { 0x1_0001_0001_0001 };
    let mut word = || (rng.u64(..) & drawn | fixed).to_le_bytes();
    let (words, rest) = bytes.as_chunks_mut();
    words.iter_mut().for_each(|bytes| *bytes = word());
    rest.copy_from_slice(&word()[..rest.len()]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{elements, tiny};

    #[test]
    fn elements_have_the_asked_size_and_no_bias() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let drawn = elements(&matrix(dtype, (33, 101), 0.02, &mut Rng::with_seed(1)));
            let n = drawn.len() as f32;
            let mean = drawn.iter().sum::<f32>() / n;
            let rms = (drawn.iter().map(|x| x * x).sum::<f32>() / n).sqrt();
            assert!(mean.abs() < 0.002, "{dtype:?}: mean {mean}");
            assert!((0.014..0.029).contains(&rms), "{dtype:?}: rms {rms}");
        }
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let bytes = |seed| {
            matrix(Dtype::Bf16, (8, 8), 1.0, &mut Rng::with_seed(seed)).data.bytes().to_vec()
        };
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    #[test]
    fn layers_differ_and_repeat_however_many_threads_drew_them() {
        let drawn = || HostWeights::random(&tiny(), Dtype::Bf16, 3);
        let (first, second) = (drawn(), drawn());
        let all = |weights: &HostWeights| -> Vec<Vec<u8>> {
            weights.layers.iter().map(|layer| layer.qkv.data.bytes().to_vec()).collect()
        };
        assert_eq!(all(&first), all(&second));
        assert_ne!(all(&first)[0], all(&first)[1]);
        let head = first.head.expect("drawn");
        assert_ne!(head.data.bytes()[..64], first.embedding.data.bytes()[..64]);
    }

    #[test]
    fn twins_share_geometry_and_nothing_else() {
        let config = tiny();
        let slab_bytes = config.attention_shape(Dtype::Bf16).slab_bytes();
        let weights = LoraWeights::random(&config, Dtype::Bf16, 8, 1);
        let image = weights.pack(&config, slab_bytes, AdapterId([0; 32])).expect("it fits");
        let twin = |byte| image.twin(AdapterId([byte; 32]), Arc::default());
        assert_eq!(twin(1).bytes.bytes(), twin(1).bytes.bytes());
        assert_ne!(twin(1).bytes.bytes(), twin(2).bytes.bytes());
        assert_eq!(twin(1).bytes.len(), image.bytes.len());
        assert!(Arc::ptr_eq(&twin(1).map, &image.map));
    }
}
