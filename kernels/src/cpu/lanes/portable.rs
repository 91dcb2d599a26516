//! Vectors as arrays, for the compiler to map to what the target has.

use half::{bf16, f16};

use super::Lanes;

/// Needs nothing.
#[derive(Clone, Copy)]
pub(in super::super) struct Portable;

const COUNT: usize = 8;

#[inline(always)]
fn map(a: [f32; COUNT], b: [f32; COUNT], f: impl Fn(f32, f32) -> f32) -> [f32; COUNT] {
    let mut out = [0.0; COUNT];
    for i in 0..COUNT {
        out[i] = f(a[i], b[i]);
    }
    out
}

impl Lanes for Portable {
    const COUNT: usize = COUNT;
    const REGISTERS: usize = 8;
    type V = [f32; COUNT];

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        [value; COUNT]
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a + b)
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a - b)
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a * b)
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| a / b)
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        map(a, b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        // Rounded twice: a fused product without the instruction is a library call.
        self.add(self.mul(a, b), c)
    }

    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        // Adding 1.5 * 2^23 leaves no fraction bits; what `exp` asks for is far below 2^22.
        const SHIFT: f32 = 12_582_912.0;
        map(a, a, |a, _| (a + SHIFT) - SHIFT)
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::V) -> Self::V {
        map(a, a, |a, _| f32::from_bits(((a as i32 + 127) as u32) << 23))
    }

    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> Self::V {
        // SAFETY: the caller's.
        unsafe { from.cast::<Self::V>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::V {
        // SAFETY: the caller's.
        unsafe { from.cast::<[f16; COUNT]>().read_unaligned() }.map(f16::to_f32)
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V {
        // SAFETY: the caller's.
        let bits = unsafe { from.cast::<[u16; COUNT]>().read_unaligned() };
        bits.map(|bits| f32::from_bits(u32::from(bits) << 16))
    }

    #[inline(always)]
    unsafe fn store_f32(self, a: Self::V, to: *mut f32) {
        // SAFETY: the caller's.
        unsafe { to.cast::<Self::V>().write_unaligned(a) }
    }
}
