//! AVX-512: sixteen lanes, and the dot product of bf16 pairs where there is one.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::{Kernel, Lanes};

/// Proof of AVX-512 F, BW, DQ and VL.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512(());

/// Runs a kernel that is compiled for these instructions.
///
/// # Safety
/// The machine has them.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn enter(kernel: impl Kernel) {
    kernel.run(Avx512(()));
}

/// An intrinsic, called where `self` is the proof that it exists.
macro_rules! intrinsic {
    ($call:expr) => {
        // SAFETY: a value of this type exists only inside `enter`, whose caller vouches for the
        // instructions; pointers are as the caller of an unsafe method promises.
        unsafe { $call }
    };
}

impl Lanes for Avx512 {
    const COUNT: usize = 16;
    const REGISTERS: usize = 32;
    type V = __m512;

    #[inline(always)]
    fn splat(self, value: f32) -> Self::V {
        intrinsic!(_mm512_set1_ps(value))
    }

    #[inline(always)]
    fn add(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_add_ps(a, b))
    }

    #[inline(always)]
    fn sub(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_sub_ps(a, b))
    }

    #[inline(always)]
    fn mul(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_mul_ps(a, b))
    }

    #[inline(always)]
    fn div(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_div_ps(a, b))
    }

    #[inline(always)]
    fn min(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_min_ps(a, b))
    }

    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        intrinsic!(_mm512_max_ps(a, b))
    }

    #[inline(always)]
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        intrinsic!(_mm512_fmadd_ps(a, b, c))
    }

    #[inline(always)]
    fn round(self, a: Self::V) -> Self::V {
        intrinsic!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a))
    }

    #[inline(always)]
    fn power_of_two(self, a: Self::V) -> Self::V {
        intrinsic!({
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(a), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }

    #[inline(always)]
    fn sum(self, a: Self::V) -> f32 {
        intrinsic!({
            let a = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps::<1>(a));
            let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
            _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
        })
    }

    #[inline(always)]
    unsafe fn load_f32(self, from: *const f32) -> Self::V {
        intrinsic!(_mm512_loadu_ps(from))
    }

    #[inline(always)]
    unsafe fn load_f16(self, from: *const f16) -> Self::V {
        intrinsic!(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast())))
    }

    #[inline(always)]
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V {
        intrinsic!({
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        })
    }

    #[inline(always)]
    unsafe fn store_f32(self, a: Self::V, to: *mut f32) {
        intrinsic!(_mm512_storeu_ps(to, a))
    }
}

/// Proof of AVX-512 with its bf16 dot product.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512Bf16(());

impl Avx512Bf16 {
    /// # Safety
    /// The machine has AVX-512 F, BW, DQ, VL and BF16.
    pub(super) unsafe fn new() -> Self {
        Self(())
    }

    /// Calls `run` where its code is compiled for these instructions.
    pub(in super::super) fn enter(self, kernel: impl Bf16Kernel) {
        #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
        fn inside(token: Avx512Bf16, kernel: impl Bf16Kernel) {
            kernel.run(token);
        }
        // SAFETY: `new`'s caller vouched for the instructions.
        unsafe { inside(self, kernel) }
    }

    #[inline(always)]
    pub(in super::super) fn lanes(self) -> Avx512 {
        Avx512(())
    }

    /// `c[i] + a[2 i] b[2 i] + a[2 i + 1] b[2 i + 1]`, 16 lanes of pairs.
    #[inline(always)]
    pub(in super::super) fn dot_pairs(self, a: __m512i, b: __m512i, c: __m512) -> __m512 {
        intrinsic!({
            let a = std::mem::transmute::<__m512i, __m512bh>(a);
            let b = std::mem::transmute::<__m512i, __m512bh>(b);
            _mm512_dpbf16_ps(c, a, b)
        })
    }

    /// # Safety
    /// 32 elements are readable.
    #[inline(always)]
    pub(in super::super) unsafe fn load_pairs(self, from: *const bf16) -> __m512i {
        intrinsic!(_mm512_loadu_si512(from.cast()))
    }
}

/// Work for [`Avx512Bf16::enter`]; `run` must be `#[inline(always)]`.
pub(in super::super) trait Bf16Kernel {
    fn run(self, token: Avx512Bf16);
}
