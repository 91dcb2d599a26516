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
