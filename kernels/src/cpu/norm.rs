//! The residual stream and its root-mean-square norm.

use super::{
    Context, Isa,
    disjoint::Disjoint,
    expand::Sum,
    lanes::{Kernel, Lanes},
    reference,
    tensor::Tensor,
};

/// Elements per chunk of rows.
const CHUNK_WORK: usize = 1 << 15;

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
    let cols = residual.cols();
    assert_eq!(cols, out.cols(), "norm keeps the width");
    assert_eq!(cols, weight.0.len(), "one weight per column");
    out.set_rows(residual.rows());
    if cx.path.isa() == Isa::Reference {
        return reference::norm(residual, weight, out);
    }
    let out = Disjoint::new(out.values_mut());
    cx.workers.split(residual.rows(), CHUNK_WORK.div_ceil(cols), |rows| {
        for row in rows {
            // SAFETY: `split` gives each row to one thread.
            let out = unsafe { out.part(row * cols..(row + 1) * cols) };
            cx.path.run(NormRow { x: residual.row(row), weight, out });
        }
    });
}

struct NormRow<'a> {
    x: &'a [f32],
    weight: (&'a [f32], f32),
    out: &'a mut [f32],
}

impl Kernel for NormRow<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let (weight, eps) = self.weight;
        let mut squares = lanes.splat(0.0);
        for x in self.x.chunks(L::COUNT) {
            let x = lanes.load(x);
            squares = lanes.fma(x, x, squares);
        }
        let mean = lanes.sum(squares) / self.x.len() as f32;
        let scale = lanes.splat(1.0 / (mean + eps).sqrt());
        let inputs = self.x.chunks(L::COUNT).zip(weight.chunks(L::COUNT));
        for (out, (x, weight)) in self.out.chunks_mut(L::COUNT).zip(inputs) {
            lanes.store(lanes.mul(lanes.mul(lanes.load(x), scale), lanes.load(weight)), out);
        }
    }
}
