//! Folding a `Pending` product: `y + bias + s B`.

use crate::Pending;

use super::{Context, Cpu, reference, tensor::Tensor};

/// Where sums are written, kept from operation to operation.
#[derive(Default)]
pub(super) struct Sums {
    /// `[rows, cols]`
    values: Tensor,
    /// `[rows]` whether anything was added to the row, so that `values` holds it.
    added: Vec<bool>,
}

/// A finished product. Rows to which nothing was added are read where the product left them.
pub(super) struct Sum<'a> {
    y: &'a Tensor,
    sums: &'a Sums,
}

impl<'a> Sum<'a> {
    /// `[cols]`
    pub(super) fn row(&self, row: usize) -> &'a [f32] {
        if self.sums.added[row] { self.sums.values.row(row) } else { self.y.row(row) }
    }

    pub(super) fn rows(&self) -> usize {
        self.y.rows()
    }

    pub(super) fn cols(&self) -> usize {
        self.y.cols()
    }
}

/// Adds bias and delta to `pending.y`.
pub(super) fn expand<'a>(cx: &Context, pending: &Pending<'a, Cpu>, sums: &'a mut Sums) -> Sum<'a> {
    let y = pending.y;
    assert_eq!(y.rows(), cx.step.batch.rows(), "a product of this step");
    assert!(pending.bias.is_none_or(|bias| bias.len() == y.cols()), "one bias per output");
    let all = pending.bias.is_some();
    sums.added.clear();
    sums.added.resize(y.rows(), all);
    if pending.delta.is_some() {
        let adapted = cx.step.batch.segments.iter().filter(|segment| segment.adapter.is_some());
        for segment in adapted {
            sums.added[segment.rows.start as usize..segment.rows.end as usize].fill(true);
        }
    }
    if sums.added.contains(&true) {
        reference::expand(cx, pending, &mut sums.values);
    }
    Sum { y, sums }
}
