//! Activations packed once for the path and multiplied with pieces of a weight matrix.

use std::ops::Range;

use crate::{Dtype, HostBuffer};

use super::{
    dot::{Rows, STEP_MAX, Widened},
    element::{Element, elements, elements_mut, operand, with_element},
    lanes::{Kernel, Lanes, Path},
    tensor::Tensor,
};

#[cfg(target_arch = "x86_64")]
use super::{
    Isa,
    amx::{self, Tiles},
    lanes::{Avx512Bf16, Bf16Kernel},
};

/// Rows of activations, rounded to what the weights' type lets a product see, zero-padded.
pub(super) struct Operands {
    path: Path,
    /// Of the weights.
    dtype: Dtype,
    form: Form,
    /// Number of rows.
    rows: usize,
}

/// How operands lie in memory.
enum Form {
    /// `[rows, stride]` in f32.
    Single { data: HostBuffer, stride: usize },
    /// `[rows, stride]` in bf16, for the dot product of pairs.
    #[cfg(target_arch = "x86_64")]
    Half { data: HostBuffer, stride: usize },
    /// For the tile unit.
    #[cfg(target_arch = "x86_64")]
    Tiles(Tiles),
}

impl Operands {
    /// Operands for whole weight rows.
    pub(super) fn for_matrix(path: Path, x: &Tensor, dtype: Dtype) -> Self {
        #[cfg(target_arch = "x86_64")]
        if path.isa() == Isa::AmxBf16 && dtype == Dtype::Bf16 {
            let form = Form::Tiles(Tiles::pack(x));
            return Self { path, dtype, form, rows: x.rows() };
        }
        Self::for_rows(path, (x, 0..x.rows()), dtype)
    }

    /// Operands for weight rows that may cover only part of the columns.
    pub(super) fn for_rows(path: Path, (x, rows): (&Tensor, Range<usize>), dtype: Dtype) -> Self {
        // A piece that starts anywhere can be read to the end of its last step.
        let stride = x.cols().next_multiple_of(STEP_MAX) + STEP_MAX;
        #[cfg(target_arch = "x86_64")]
        if path.avx512_bf16().is_some() && dtype == Dtype::Bf16 {
            let data = pack::<half::bf16>((x, rows.clone()), stride, dtype);
            return Self { path, dtype, form: Form::Half { data, stride }, rows: rows.len() };
        }
        let data = pack::<f32>((x, rows.clone()), stride, dtype);
        Self { path, dtype, form: Form::Single { data, stride }, rows: rows.len() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Multiplies `columns` of the operands with weight rows of as many columns, given as bytes:
    /// `out` `[rows, outputs]`.
    pub(super) fn multiply(&self, weights: &[u8], columns: Range<usize>, out: &mut [f32]) {
        let rows = self.rows;
        match &self.form {
            #[cfg(target_arch = "x86_64")]
            Form::Tiles(tiles) => amx::multiply(tiles, elements(weights), columns.len(), out),
            Form::Single { data, stride } => {
                let operands = &elements(data.bytes())[columns.start..];
                let work = Single { weights, columns: columns.len(), operands, stride: *stride };
                self.path.run(MultiplySingle { work, dtype: self.dtype, rows, out });
            }
            #[cfg(target_arch = "x86_64")]
            Form::Half { data, stride } => {
                let token = self.path.avx512_bf16().expect("the path that packed bf16 pairs");
                let operands = &elements(data.bytes())[columns.start..];
                let weights = elements(weights);
                let work =
                    Rows { weights, columns: columns.len(), operands, stride: *stride, rows };
                token.enter(MultiplyPairs { work, out });
            }
        }
    }
}

/// `[rows, stride]`
fn pack<T: Element>((x, rows): (&Tensor, Range<usize>), stride: usize, dtype: Dtype) -> HostBuffer {
    let mut data = HostBuffer::zeroed(rows.len() * stride * size_of::<T>());
    for (packed, row) in elements_mut::<T>(data.bytes_mut()).chunks_mut(stride).zip(rows) {
        for (packed, &x) in packed.iter_mut().zip(x.row(row)) {
            *packed = T::narrow(operand(dtype, x));
        }
    }
    data
}

struct Single<'a> {
    weights: &'a [u8],
    columns: usize,
    operands: &'a [f32],
    stride: usize,
}

struct MultiplySingle<'a> {
    work: Single<'a>,
    dtype: Dtype,
    rows: usize,
    out: &'a mut [f32],
}

impl Kernel for MultiplySingle<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Single { weights, columns, operands, stride } = self.work;
        with_element!(self.dtype, E => {
            let weights = elements::<E>(weights);
            let work = Rows { weights, columns, operands, stride, rows: self.rows };
            work.multiply(Widened::<L, E>::new(lanes), self.out);
        });
    }
}

#[cfg(target_arch = "x86_64")]
struct MultiplyPairs<'a> {
    work: Rows<'a, Avx512Bf16>,
    out: &'a mut [f32],
}

#[cfg(target_arch = "x86_64")]
impl Bf16Kernel for MultiplyPairs<'_> {
    #[inline(always)]
    fn run(self, token: Avx512Bf16) {
        self.work.multiply(token, self.out);
    }
}
