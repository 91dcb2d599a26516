//! The shape of a decoder: plain numbers, read from a checkpoint by `checkpoint`.

use switchyard_kernels::{AttentionShape, Dtype, Linear};

/// How rotary frequencies are stretched beyond the trained length.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// As trained.
    None,
    /// Positions divided by `factor`.
    Linear {
        /// Stretch.
        factor: f32,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a smooth step between.
    Llama3 {
        /// Stretch of the lowest frequencies.
        factor: f32,
        /// Wavelengths above `original_positions / low_freq_factor` are stretched in full.
        low_freq_factor: f32,
        /// Wavelengths below `original_positions / high_freq_factor` are kept.
        high_freq_factor: f32,
        /// Trained length.
        original_positions: u32,
    },
}

/// The shape of a decoder. Architectures differ here, not in code.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// Rows of the embedding and of the output head.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub intermediate: usize,
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head; `heads * head_dim` need not equal `hidden`.
    pub head_dim: usize,
    /// Added to the mean square before the root.
    pub norm_eps: f32,
    /// Base of the rotary frequencies.
    pub rope_theta: f32,
    /// Stretch of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Longest sequence, prompt and answer together.
    pub max_positions: usize,
}

impl ModelConfig {
    /// What the attention layers share, with keys and values stored as `dtype`.
    pub fn attention_shape(&self, dtype: Dtype) -> AttentionShape {
        AttentionShape {
            layers: self.layers,
            heads: self.heads,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            dtype,
            inv_freq: self.inv_freq(),
        }
    }

    /// `(outputs, inputs)` of a linear.
    pub fn linear_shape(&self, linear: Linear) -> (usize, usize) {
        let (query, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            Linear::Query => (query, self.hidden),
            Linear::Key | Linear::Value => (kv, self.hidden),
            Linear::Output => (self.hidden, query),
            Linear::Gate | Linear::Up => (self.intermediate, self.hidden),
            Linear::Down => (self.hidden, self.intermediate),
        }
    }

    /// `[head_dim / 2]` radians per position, in the order of operations and the precision that
    /// transformers uses, so that long positions agree.
    fn inv_freq(&self) -> Vec<f32> {
        let exponent = |i: usize| (2 * i) as f32 / self.head_dim as f32;
        let trained = (0..self.head_dim / 2).map(|i| 1.0 / self.rope_theta.powf(exponent(i)));
        trained.map(|freq| self.rope_scaling.stretch(freq)).collect()
    }
}

impl RopeScaling {
    fn stretch(self, freq: f32) -> f32 {
        match self {
            Self::None => freq,
            Self::Linear { factor } => freq / factor,
            Self::Llama3 { factor, low_freq_factor, high_freq_factor, original_positions } => {
                let original = original_positions as f32;
                let wavelength = std::f32::consts::TAU / freq;
                if wavelength > original / low_freq_factor {
                    freq / factor
                } else if wavelength < original / high_freq_factor {
                    freq
                } else {
                    let span = high_freq_factor - low_freq_factor;
                    let kept = (original / wavelength - low_freq_factor) / span;
                    (1.0 - kept) * freq / factor + kept * freq
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that transformers 5.23 computes for the same parameters.
    #[test]
    fn inverse_frequencies_are_those_of_transformers() {
        let check = |head_dim, rope_theta, rope_scaling, step: usize, golden: [f32; 8]| {
            let tiny = crate::model::tests::tiny();
            let config = ModelConfig { head_dim, rope_theta, rope_scaling, ..tiny };
            for (i, golden) in golden.into_iter().enumerate() {
                let ours = config.inv_freq()[i * step];
                let error = (ours - golden).abs() / golden;
                assert!(error < 2e-7, "{rope_scaling:?} {}: {ours} {golden}", i * step);
            }
        };
        let plain = [1.0, 0.316_227_76, 0.1, 0.031_622_78, 0.01, 0.003_162_277_7, 0.001];
        let plain: [f32; 8] = std::array::from_fn(|i| *plain.get(i).unwrap_or(&0.000_316_227_76));
        check(16, 10_000.0, RopeScaling::None, 1, plain);
        let stretched = plain.map(|freq| freq / 4.0);
        check(16, 10_000.0, RopeScaling::Linear { factor: 4.0 }, 1, stretched);
        let llama3 = RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_positions: 8192,
        };
        let golden = [
            1.0,
            0.193_922_76,
            0.037_606_03,
            0.007_292_665,
            0.000_524_846,
            3.428_102_4e-5,
            6.647_869_7e-6,
            1.289_173_2e-6,
        ];
        check(128, 500_000.0, llama3, 8, golden);
    }
}
