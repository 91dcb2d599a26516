//! Vectors of `f32`, so that a kernel is written once and compiled for each instruction set.
//!
//! A value of a [`Lanes`] type is a token: it exists only where its instructions do, which is what
//! makes its methods safe. [`Path`] makes the tokens, after checking once.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod portable;

use half::{bf16, f16};

use super::{Isa, element::Element};

pub(super) use portable::Portable;

#[cfg(target_arch = "x86_64")]
pub(super) use avx512::{Avx512Bf16, Bf16Kernel};

/// Proof that vector instructions are there, and what they do.
pub(super) trait Lanes: Copy + Send + Sync + 'static {
    /// Lanes of a vector, a divisor of 16.
    const COUNT: usize;
    /// Vectors that fit in registers beside each other.
    const REGISTERS: usize;
    /// `COUNT` values.
    type V: Copy;

    fn splat(self, value: f32) -> Self::V;
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    fn min(self, a: Self::V, b: Self::V) -> Self::V;
    fn max(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// To the nearest whole number.
    fn round(self, a: Self::V) -> Self::V;
    /// Two to the power of whole numbers within -126..=127.
    fn power_of_two(self, a: Self::V) -> Self::V;
    /// All lanes, added in an order of its own.
    fn sum(self, a: Self::V) -> f32;

    /// # Safety
    /// `COUNT` elements are readable.
    unsafe fn load_f32(self, from: *const f32) -> Self::V;
    /// # Safety
    /// `COUNT` elements are readable.
    unsafe fn load_f16(self, from: *const f16) -> Self::V;
    /// # Safety
    /// `COUNT` elements are readable.
    unsafe fn load_bf16(self, from: *const bf16) -> Self::V;
    /// # Safety
    /// `COUNT` elements are writable.
    unsafe fn store_f32(self, a: Self::V, to: *mut f32);

    /// The head of a slice; lanes beyond its end are zero.
    #[inline(always)]
    fn load<E: Element>(self, from: &[E]) -> Self::V {
        if from.len() >= Self::COUNT {
            // SAFETY: as many elements as lanes.
            unsafe { E::load(self, from.as_ptr()) }
        } else {
            let mut whole = [E::narrow(0.0); 16];
            whole[..from.len()].copy_from_slice(from);
            // SAFETY: 16 elements, and `COUNT` divides 16.
            unsafe { E::load(self, whole.as_ptr()) }
        }
    }

    /// Overwrites the head of a slice; lanes beyond its end are dropped.
    #[inline(always)]
    fn store(self, a: Self::V, to: &mut [f32]) {
        if to.len() >= Self::COUNT {
            // SAFETY: as many elements as lanes.
            unsafe { self.store_f32(a, to.as_mut_ptr()) }
        } else {
            let mut whole = [0.0; 16];
            // SAFETY: 16 elements, and `COUNT` divides 16.
            unsafe { self.store_f32(a, whole.as_mut_ptr()) }
            to.copy_from_slice(&whole[..to.len()]);
        }
    }

    /// `e^a` within 2 units in the last place; arguments are clamped to what `f32` can hold.
    #[inline(always)]
    fn exp(self, a: Self::V) -> Self::V {
        // Cephes `expf`: a = n ln 2 + r, then a polynomial in r.
        const POLYNOMIAL: [f32; 5] =
            [1.398_2e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
        let a = self.max(self.splat(-87.3), self.min(self.splat(88.3), a));
        let n = self.round(self.mul(a, self.splat(std::f32::consts::LOG2_E)));
        let r = self.fma(n, self.splat(-0.693_359_4), a);
        let r = self.fma(n, self.splat(2.121_944_4e-4), r);
        let mut p = self.splat(1.987_569_1e-4);
        for coefficient in POLYNOMIAL {
            p = self.fma(p, r, self.splat(coefficient));
        }
        let e = self.add(self.fma(self.mul(r, r), p, r), self.splat(1.0));
        self.mul(e, self.power_of_two(n))
    }
}

/// A piece of work written once for all [`Lanes`]. `run` must be `#[inline(always)]`, so that it
/// is compiled with the instructions of whoever calls it.
pub(super) trait Kernel {
    fn run<L: Lanes>(self, lanes: L);
}

/// An [`Isa`] that this machine has.
#[derive(Clone, Copy)]
pub(super) struct Path(Isa);

impl Path {
    /// `None` when the machine lacks it.
    pub(super) fn new(isa: Isa) -> Option<Self> {
        isa.available().then_some(Self(isa))
    }

    pub(super) fn isa(self) -> Isa {
        self.0
    }

    /// Runs a kernel on the path's vectors.
    pub(super) fn run(self, kernel: impl Kernel) {
        match self.0 {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` checked; these paths include AVX-512.
            Isa::AmxBf16 | Isa::Avx512Bf16 | Isa::Avx512 => unsafe { avx512::enter(kernel) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: `new` checked.
            Isa::Avx2 => unsafe { avx2::enter(kernel) },
            _ => kernel.run(Portable),
        }
    }

    /// The bf16 dot product, on paths that have it.
    #[cfg(target_arch = "x86_64")]
    pub(super) fn avx512_bf16(self) -> Option<Avx512Bf16> {
        // SAFETY: `new` checked; these paths include AVX-512 and its bf16 dot product.
        matches!(self.0, Isa::AmxBf16 | Isa::Avx512Bf16).then(|| unsafe { Avx512Bf16::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct CheckExp;

    impl Kernel for CheckExp {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            for i in -8600..8800 {
                let x = i as f32 / 100.0;
                let mut y = [f32::NAN];
                lanes.store(lanes.exp(lanes.load(&[x])), &mut y);
                let exact = f64::from(x).exp();
                assert!((f64::from(y[0]) / exact - 1.0).abs() < 2.5e-7, "exp({x}) = {}", y[0]);
            }
        }
    }

    struct CheckLoads;

    impl Kernel for CheckLoads {
        #[inline(always)]
        fn run<L: Lanes>(self, lanes: L) {
            let values: Vec<f32> = (1..=16).map(|i| i as f32 / 8.0).collect();
            let halves: Vec<f16> = values.iter().map(|&v| f16::from_f32(v)).collect();
            let brains: Vec<bf16> = values.iter().map(|&v| bf16::from_f32(v)).collect();
            for n in 0..=16 {
                let expected: f32 = values.iter().take(n.min(L::COUNT)).sum();
                assert_eq!(lanes.sum(lanes.load(&values[..n])), expected);
                assert_eq!(lanes.sum(lanes.load(&halves[..n])), expected);
                assert_eq!(lanes.sum(lanes.load(&brains[..n])), expected);
            }
        }
    }

    #[test]
    fn vectors_agree_with_scalars() {
        for isa in Isa::ALL {
            match Path::new(isa) {
                Some(path) => {
                    path.run(CheckExp);
                    path.run(CheckLoads);
                }
                None => eprintln!("skipped {isa}: this machine cannot run it"),
            }
        }
    }
}
