//! The residual stream and its root-mean-square norm.

use super::{Context, expand::Sum, reference, tensor::Tensor};

/// `residual += add`, both `[rows, hidden]`.
pub(super) fn add(residual: &mut Tensor, add: &Sum<'_>) {
    assert_eq!((residual.rows(), residual.cols()), (add.rows(), add.cols()), "one residual stream");
    for row in 0..add.rows() {
        for (residual, add) in residual.row_mut(row).iter_mut().zip(add.row(row)) {
            *residual += add;
        }
    }
}

/// `out = residual / sqrt(mean(residual^2) + eps) * weight`, `[rows, hidden]`.
pub(super) fn norm(cx: &Context, residual: &Tensor, weight: (&[f32], f32), out: &mut Tensor) {
    assert_eq!(residual.cols(), out.cols(), "norm keeps the width");
    assert_eq!(residual.cols(), weight.0.len(), "one weight per column");
    out.set_rows(residual.rows());
    let _ = cx;
    reference::norm(residual, weight, out);
}
