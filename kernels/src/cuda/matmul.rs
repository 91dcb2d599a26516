//! Base products `y = x w^T`, by three ways:
//!
//! | | takes | writes |
//! |---|---|---|
//! | [`decode`] | bf16 by bf16, at most 128 rows, Hopper | f32 |
//! | [`library`] | bf16 by bf16 | bf16 |
//! | [`plain`] | everything | f32 |
//!
//! The first that takes a product computes it. What up to [`decode::ROWS_MAX`] rows get does not
//! depend on how many they are. None looks at the step: all rows of `x` are multiplied, and nobody
//! reads those that a captured launch has beyond the batch.

mod decode;
mod library;
mod plain;

use super::{Context, Matrix, Tensor, compiler::Source};
use crate::Dtype;
pub(super) use decode::weights_map;
pub(super) use library::Library;

pub(super) const DECODE: Source =
    Source { name: "matmul_decode", text: include_str!("matmul_decode.cu") };
pub(super) const PLAIN: Source =
    Source { name: "matmul_plain", text: include_str!("matmul_plain.cu") };

/// `y = x w^T`: `x` `[rows, in]`, `w` `[out, in]`, `y` `[rows, out]`.
pub(super) fn matmul(cx: &mut Context, x: &Tensor, w: &Matrix, y: &mut Tensor) {
    assert_eq!(x.cols, w.cols, "the weights' inputs");
    assert_eq!(y.cols, w.rows, "the weights' outputs");
    if x.rows == 0 {
        return y.become_rows(0, Dtype::F32);
    }
    let both_bf16 = x.dtype == Dtype::Bf16 && w.dtype == Dtype::Bf16;
    let few = both_bf16 && x.rows <= decode::ROWS_MAX;
    if let (true, Some(map)) = (few, &w.map) {
        return decode::multiply(cx, x, (w, map), y);
    }
    if !(both_bf16 && cx.library.multiply(x, w, y)) {
        plain::multiply(cx, x, w, y);
    }
}
