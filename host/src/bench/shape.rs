//! Named shapes, run with random weights: speed does not depend on what the weights say.

use crate::model::{ModelConfig, RopeScaling};

/// The shape of that name.
pub(super) fn named(name: &str) -> Option<ModelConfig> {
    let tiny = ModelConfig {
        vocabulary: 4096,
        hidden: 256,
        intermediate: 704,
        layers: 4,
        heads: 8,
        kv_heads: 4,
        head_dim: 32,
        norm_eps: 1e-5,
        rope_theta: 10_000.0,
        rope_scaling: RopeScaling::None,
        max_positions: 8192,
    };
    match name {
        "tiny" => Some(tiny),
        "tinyllama-1.1b" => Some(ModelConfig {
            vocabulary: 32_000,
            hidden: 2048,
            intermediate: 5632,
            layers: 22,
            heads: 32,
            kv_heads: 4,
            head_dim: 64,
            ..tiny
        }),
        "llama-3-8b" => Some(ModelConfig {
            vocabulary: 128_256,
            hidden: 4096,
            intermediate: 14_336,
            layers: 32,
            heads: 32,
            kv_heads: 8,
            head_dim: 128,
            rope_theta: 500_000.0,
            ..tiny
        }),
        _ => None,
    }
}
