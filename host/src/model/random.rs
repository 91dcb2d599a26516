//! Random weights of any shape, for benchmarks and tests.
//!
//! Every element is `±[1, 2) * 2^e`: random sign and mantissa bits under a fixed exponent, four
//! bf16 elements to a drawn word. A word is a function of the seed and its number, so that any
//! piece of a matrix is drawn by itself: billions of elements take seconds and no memory.

use std::sync::{Arc, atomic::AtomicBool};

use fastrand::Rng;
use switchyard_kernels::{Dtype, HostMatrix, Linear, MatrixSource, SourceError};

use super::{
    AdapterId, AdapterImage, HostLayer, HostWeights, ImageMemory, LoraLinear, LoraWeights,
    ModelConfig,
};

/// Root mean square of `±[1, 2)`.
const UNIT_RMS: f32 = 1.5275;
/// Bytes drawn at a time.
const WORD: usize = 8;
/// Distance of two states of [`draw`], odd and without pattern.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Elements of `A` and `B` alike where a whole image is drawn: about that of an `A` with 4096
/// inputs, with which a delta stays below its base product.
const TWIN_RMS: f32 = 1.0 / 64.0;

/// A matrix that is drawn as it is read; the same seed gives the same matrix.
pub struct RandomMatrix {
    dtype: Dtype,
    /// `[rows, cols]`
    shape: [usize; 2],
    /// Bits of a word that are drawn.
    drawn: u64,
    /// Exponents of a word.
    fixed: u64,
    seed: u64,
}

impl RandomMatrix {
    /// Elements whose root mean square is within a factor of `sqrt(2)` of `rms`.
    fn new(dtype: Dtype, shape: [usize; 2], rms: f32, rng: &mut Rng) -> Self {
        let exponent = (rms / UNIT_RMS).log2().round() as i64;
        let (drawn, fixed) = match dtype {
            Dtype::F32 => (0x807f_ffff_807f_ffff, ((127 + exponent) as u64) << 23),
            Dtype::F16 => (0x83ff_83ff_83ff_83ff, ((15 + exponent) as u64) << 10),
            Dtype::Bf16 => (0x807f_807f_807f_807f, ((127 + exponent) as u64) << 7),
        };
        let fixed = fixed * if dtype.size() == 4 { 0x1_0000_0001 } else { 0x1_0001_0001_0001 };
        Self { dtype, shape, drawn, fixed, seed: rng.u64(..) }
    }

    /// A product that keeps unit inputs at unit size.
    fn linear(dtype: Dtype, shape: [usize; 2], rng: &mut Rng) -> Self {
        Self::new(dtype, shape, 1.0 / (shape[1] as f32).sqrt(), rng)
    }

    fn in_memory(self) -> HostMatrix {
        self.into_host().expect("drawing does not fail")
    }
}

impl MatrixSource for RandomMatrix {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), SourceError> {
        assert!(start.is_multiple_of(WORD), "pieces start at words");
        let (words, rest) = out.as_chunks_mut::<WORD>();
        let word = |number: usize| {
            let drawn = draw(self.seed, (start / WORD + number) as u64);
            (drawn & self.drawn | self.fixed).to_le_bytes()
        };
        for (number, bytes) in words.iter_mut().enumerate() {
            *bytes = word(number);
        }
        rest.copy_from_slice(&word(words.len())[..rest.len()]);
        Ok(())
    }
}

/// SplitMix64 at its `number`-th state.
fn draw(seed: u64, number: u64) -> u64 {
    let mut word = seed.wrapping_add(number.wrapping_mul(STRIDE));
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ word >> 31
}

impl HostWeights<RandomMatrix> {
    /// Weights that keep activations near unit size; the same seed gives the same weights.
    pub fn random(config: &ModelConfig, dtype: Dtype, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let vocabulary = [config.vocabulary, config.hidden];
        let embedding = RandomMatrix::new(dtype, vocabulary, 1.0, &mut rng);
        let layers = (0..config.layers).map(|_| layer(config, dtype, &mut rng)).collect();
        let head = RandomMatrix::linear(dtype, vocabulary, &mut rng);
        Self { embedding, layers, norm: norm(config.hidden, &mut rng), head: Some(head) }
    }
}

