//! Dot products of weight rows and activation rows, a register block at a time.
//!
//! Invariant *row invariance*: each result has one vector accumulator that takes the columns in
//! ascending order and is added up once at the end, whatever block it is computed in.

use std::marker::PhantomData;

use super::{element::Element, lanes::Lanes};

#[cfg(target_arch = "x86_64")]
use super::lanes::Avx512Bf16;
#[cfg(target_arch = "x86_64")]
use half::bf16;

/// Most columns that a step of any [`Dot`] takes.
pub(super) const STEP_MAX: usize = 32;

/// How a step of a dot product is done.
pub(super) trait Dot: Copy {
    /// Stored weight.
    type Weight: Element;
    /// Activation as packed for it.
    type Operand: Element;
    type W: Copy;
    type X: Copy;
    type Sum: Copy;
    /// Columns per step, a divisor of [`STEP_MAX`].
    const STEP: usize;
    /// Whether 4 x 4 accumulators stay in registers; otherwise 2 x 4.
    const WIDE_BLOCK: bool;

    fn zero(self) -> Self::Sum;
    /// # Safety
    /// `STEP` elements are readable.
    unsafe fn weights(self, from: *const Self::Weight) -> Self::W;
    /// # Safety
    /// `STEP` elements are readable.
    unsafe fn operands(self, from: *const Self::Operand) -> Self::X;
    fn step(self, sum: Self::Sum, w: Self::W, x: Self::X) -> Self::Sum;
    fn total(self, sum: Self::Sum) -> f32;
}

/// Weights widened to f32, operands in f32.
pub(super) struct Widened<L, E> {
    lanes: L,
    element: PhantomData<E>,
}

impl<L, E> Widened<L, E> {
    #[inline(always)]
    pub(super) fn new(lanes: L) -> Self {
        Self { lanes, element: PhantomData }
    }
}

impl<L: Copy, E> Clone for Widened<L, E> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<L: Copy, E> Copy for Widened<L, E> {}

impl<L: Lanes, E: Element> Dot for Widened<L, E> {
    type Weight = E;
    type Operand = f32;
    type W = L::V;
    type X = L::V;
    type Sum = L::V;
    const STEP: usize = L::COUNT;
    const WIDE_BLOCK: bool = L::REGISTERS >= 32;

    #[inline(always)]
    fn zero(self) -> L::V {
        self.lanes.splat(0.0)
    }

    #[inline(always)]
    unsafe fn weights(self, from: *const E) -> L::V {
        // SAFETY: the caller's.
        unsafe { E::load(self.lanes, from) }
    }

    #[inline(always)]
    unsafe fn operands(self, from: *const f32) -> L::V {
        // SAFETY: the caller's.
        unsafe { self.lanes.load_f32(from) }
    }

    #[inline(always)]
    fn step(self, sum: L::V, w: L::V, x: L::V) -> L::V {
        self.lanes.fma(w, x, sum)
    }

    #[inline(always)]
    fn total(self, sum: L::V) -> f32 {
        self.lanes.sum(sum)
    }
}

#[cfg(target_arch = "x86_64")]
impl Dot for Avx512Bf16 {
    type Weight = bf16;
    type Operand = bf16;
    type W = std::arch::x86_64::__m512i;
    type X = std::arch::x86_64::__m512i;
    type Sum = std::arch::x86_64::__m512;
    const STEP: usize = 32;
    const WIDE_BLOCK: bool = true;

    #[inline(always)]
    fn zero(self) -> Self::Sum {
        self.lanes().splat(0.0)
    }

    #[inline(always)]
    unsafe fn weights(self, from: *const bf16) -> Self::W {
        // SAFETY: the caller's.
        unsafe { self.load_pairs(from) }
    }

    #[inline(always)]
    unsafe fn operands(self, from: *const bf16) -> Self::X {
        // SAFETY: the caller's.
        unsafe { self.load_pairs(from) }
    }

    #[inline(always)]
    fn step(self, sum: Self::Sum, w: Self::W, x: Self::X) -> Self::Sum {
        self.dot_pairs(w, x, sum)
    }

    #[inline(always)]
    fn total(self, sum: Self::Sum) -> f32 {
        self.lanes().sum(sum)
    }
}

/// Two matrices whose rows are multiplied with each other.
pub(super) struct Rows<'a, D: Dot> {
    /// `[outputs, columns]`
    pub(super) weights: &'a [D::Weight],
    pub(super) columns: usize,
    /// Rows `stride` apart, each readable up to `columns` rounded up to [`STEP_MAX`].
    pub(super) operands: &'a [D::Operand],
    pub(super) stride: usize,
    /// Number of operand rows.
    pub(super) rows: usize,
}

