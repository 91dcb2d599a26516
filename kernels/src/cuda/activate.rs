//! The gated activation of the MLP.

use super::{
    Context, Cuda, Tensor,
    compiler::Source,
    expand::{Ending, PendingView, blocks_for, variant},
    launch::{Grid, Parameters},
    step::Extent,
};
use crate::Pending;

pub(super) const SOURCE: Source = Source { name: "activate", text: include_str!("activate.cu") };

/// As in `activate.cu`.
const THREADS: u32 = 128;
const OUTPUTS: u32 = 128;
/// Blocks that a multiprocessor holds.
const RESIDENT: u32 = 5;

/// `out = silu(gate) * up`: `gate_up` `[rows, 2 * intermediate]`, `out` `[rows, intermediate]`.
pub(super) fn activate(cx: &mut Context, gate_up: Pending<'_, Cuda>, out: &mut Tensor) {
    assert_eq!(gate_up.y.cols, 2 * out.cols, "gate, then up");
    let rows = cx.step.rows();
    out.become_rows(rows, cx.activation());
    if rows.bound == 0 {
        return;
    }
    if gate_up.y.deferred.product().is_some_and(|product| product.takes_gate())
        && let Some((product, ending)) = Ending::take(cx, &gate_up)
    {
        return product.queue_gated(cx, &ending, out);
    }
    let view = PendingView::settled(cx, &gate_up);
    let Extent { pieces, .. } = cx.step.extent;
    let kernel = variant(cx, "activate", gate_up.y.dtype);
    let blocks = blocks_for(cx, pieces * (out.cols as u32).div_ceil(OUTPUTS), RESIDENT);
    let grid = Grid::flat(blocks, THREADS);
    let parameters = Parameters::default().with(cx.step.view()).with(view).with(out.data.address());
    // SAFETY: the parameters of `activate.cu`; `view` answers for the product, and `out` has half
    // its width.
    unsafe { cx.launch(("activate", &kernel), grid, parameters) };
}