impl LoraWeights {
    /// An adapter of one rank on all seven linears; the same seed gives the same weights.
    pub fn random(config: &ModelConfig, dtype: Dtype, rank: usize, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let mut lora = |layer, which| {
            let (out, input) = config.linear_shape(which);
            let a = RandomMatrix::linear(dtype, [rank, input], &mut rng).in_memory();
            let b = RandomMatrix::linear(dtype, [out, rank], &mut rng).in_memory();
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
    pub fn twin(&self, memory: &ImageMemory, id: AdapterId, resident: Arc<AtomicBool>) -> Self {
        let (slabs, dtype) = (self.map.slabs, self.map.dtype);
        let mut bytes = memory.room(slabs);
        let seed = id.0.first_chunk().map_or(0, |head| u64::from_le_bytes(*head));
        let shape = [1, bytes.len() / dtype.size()];
        let drawn = RandomMatrix::new(dtype, shape, TWIN_RMS, &mut Rng::with_seed(seed));
        drawn.read(0, bytes.bytes_mut()).expect("drawing does not fail");
        Self { id, rank: self.rank, map: self.map.clone(), bytes: Arc::new(bytes), resident }
    }
}

fn layer(config: &ModelConfig, dtype: Dtype, rng: &mut Rng) -> HostLayer<RandomMatrix> {
    let query = config.heads * config.head_dim;
    let qkv = query + 2 * config.kv_heads * config.head_dim;
    HostLayer {
        attention_norm: norm(config.hidden, rng),
        qkv: RandomMatrix::linear(dtype, [qkv, config.hidden], rng),
        qkv_bias: None,
        output: RandomMatrix::linear(dtype, [config.hidden, query], rng),
        output_bias: None,
        mlp_norm: norm(config.hidden, rng),
        gate_up: RandomMatrix::linear(dtype, [2 * config.intermediate, config.hidden], rng),
        gate_up_bias: None,
        down: RandomMatrix::linear(dtype, [config.hidden, config.intermediate], rng),
        down_bias: None,
    }
}

fn norm(len: usize, rng: &mut Rng) -> Vec<f32> {
    (0..len).map(|_| 0.75 + rng.f32() / 2.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::{elements, tiny};

    fn matrix(dtype: Dtype, shape: [usize; 2], rms: f32, seed: u64) -> RandomMatrix {
        RandomMatrix::new(dtype, shape, rms, &mut Rng::with_seed(seed))
    }

    #[test]
    fn elements_have_the_asked_size_and_no_bias() {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::Bf16] {
            let drawn = elements(&matrix(dtype, [33, 101], 0.02, 1).in_memory());
            let n = drawn.len() as f32;
            let mean = drawn.iter().sum::<f32>() / n;
            let rms = (drawn.iter().map(|x| x * x).sum::<f32>() / n).sqrt();
            assert!(mean.abs() < 0.002, "{dtype:?}: mean {mean}");
            assert!((0.014..0.029).contains(&rms), "{dtype:?}: rms {rms}");
        }
    }

    #[test]
    fn seeds_repeat_and_differ() {
        let bytes = |seed| matrix(Dtype::Bf16, [8, 8], 1.0, seed).in_memory().data.bytes().to_vec();
        assert_eq!(bytes(7), bytes(7));
        assert_ne!(bytes(7), bytes(8));
    }

    #[test]
    fn pieces_are_parts_of_the_whole() {
        let matrix = matrix(Dtype::Bf16, [9, 13], 1.0, 3);
        let mut pieces = Vec::new();
        for len in [8, 64, 16, 146] {
            let mut piece = vec![0; len];
            matrix.read(pieces.len(), &mut piece).unwrap();
            pieces.extend(piece);
        }
        assert!(matrix.in_memory().data.bytes() == pieces);
    }

    #[test]
    fn matrices_differ_and_repeat() {
        let drawn = || HostWeights::random(&tiny(), Dtype::Bf16, 3).into_host().unwrap();
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
        let memory = ImageMemory::pageable(config.attention_shape(Dtype::Bf16).slab_bytes());
        let weights = LoraWeights::random(&config, Dtype::Bf16, 8, 1);
        let image = weights.pack(&config, &memory, AdapterId([0; 32])).expect("it fits");
        let twin = |byte| image.twin(&memory, AdapterId([byte; 32]), Arc::default());
        assert_eq!(twin(1).bytes.bytes(), twin(1).bytes.bytes());
        assert_ne!(twin(1).bytes.bytes(), twin(2).bytes.bytes());
        assert_eq!(twin(1).bytes.len(), image.bytes.len());
        assert!(Arc::ptr_eq(&twin(1).map, &image.map));
    }
}