impl<D: Dot> Rows<'_, D> {
    /// `out[row, output]` = the dot product of operand row and weight row; `[rows, outputs]`.
    #[inline(always)]
    pub(super) fn multiply(&self, dot: D, out: &mut [f32]) {
        /// Operand rows that stay in cache while blocks of weights pass by.
        const PANEL: usize = 32;
        let outputs = self.weights.len() / self.columns;
        assert_eq!(out.len(), self.rows * outputs);
        for first in (0..self.rows).step_by(PANEL) {
            let panel = (first, PANEL.min(self.rows - first));
            let mut output = 0;
            while output < outputs {
                let left = outputs - output;
                if panel.1 == 1 && left >= 8 {
                    self.block::<8, 1>(dot, (first, output), out);
                    output += 8;
                } else if D::WIDE_BLOCK && left >= 4 {
                    self.strip::<4>(dot, panel, output, out);
                    output += 4;
                } else if left >= 2 {
                    self.strip::<2>(dot, panel, output, out);
                    output += 2;
                } else {
                    self.strip::<1>(dot, panel, output, out);
                    output += 1;
                }
            }
        }
    }

    /// `N` weight rows against a panel of operand rows.
    #[inline(always)]
    fn strip<const N: usize>(
        &self,
        dot: D,
        (first, count): (usize, usize),
        output: usize,
        out: &mut [f32],
    ) {
        let mut row = first;
        let end = first + count;
        while row < end {
            let at = (row, output);
            match end - row {
                1 => self.block::<N, 1>(dot, at, out),
                2 => self.block::<N, 2>(dot, at, out),
                3 => self.block::<N, 3>(dot, at, out),
                _ => self.block::<N, 4>(dot, at, out),
            }
            row += 4;
        }
    }

    /// `N` weight rows times `M` operand rows.
    #[inline(always)]
    fn block<const N: usize, const M: usize>(
        &self,
        dot: D,
        (row, output): (usize, usize),
        out: &mut [f32],
    ) {
        let (columns, stride) = (self.columns, self.stride);
        let w = &self.weights[output * columns..][..N * columns];
        let x = &self.operands[row * stride..];
        let padded = columns.next_multiple_of(STEP_MAX);
        assert!(padded <= stride && x.len() >= (M - 1) * stride + padded);
        let mut sums = [[dot.zero(); M]; N];
        let whole = columns - columns % D::STEP;
        let mut column = 0;
        while column < whole {
            // SAFETY: `column + STEP <= columns`, the length of each row of `w`; rows of `x`
            // reach at least as far by the assertion.
            let (w, x) = unsafe {
                let w = load_weights::<D, N>(dot, w.as_ptr().add(column), columns);
                (w, load_operands::<D, M>(dot, x.as_ptr().add(column), stride))
            };
            accumulate(dot, &mut sums, w, x);
            column += D::STEP;
        }
        if whole < columns {
            let mut tail = [[D::Weight::narrow(0.0); STEP_MAX]; N];
            for (tail, w) in tail.iter_mut().zip(w.chunks_exact(columns)) {
                tail[..columns - whole].copy_from_slice(&w[whole..]);
            }
            // SAFETY: rows of `tail` are `STEP_MAX` long; rows of `x` reach to `columns` rounded
            // up to `STEP_MAX`, a multiple of `STEP`, by the assertion.
            let (w, x) = unsafe {
                let w = load_weights::<D, N>(dot, tail.as_ptr().cast(), STEP_MAX);
                (w, load_operands::<D, M>(dot, x.as_ptr().add(whole), stride))
            };
            accumulate(dot, &mut sums, w, x);
        }
        let outputs = self.weights.len() / columns;
        for (n, sums) in sums.into_iter().enumerate() {
            for (m, sum) in sums.into_iter().enumerate() {
                out[(row + m) * outputs + output + n] = dot.total(sum);
            }
        }
    }
}

/// One step of a block.
#[inline(always)]
fn accumulate<D: Dot, const N: usize, const M: usize>(
    dot: D,
    sums: &mut [[D::Sum; M]; N],
    w: [D::W; N],
    x: [D::X; M],
) {
    for (sums, w) in sums.iter_mut().zip(w) {
        for (sum, x) in sums.iter_mut().zip(x) {
            *sum = dot.step(*sum, w, x);
        }
    }
}

/// One step's weights of `N` rows.
///
/// # Safety
/// `D::STEP` elements are readable at `from + n * stride` for every `n < N`.
#[inline(always)]
unsafe fn load_weights<D: Dot, const N: usize>(
    dot: D,
    from: *const D::Weight,
    stride: usize,
) -> [D::W; N] {
    // SAFETY: the caller's.
    let mut w = unsafe { [dot.weights(from); N] };
    for (n, w) in w.iter_mut().enumerate().skip(1) {
        // SAFETY: the caller's.
        *w = unsafe { dot.weights(from.add(n * stride)) };
    }
    w
}

/// One step's operands of `M` rows.
///
/// # Safety
/// `D::STEP` elements are readable at `from + m * stride` for every `m < M`.
#[inline(always)]
unsafe fn load_operands<D: Dot, const M: usize>(
    dot: D,
    from: *const D::Operand,
    stride: usize,
) -> [D::X; M] {
    // SAFETY: the caller's.
    let mut x = unsafe { [dot.operands(from); M] };
    for (m, x) in x.iter_mut().enumerate().skip(1) {
        // SAFETY: the caller's.
        *x = unsafe { dot.operands(from.add(m * stride)) };
    }
    x
}
