//! The rows whose logits are wanted.

use super::{step::Step, tensor::Tensor};

/// `out[i] = x[logit_rows[i]]`: `x` `[rows, hidden]`, `out` `[logits, hidden]`.
pub(super) fn gather(step: &Step, x: &Tensor, out: &mut Tensor) {
    assert_eq!(x.cols(), out.cols(), "gather keeps the width");
    out.set_rows(step.batch.logit_rows.len());
    for (i, &row) in step.batch.logit_rows.iter().enumerate() {
        out.row_mut(i).copy_from_slice(x.row(row as usize));
    }
}
