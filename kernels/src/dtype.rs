//! Element types of weights, adapter tiles and the KV cache.

/// How an element is stored. Arithmetic accumulates in `f32` whatever the storage.
///
/// Storage also fixes what a product sees: against `Bf16` weights the activations are rounded to
/// bf16 first, on every path, so that paths differ only in the order of accumulation; against
/// `F16` and `F32` weights they stay `f32`. Queries and attention weights are no such activations:
/// they stay `f32`. So does the low rank of a LoRA product, except where tensor cores multiply it
/// with bf16 tiles: there it is rounded to bf16.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Truncated single precision: 8 exponent and 7 mantissa bits.
    Bf16,
}

impl Dtype {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name used in configuration and in checkpoints' `torch_dtype`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
        }
    }
}
