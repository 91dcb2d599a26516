//! The first half of a LoRA product: activations to ranks.

use crate::Site;

use super::{Context, reference, tensor::Tensor};

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, ranks]`.
pub(super) fn shrink(cx: &Context, x: &Tensor, at: (usize, Site), out: &mut Tensor) {
    assert_eq!(x.rows(), cx.step.batch.rows(), "activations of this step");
    out.set_rows(x.rows());
    reference::shrink(cx, x, at, out);
}
