//! Rows whose logits are wanted.

use super::{
    Context, Tensor,
    compiler::Source,
    launch::{Grid, Parameters},
};
use crate::Dtype;

pub(super) const SOURCE: Source = Source { name: "gather", text: include_str!("gather.cu") };

/// `out[i] = x[logit_rows[i]]`: `x` `[rows, hidden]` f32 or bf16, `out` `[logits, hidden]` of the
/// same type.
pub(super) fn gather(cx: &mut Context, x: &Tensor, out: &mut Tensor) {
    assert_eq!(x.cols, out.cols, "gather keeps the width");
    assert_eq!(x.rows.live, cx.step.rows().live, "activations of this step");
    assert!(x.dtype != Dtype::F16, "activations are f32 or bf16");
    let logits = cx.step.logits();
    out.become_rows(logits, x.dtype);
    if logits.bound == 0 {
        return;
    }
    let kernel = format!("gather_{}", x.dtype.name());
    let parameters = Parameters::default()
        .with(cx.step.view())
        .with(x.data.address())
        .with(out.data.address())
        .with(x.cols as u32);
    // SAFETY: the parameters of `gather.cu`; `x` and `out` have the shapes asserted above, and
    // `Batch::assert_consistent` bounds `logit_rows`.
    unsafe { cx.launch(("gather", &kernel), Grid::flat(logits.bound as u32, 256), parameters) };
}
