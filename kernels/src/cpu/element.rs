//! Stored elements and their `f32` values.

use half::{bf16, f16};

use crate::Dtype;

/// A stored number.
///
/// # Safety
/// Every bit pattern of the type is a value and the type has no padding.
pub(super) unsafe trait Element: Copy + Send + Sync + 'static {
    /// Exact value.
    fn widen(self) -> f32;
    /// Nearest value, ties to even.
    fn narrow(value: f32) -> Self;
}

// SAFETY: every 32-bit pattern is an f32.
unsafe impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }
}

// SAFETY: transparent over u16.
unsafe impl Element for f16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

// SAFETY: transparent over u16.
unsafe impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }

    #[inline(always)]
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

/// Views little-endian bytes as elements.
pub(super) fn elements<E: Element>(bytes: &[u8]) -> &[E] {
    // SAFETY: `Element` promises that every bit pattern is a value.
    let (head, elements, tail) = unsafe { bytes.align_to::<E>() };
    assert!(head.is_empty() && tail.is_empty(), "weights are whole, aligned elements");
    elements
}

/// Views little-endian bytes as elements, to be written.
pub(super) fn elements_mut<E: Element>(bytes: &mut [u8]) -> &mut [E] {
    // SAFETY: `Element` promises that every bit pattern is a value and that none is padding.
    let (head, elements, tail) = unsafe { bytes.align_to_mut::<E>() };
    assert!(head.is_empty() && tail.is_empty(), "weights are whole, aligned elements");
    elements
}

/// Runs `$body` with `$element` standing for the Rust type of a [`Dtype`].
macro_rules! with_element {
    ($dtype:expr, $element:ident => $body:expr) => {
        match $dtype {
            $crate::Dtype::F32 => {
                type $element = f32;
                $body
            }
            $crate::Dtype::F16 => {
                type $element = half::f16;
                $body
            }
            $crate::Dtype::Bf16 => {
                type $element = half::bf16;
                $body
            }
        }
    };
}
pub(super) use with_element;

/// The values of stored elements.
pub(super) fn widened(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    with_element!(dtype, E => elements::<E>(bytes).iter().map(|e| e.widen()).collect())
}

/// What a product against weights of `dtype` sees of an activation.
#[inline(always)]
pub(super) fn operand(dtype: Dtype, value: f32) -> f32 {
    match dtype {
        Dtype::Bf16 => bf16::from_f32(value).to_f32(),
        Dtype::F16 | Dtype::F32 => value,
    }
}
