//! Decoders whose kernels are timed.

use switchyard_kernels::{AttentionShape, Dtype, Linear, Site};

pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) layers: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_dim: usize,
    pub(crate) vocabulary: usize,
}

pub(crate) const SHAPES: [Shape; 3] = [
    Shape {
        name: "llama-3-8b",
        layers: 32,
        hidden: 4096,
        intermediate: 14_336,
        heads: 32,
        kv_heads: 8,
        head_dim: 128,
        vocabulary: 128_256,
    },
    Shape {
        name: "tinyllama-1.1b",
        layers: 22,
        hidden: 2048,
        intermediate: 5632,
        heads: 32,
        kv_heads: 4,
        head_dim: 64,
        vocabulary: 32_000,
    },
    Shape {
        name: "tiny",
        layers: 4,
        hidden: 256,
        intermediate: 704,
        heads: 8,
        kv_heads: 4,
        head_dim: 32,
        vocabulary: 4096,
    },
];

pub(crate) const SITES: [Site; 4] = [Site::Qkv, Site::Output, Site::GateUp, Site::Down];

impl Shape {
    pub(crate) fn attention(&self) -> AttentionShape {
        let Self { layers, heads, kv_heads, head_dim, .. } = *self;
        let frequency = |i: usize| 10_000f32.powf(-2.0 * i as f32 / head_dim as f32);
        let inv_freq = (0..head_dim / 2).map(frequency).collect();
        AttentionShape { layers, heads, kv_heads, head_dim, dtype: Dtype::Bf16, inv_freq }
    }

    /// Outputs and inputs of a linear.
    pub(crate) fn linear(&self, linear: Linear) -> [usize; 2] {
        let (queries, keys) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        match linear {
            Linear::Query => [queries, self.hidden],
            Linear::Key | Linear::Value => [keys, self.hidden],
            Linear::Output => [self.hidden, queries],
            Linear::Gate | Linear::Up => [self.intermediate, self.hidden],
            Linear::Down => [self.hidden, self.intermediate],
        }
    }

    /// Bytes of a token's keys and values of a layer.
    pub(crate) fn token_bytes(&self) -> usize {
        2 * self.kv_heads * self.head_dim * 2
    }

    /// Outputs and inputs of a site's fused product.
    pub(crate) fn site(&self, site: Site) -> [usize; 2] {
        let linears = site.linears();
        let outputs = linears.iter().map(|&linear| self.linear(linear)[0]).sum();
        [outputs, self.linear(linears[0])[1]]
    }
}
