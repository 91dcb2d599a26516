//! Folding a `Pending` product: `y + bias + s B`.
//!
//! Threads split the work by (segment, some outputs); a piece reads its part of the adapter's `B`
//! once for all rows of the segment. An output adds its rank chunks in ascending order. The low
//! rank `s` stays in f32 whatever `B` is stored as.

use std::ops::Range;

use crate::{Delta, LinearTiles, Pending, ResidentAdapter, Segment, Tile};

use super::{
    Context, Cpu, Isa,
    disjoint::Disjoint,
    element::{Element, elements, with_element},
    lanes::{Kernel, Lanes},
    reference,
    tensor::Tensor,
};

/// Outputs per piece of work.
const OUTPUTS: usize = 256;

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
    let touched = |segment: &&Segment| {
        pending.bias.is_some() || (pending.delta.is_some() && segment.adapter.is_some())
    };
    sums.added.clear();
    sums.added.resize(y.rows(), false);
    for segment in cx.step.batch.segments.iter().filter(touched) {
        sums.added[segment.rows.start as usize..segment.rows.end as usize].fill(true);
    }
    if !sums.added.contains(&true) {
        return Sum { y, sums };
    }
    if cx.path.isa() == Isa::Reference {
        reference::expand(cx, pending, &mut sums.values);
        return Sum { y, sums };
    }
    sums.values.reshape(y.rows(), y.cols());
    let starts = (0..y.cols()).step_by(OUTPUTS);
    let pieces: Vec<_> = cx.step.batch.segments.iter().filter(touched).collect();
    let pieces: Vec<_> = pieces
        .iter()
        .flat_map(|&segment| starts.clone().map(move |start| (segment, start)))
        .collect();
    let out = Disjoint::new(sums.values.values_mut());
    let piece_rows = y.rows().div_ceil(cx.step.batch.segments.len());
    cx.workers.split(pieces.len(), 32usize.div_ceil(piece_rows), |range| {
        for &(segment, start) in &pieces[range] {
            let outputs = start..y.cols().min(start + OUTPUTS);
            add(cx, pending, (segment, outputs), &out);
        }
    });
    Sum { y, sums }
}

/// One segment's sums of some outputs.
fn add(
    cx: &Context,
    pending: &Pending<'_, Cpu>,
    (segment, outputs): (&Segment, Range<usize>),
    out: &Disjoint<'_, f32>,
) {
    let cols = pending.y.cols();
    for row in segment.rows.start as usize..segment.rows.end as usize {
        let y = &pending.y.row(row)[outputs.clone()];
        let first = row * cols;
        // SAFETY: pieces differ in rows or outputs, `split` gives each to one thread, and the
        // part ends with this turn of the loop.
        let sum = unsafe { out.part(first + outputs.start..first + outputs.end) };
        match pending.bias {
            None => sum.copy_from_slice(y),
            Some(bias) => {
                for (sum, (y, bias)) in sum.iter_mut().zip(y.iter().zip(&bias[outputs.clone()])) {
                    *sum = y + bias;
                }
            }
        }
    }
    let (Some(delta), Some(slot)) = (&pending.delta, segment.adapter) else { return };
    let adapter = cx.pool.adapter(slot);
    let (mut first_rank, mut first_output) = (0, 0);
    for &linear in delta.site.linears() {
        if let Some(tiles) = adapter.map.linear(delta.layer, linear) {
            let piece = Piece { segment, outputs: &outputs, first_rank, first_output, cols };
            piece.add_linear(cx, (adapter, tiles), delta, out);
            first_rank += tiles.padded_rank as usize;
        }
        first_output += cx.width(delta.site, linear, cols);
    }
}

/// Some outputs of a segment, and where a linear stands in the site.
struct Piece<'a> {
    segment: &'a Segment,
    /// Of the site.
    outputs: &'a Range<usize>,
    /// Column of the linear's first rank in `shrunk`.
    first_rank: usize,
    /// Column of the linear's first output in the site.
    first_output: usize,
    /// Outputs of the site.
    cols: usize,
}

impl Piece<'_> {
    fn add_linear(
        &self,
        cx: &Context,
        (adapter, tiles): (&ResidentAdapter, &LinearTiles),
        delta: &Delta<'_, Cpu>,
        out: &Disjoint<'_, f32>,
    ) {
        for tile in &tiles.b {
            // Outputs of the site, within both the tile and the piece.
            let start = (self.first_output + tile.long.start as usize).max(self.outputs.start);
            let end = (self.first_output + tile.long.end as usize).min(self.outputs.end);
            if start >= end {
                continue;
            }
            let ranks = self.first_rank + tile.ranks.start as usize;
            let width = tile.ranks.len();
            let weights = self.weights(cx, (adapter, tile), start..end);
            for row in self.segment.rows.start as usize..self.segment.rows.end as usize {
                let first = row * self.cols;
                // SAFETY: within the piece's outputs; see `add`.
                let out = unsafe { out.part(first + start..first + end) };
                let s = &delta.shrunk.row(row)[ranks..][..width];
                cx.path.run(ExpandRow { weights, dtype: adapter.map.dtype, s, out });
            }
        }
    }

    /// Rows of a tile for some outputs of the site, as bytes.
    fn weights<'c>(
        &self,
        cx: &'c Context,
        (adapter, tile): (&ResidentAdapter, &Tile),
        outputs: Range<usize>,
    ) -> &'c [u8] {
        let output_bytes = tile.ranks.len() * adapter.map.dtype.size();
        let first = outputs.start - self.first_output - tile.long.start as usize;
        &cx.pool.tile(adapter, tile)[first * output_bytes..][..outputs.len() * output_bytes]
    }
}

/// `out[output] += s . weights[output]`
struct ExpandRow<'a> {
    /// `[outputs, ranks]`
    weights: &'a [u8],
    dtype: crate::Dtype,
    /// `[ranks]`
    s: &'a [f32],
    out: &'a mut [f32],
}

impl Kernel for ExpandRow<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        with_element!(self.dtype, E => {
            expand_row::<L, E>(lanes, elements(self.weights), self.s, self.out);
        });
    }
}

#[inline(always)]
fn expand_row<L: Lanes, E: Element>(lanes: L, weights: &[E], s: &[f32], out: &mut [f32]) {
    for (out, weights) in out.iter_mut().zip(weights.chunks_exact(s.len())) {
        let mut sum = lanes.splat(0.0);
        for (weights, s) in weights.chunks(L::COUNT).zip(s.chunks(L::COUNT)) {
            sum = lanes.fma(lanes.load(weights), lanes.load(s), sum);
        }
        *out += lanes.sum(sum);
    }
}
