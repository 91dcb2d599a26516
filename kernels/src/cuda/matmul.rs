//! Base products `y = x w^T`, by three ways:
//!
//! | | takes | writes |
//! |---|---|---|
//! | [`decode`] | bf16 by bf16, at most 128 rows, Hopper | f32 |
//! | [`library`] | bf16 by bf16 | bf16 |
//! | [`plain`] | everything | f32 |
//!
//! The first that takes a product computes it; [`decode`] once its reader is known. What up to
//! [`decode::ROWS_MAX`] rows get does not depend on how many they are. None looks at the step: all
//! rows of `x` are multiplied, and nobody reads those that a captured launch has beyond the batch.

mod decode;
mod library;
mod plain;

use super::{Context, Matrix, Tensor, compiler::Source, norm};
use crate::Dtype;
pub(in crate::cuda) use decode::{
    GATED, Product, RESIDUAL, ROWS_MAX as FEW_ROWS, SUMS, WeightsMap, weights_map,
};
pub(super) use library::Library;

pub(super) const PLAIN: Source =
    Source { name: "matmul_plain", text: include_str!("matmul_plain.cu") };

/// Whether a step has so few rows that their results do not depend on how many they are: the rows
/// of decoding. Kernels that add up in another order for many rows choose by this.
pub(super) const fn is_few(rows: usize) -> bool {
    rows <= FEW_ROWS
}

/// Whether products of these activations wait for their readers, beside weights that
/// [`weights_map`] takes.
pub(super) fn waits(cx: &Context, x: &Tensor) -> bool {
    let both_bf16 = (x.dtype, cx.pool.shape().dtype) == (Dtype::Bf16, Dtype::Bf16);
    both_bf16 && is_few(x.rows.bound) && decode::takes(&cx.device, x.cols)
}

/// `y = x w^T`: `x` `[rows, in]`, `w` `[out, in]`, `y` `[rows, out]`.
pub(super) fn matmul(cx: &mut Context, x: &Tensor, w: &Matrix, y: &mut Tensor) {
    assert_eq!(x.cols, w.cols, "the weights' inputs");
    assert_eq!(y.cols, w.rows, "the weights' outputs");
    if x.rows.bound == 0 {
        return y.become_rows(x.rows, Dtype::F32);
    }
    let both_bf16 = x.dtype == Dtype::Bf16 && w.dtype == Dtype::Bf16;
    let few = both_bf16 && is_few(x.rows.bound);
    if let (true, Some(map)) = (few, &w.map) {
        return decode::defer(x, (w, map), y);
    }
    norm::settle_scale(cx, x);
    if !(both_bf16 && cx.library.multiply(x, w, y)) {
        plain::multiply(cx, x, w, y);
    }
}
