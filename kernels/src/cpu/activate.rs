//! The gated activation of the MLP.

use super::{
    Context, Isa,
    disjoint::Disjoint,
    expand::Sum,
    lanes::{Kernel, Lanes},
    reference,
    tensor::Tensor,
};

/// Elements per chunk of rows.
const CHUNK_WORK: usize = 1 << 14;

/// `out = silu(gate) * up`: `gate_up` `[rows, 2 * intermediate]`, `out` `[rows, intermediate]`.
pub(super) fn activate(cx: &Context, gate_up: &Sum<'_>, out: &mut Tensor) {
    let cols = out.cols();
    assert_eq!(gate_up.cols(), 2 * cols, "gate, then up");
    out.set_rows(gate_up.rows());
    if cx.path.isa() == Isa::Reference {
        return reference::activate(gate_up, out);
    }
    let out = Disjoint::new(out.values_mut());
    cx.workers.split(gate_up.rows(), CHUNK_WORK.div_ceil(cols), |rows| {
        for row in rows {
            // SAFETY: `split` gives each row to one thread.
            let out = unsafe { out.part(row * cols..(row + 1) * cols) };
            let (gate, up) = gate_up.row(row).split_at(cols);
            cx.path.run(ActivateRow { gate, up, out });
        }
    });
}

struct ActivateRow<'a> {
    gate: &'a [f32],
    up: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for ActivateRow<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (zero, one) = (lanes.splat(0.0), lanes.splat(1.0));
        let inputs = self.gate.chunks(L::COUNT).zip(self.up.chunks(L::COUNT));
        for (out, (gate, up)) in self.out.chunks_mut(L::COUNT).zip(inputs) {
            let gate = lanes.load(gate);
            let decay = lanes.exp(lanes.sub(zero, gate));
            let silu = lanes.div(gate, lanes.add(one, decay));
            lanes.store(lanes.mul(silu, lanes.load(up)), out);
        }
    }
}
