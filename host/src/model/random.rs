//! Random weights of any shape, for benchmarks and tests.
//!
//! Every element is `±[1, 2) * 2^e`: random sign and mantissa bits under a fixed exponent, four
//! bf16 elements to a drawn word, so that billions of them take seconds.

use fastrand::Rng;
use switchyard_kernels::{Dtype, HostMatrix, Linear};

use super::{HostLayer, HostWeights, LoraLinear, LoraWeights, ModelConfig};

/// Root mean square of `±[1, 2)`.
const UNIT_RMS: f32 = 1.5275;

impl HostWeights {
    /// Weights that keep activations near unit size; the same seed gives the same weights.
    pub fn random(config: &ModelConfig, dtype: Dtype, seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed);
        let embedding = matrix(dtype, (config.vocabulary, config.hidden), 1.0, &mut rng);
        let layers = (0..config.layers).map(|_| layer(config, dtype, &mut rng)).collect();
        let head = linear(dtype, (config.vocabulary, config.hidden), &mut rng);
        Self { embedding, layers, norm: norm(config.hidden, &mut rng), head: Some(head) }
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

/// `shape` is `(rows, cols)`; the root mean square is within a factor of `sqrt(2)` of `rms`.
fn matrix(dtype: Dtype, shape: (usize, usize), rms: f32, rng: &mut Rng) -> HostMatrix {
    let exponent = (rms / UNIT_RMS).log2().round() as i64;
    let (drawn, fixed) = match dtype {
        Dtype::F32 => (0x807f_ffff_807f_ffff, ((127 + exponent) as u64) << 23),
        Dtype::F16 => (0x83ff_83ff_83ff_83ff, ((15 + exponent) as u64) << 10),
        Dtype::Bf16 => (0x807f_807f_807f_807f, ((127 + exponent) as u64) << 7),
    };
    let fixed = fixed * if dtype.size() == 4 { 0x1_0000_0001 } else { 0x1_0001_0001_0001 };
    let mut matrix = HostMatrix::zeroed(dtype, shape.0, shape.1);
    for word in matrix.data.bytes_mut().chunks_mut(8) {
        let bits = rng.u64(..) & drawn | fixed;
        word.copy_from_slice(&bits.to_le_bytes()[..word.len()]);
    }
    matrix
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::elements;

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
}
