//! The first half of a LoRA product: activations to ranks.
//!
//! Threads split the work by (segment, linear, eight ranks); a piece reads its part of the
//! adapter's `A` once for all rows of the segment.

use crate::{Linear, Segment, Site};

use super::{Context, Isa, disjoint::Disjoint, product::Operands, reference, tensor::Tensor};

/// Ranks per piece of work; chunks of ranks are multiples of it.
const RANKS: usize = 8;

/// Eight ranks of one linear for one segment.
struct Piece<'a> {
    segment: &'a Segment,
    operands: &'a Operands,
    linear: Linear,
    /// First rank within the linear.
    rank: usize,
    /// Its column in the output.
    column: usize,
}

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, ranks]`.
pub(super) fn shrink(cx: &Context, x: &Tensor, (layer, site): (usize, Site), out: &mut Tensor) {
    assert_eq!(x.rows(), cx.step.batch.rows(), "activations of this step");
    out.set_rows(x.rows());
    if cx.path.isa() == Isa::Reference {
        return reference::shrink(cx, x, (layer, site), out);
    }
    let mut packed = Vec::new();
    for segment in &cx.step.batch.segments {
        let Some(slot) = segment.adapter else { continue };
        let map = &cx.pool.adapter(slot).map;
        assert!(map.site_ranks(layer, site) <= out.cols(), "room for the adapter's ranks");
        let rows = segment.rows.start as usize..segment.rows.end as usize;
        packed.push((segment, Operands::for_rows(cx.path, (x, rows), map.dtype)));
    }
    let mut pieces = Vec::new();
    for (segment, operands) in &packed {
        let map = segment.adapter.map(|slot| &cx.pool.adapter(slot).map);
        let mut column = 0;
        for &linear in site.linears() {
            let tiles = map.and_then(|map| map.linear(layer, linear));
            for rank in (0..tiles.map_or(0, |tiles| tiles.padded_rank as usize)).step_by(RANKS) {
                pieces.push(Piece { segment, operands, linear, rank, column });
                column += RANKS;
            }
        }
    }
    let cols = out.cols();
    let out = Disjoint::new(out.values_mut());
    cx.workers.split(pieces.len(), 1, |range| {
        for piece in &pieces[range] {
            let values = ranks(cx, layer, piece);
            for (values, row) in values.chunks(RANKS).zip(piece.segment.rows.clone()) {
                let first = row as usize * cols + piece.column;
                // SAFETY: pieces differ in rows or columns, and `split` gives each to one thread.
                unsafe { out.part(first..first + RANKS) }.copy_from_slice(values);
            }
        }
    });
}

/// `[rows of the segment, RANKS]`
fn ranks(cx: &Context, layer: usize, piece: &Piece<'_>) -> Vec<f32> {
    let mut sums = vec![0.0; piece.operands.rows() * RANKS];
    let mut part = sums.clone();
    let Some(slot) = piece.segment.adapter else { return sums };
    let adapter = cx.pool.adapter(slot);
    let Some(tiles) = adapter.map.linear(layer, piece.linear) else { return sums };
    for tile in &tiles.a {
        let ranks = tile.ranks.start as usize..tile.ranks.end as usize;
        if !ranks.contains(&piece.rank) {
            continue;
        }
        let inputs = tile.long.start as usize..tile.long.end as usize;
        let rank_bytes = inputs.len() * adapter.map.dtype.size();
        let first = (piece.rank - ranks.start) * rank_bytes;
        let weights = &cx.pool.tile(adapter, tile)[first..][..RANKS * rank_bytes];
        piece.operands.multiply(weights, inputs, &mut part);
        for (sum, part) in sums.iter_mut().zip(&part) {
            *sum += part;
        }
    }
    for sum in &mut sums {
        *sum *= tiles.scale;
    }
    sums
}
