//! The gated activation of the MLP.

use super::{
    Context, Cuda, Tensor,
    compiler::Source,
    expand::{PendingView, blocks_for, variant},
    launch::{Grid, Parameters},
    matmul::is_few,
    step::Extent,
};
use crate::Pending;

pub(super) const SOURCE: Source = Source { name: "activate", text: include_str!("activate.cu") };

/// As in `activate.cu`; all its kernels have so many outputs to a block.
const THREADS: u32 = 128;
const OUTPUTS: u32 = 128;
/// Blocks that a multiprocessor holds.
const RESIDENT: u32 = 5;
const RESIDENT_FEW: u32 = 5;
const RESIDENT_BASE: u32 = 9;

/// `out = silu(gate) * up`: `gate_up` `[rows, 2 * intermediate]`, `out` `[rows, intermediate]`.
pub(super) fn activate(cx: &mut Context, gate_up: Pending<'_, Cuda>, out: &mut Tensor) {
    assert_eq!(gate_up.y.cols, 2 * out.cols, "gate, then up");
    let rows = cx.step.rows();
    let view = PendingView::new(cx, &gate_up);
    out.become_rows(rows, cx.activation());
    if rows.bound == 0 {
        return;
    }
    let Extent { pieces, groups, .. } = cx.step.extent;
    let (operation, runs, resident) = match (is_few(rows.bound), view.has_delta()) {
        (true, true) => ("activate_few", groups, RESIDENT_FEW),
        (true, false) => ("activate_base", groups, RESIDENT_BASE),
        (false, _) => ("activate", pieces, RESIDENT),
    };
    let kernel = variant(cx, operation, gate_up.y.dtype);
    let blocks = blocks_for(cx, runs * (out.cols as u32).div_ceil(OUTPUTS), resident);
    let grid = Grid::flat(blocks, THREADS);
    let parameters = Parameters::default().with(cx.step.view()).with(view).with(out.data.address());
    // SAFETY: the parameters of `activate.cu`; `view` answers for the product, and `out` has half
    // its width.
    unsafe { cx.launch(("activate", &kernel), grid, parameters) };
}
