//! Activations packed once for the path and multiplied with pieces of a weight matrix.

use std::ops::Range;

use half::bf16;

use crate::{Dtype, HostBuffer};

use super::{
    Isa,
    amx::{self, Tiles},
    dot::{Rows, STEP_MAX, Widened},
    element::{Element, elements, elements_mut, operand, with_element},
    lanes::{Avx512Bf16, Bf16Kernel, Kernel, Lanes, Path},
    tensor::Tensor,
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
    /// `[rows, stride]` in bf16.
    Half { data: HostBuffer, stride: usize },
    /// For the tile unit.
    Tiles(Tiles),
}

impl Operands {
    /// Operands for whole weight rows.
    pub(super) fn for_matrix(path: Path, x: &Tensor, dtype: Dtype) -> Self {
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
        let pairs = path.avx512_bf16().is_some() && dtype == Dtype::Bf16;
        let size = if pairs { Dtype::Bf16.size() } else { Dtype::F32.size() };
        let mut data = HostBuffer::zeroed(rows.len() * stride * size);
        for (i, row) in rows.clone().enumerate() {
            let (x, bytes) = (x.row(row), &mut data.bytes_mut()[i * stride * size..]);
            let bytes = &mut bytes[..x.len() * size];
            if pairs {
                fill::<bf16>(x, dtype, bytes);
            } else {
                fill::<f32>(x, dtype, bytes);
            }
        }
        let form = if pairs { Form::Half { data, stride } } else { Form::Single { data, stride } };
        Self { path, dtype, form, rows: rows.len() }
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Multiplies `columns` of the operands with weight rows of as many columns, given as bytes:
    /// `out` `[rows, outputs]`.
    pub(super) fn multiply(&self, weights: &[u8], columns: Range<usize>, out: &mut [f32]) {
        let rows = self.rows;
        match &self.form {
            Form::Tiles(tiles) => amx::multiply(tiles, elements(weights), columns.len(), out),
            Form::Single { data, stride } => {
                let operands = &elements(data.bytes())[columns.start..];
                let work = Single { weights, columns: columns.len(), operands, stride: *stride };
                self.path.run(MultiplySingle { work, dtype: self.dtype, rows, out });
            }
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

fn fill<T: Element>(x: &[f32], dtype: Dtype, to: &mut [u8]) {
    for (to, &x) in elements_mut::<T>(to).iter_mut().zip(x) {
        *to = T::narrow(operand(dtype, x));
    }
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

struct MultiplyPairs<'a> {
    work: Rows<'a, Avx512Bf16>,
    out: &'a mut [f32],
}

impl Bf16Kernel for MultiplyPairs<'_> {
    #[inline(always)]
    fn run(self, token: Avx512Bf16) {
        self.work.multiply(token, self.out);
    }
}
