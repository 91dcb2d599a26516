//! Rows whose logits are wanted.

use super::{
    Context, Tensor,
    compiler::Source,
    launch::{Grid, Parameters},
    matmul::FEW_ROWS,
    tensor::{RowScale, parts_of},
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
    let scale = x.scale.get();
    out.scale.set(scale.map(|scale| RowScale { squares: out.squares.address(), ..scale }));
    let parts = scale.map_or(0, |_| parts_of(x.cols) as u32);
    assert!(parts == 0 || logits.bound <= FEW_ROWS, "room for squares");
    let kernel = format!("gather_{}", x.dtype.name());
    let parameters = Parameters::default()
        .with(cx.step.view())
        .with(x.data.address())
        .with(out.data.address())
        .with(x.cols as u32)
        .with(scale.map_or(0, |scale| scale.squares))
        .with(out.squares.address())
        .with(parts);
    // SAFETY: the parameters of `gather.cu`; `x` and `out` have the shapes asserted above, and
    // `Batch::assert_consistent` bounds `logit_rows`.
    unsafe { cx.launch(("gather", &kernel), Grid::flat(logits.bound as u32, 256), parameters) };
}
