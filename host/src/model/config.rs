//! The shape of a decoder: plain numbers, read from a checkpoint by `checkpoint`.

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
