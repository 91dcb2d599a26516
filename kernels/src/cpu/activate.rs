//! The gated activation of the MLP.

use super::{Context, expand::Sum, reference, tensor::Tensor};

/// `out = silu(gate) * up`: `gate_up` `[rows, 2 * intermediate]`, `out` `[rows, intermediate]`.
pub(super) fn activate(cx: &Context, gate_up: &Sum<'_>, out: &mut Tensor) {
    assert_eq!(gate_up.cols(), 2 * out.cols(), "gate, then up");
    out.set_rows(gate_up.rows());
    let _ = cx;
    reference::activate(gate_up, out);
}
