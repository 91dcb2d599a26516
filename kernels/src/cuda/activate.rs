//! The gated activation of the MLP.

use super::{
    Context, Cuda, Tensor,
    compiler::Source,
    expand::{PendingView, blocks_of_piece, variant},
    launch::{Grid, Parameters},
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
    let rows = cx.step.extent.rows;
    let view = PendingView::new(cx, &gate_up);
    out.become_rows(rows as usize, cx.activation());
    if rows == 0 {
        return;
    }
    let kernel = variant(cx, "activate", gate_up.y.dtype);
    let shares = blocks_of_piece(cx, (out.cols as u32).div_ceil(OUTPUTS), RESIDENT);
    let blocks = [cx.step.extent.pieces, shares, 1];
    let grid = Grid { blocks, threads: THREADS, shared: 0, cluster: 1 };
    let parameters = Parameters::default().with(cx.step.view()).with(view).with(out.data.address());
    // SAFETY: the parameters of `activate.cu`; `view` answers for the product, and `out` has half
    // its width.
    unsafe { cx.launch(("activate", &kernel), grid, parameters) };
}
