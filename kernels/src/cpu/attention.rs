//! Causal attention over pages.
//!
//! Threads split the work by (some rows of a sequence, key-value head); a piece reads each page
//! once for its rows and for the query heads that share the head. A row's positions are taken in
//! ascending order in every sum, so a row in a chunk equals the same row in a whole prompt.

use std::ops::Range;

use crate::PAGE_TOKENS;

use super::{
    Context, Isa,
    disjoint::Disjoint,
    element::{Element, elements, with_element},
    lanes::{Kernel, Lanes},
    pool::{Half, PageHead},
    reference,
    tensor::Tensor,
};

/// Rows of a sequence that share a pass over its pages.
const ROWS: usize = 8;
/// Multiplications that are worth handing to another thread.
const CHUNK_WORK: usize = 1 << 16;

/// Rows of one sequence and one key-value head.
struct Piece {
    rows: Range<usize>,
    kv_head: usize,
}

/// `out = softmax(q k^T / sqrt(head_dim)) v` over each row's own sequence up to its position:
/// `q`, `out` `[rows, heads * head_dim]`.
pub(super) fn attention(cx: &Context, layer: usize, q: &Tensor, out: &mut Tensor) {
    let shape = cx.pool.shape();
    assert_eq!(q.cols(), shape.heads * shape.head_dim, "the queries' width");
    assert_eq!(q.cols(), out.cols(), "attention keeps the width");
    out.set_rows(q.rows());
    if cx.path.isa() == Isa::Reference {
        return reference::attention(cx, layer, q, out);
    }
    let batch = &cx.step.batch;
    let mut pieces = Vec::new();
    let mut positions = 0;
    for bounds in batch.seq_indptr.windows(2) {
        let (start, end) = (bounds[0] as usize, bounds[1] as usize);
        for first in (start..end).step_by(ROWS) {
            let rows = first..end.min(first + ROWS);
            positions += rows.len() * (batch.positions[rows.end - 1] as usize + 1);
            let piece = |kv_head| Piece { rows: rows.clone(), kv_head };
            pieces.extend((0..shape.kv_heads).map(piece));
        }
    }
    let work = positions * q.cols() / pieces.len().max(1);
    let cols = q.cols();
    let out = Disjoint::new(out.values_mut());
    cx.workers.split(pieces.len(), CHUNK_WORK.div_ceil(work.max(1)), |range| {
        for piece in &pieces[range] {
            cx.path.run(Attend { cx, layer, q, cols, piece, out: &out });
        }
    });
}

struct Attend<'a> {
    cx: &'a Context,
    layer: usize,
    q: &'a Tensor,
    cols: usize,
    piece: &'a Piece,
    out: &'a Disjoint<'a, f32>,
}

impl Kernel for Attend<'_> {
    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        with_element!(self.cx.pool.shape().dtype, E => self.attend::<L, E>(lanes));
    }
}

impl Attend<'_> {
    #[inline(always)]
    fn attend<L: Lanes, E: Element>(&self, lanes: L) {
        let shape = self.cx.pool.shape();
        let group = shape.heads / shape.kv_heads;
        let positions = &self.cx.step.batch.positions[self.piece.rows.clone()];
        let longest = positions[positions.len() - 1] as usize + 1;
        let pages = self.cx.step.pages(self.cx.step.sequences[self.piece.rows.start] as usize);
        let pages = &pages[..longest.div_ceil(PAGE_TOKENS)];
        let stride = pages.len() * PAGE_TOKENS;
        // `[rows, group, stride]`: scores, then weights.
        let mut weights = vec![0.0; positions.len() * group * stride];
        for (page, &slab) in pages.iter().enumerate() {
            let keys = self.page::<E>(slab, Half::Key);
            for (i, weights) in weights.chunks_mut(stride).enumerate() {
                let row = i / group;
                let seen = visible(positions[row], page);
                let weights = &mut weights[page * PAGE_TOKENS..][..seen];
                let query = &self.q.row(self.piece.rows.start + row)[self.columns(i % group)];
                score::<L, E>(lanes, query, keys, weights);
            }
        }
        for (i, weights) in weights.chunks_mut(stride).enumerate() {
            softmax(lanes, &mut weights[..positions[i / group] as usize + 1]);
            self.out(i, group).fill(0.0);
        }
        for (page, &slab) in pages.iter().enumerate() {
            let values = self.page::<E>(slab, Half::Value);
            for (i, weights) in weights.chunks(stride).enumerate() {
                let seen = visible(positions[i / group], page);
                let weights = &weights[page * PAGE_TOKENS..][..seen];
                mix::<L, E>(lanes, weights, values, self.out(i, group));
            }
        }
    }

    /// `[PAGE_TOKENS, head_dim]`
    #[inline(always)]
    fn page<E: Element>(&self, slab: u32, half: Half) -> &[E] {
        let head = PageHead { slab, layer: self.layer, half, kv_head: self.piece.kv_head };
        elements(self.cx.pool.page(head))
    }

    /// Columns of a query head of the group.
    #[inline(always)]
    fn columns(&self, member: usize) -> Range<usize> {
        let shape = self.cx.pool.shape();
        let head = self.piece.kv_head * (shape.heads / shape.kv_heads) + member;
        head * shape.head_dim..(head + 1) * shape.head_dim
    }

    /// Output of the piece's `i`-th query.
    #[inline(always)]
    #[expect(clippy::mut_from_ref, reason = "parts of `out` belong to the piece")]
    fn out(&self, i: usize, group: usize) -> &mut [f32] {
        let columns = self.columns(i % group);
        let first = (self.piece.rows.start + i / group) * self.cols;
        // SAFETY: pieces differ in rows or heads, `split` gives each to one thread, and `attend`
        // holds one part at a time.
        unsafe { self.out.part(first + columns.start..first + columns.end) }
    }
}

/// Tokens of a page at or before a position.
#[inline(always)]
fn visible(position: u32, page: usize) -> usize {
    (position as usize + 1).saturating_sub(page * PAGE_TOKENS).min(PAGE_TOKENS)
}

/// `scores[t] = query . keys[t] / sqrt(head_dim)`
#[inline(always)]
fn score<L: Lanes, E: Element>(lanes: L, query: &[f32], keys: &[E], scores: &mut [f32]) {
    let scale = 1.0 / (query.len() as f32).sqrt();
    for (score, key) in scores.iter_mut().zip(keys.chunks_exact(query.len())) {
        let mut sum = lanes.splat(0.0);
        for (query, key) in query.chunks(L::COUNT).zip(key.chunks(L::COUNT)) {
            sum = lanes.fma(lanes.load(query), lanes.load(key), sum);
        }
        *score = lanes.sum(sum) * scale;
    }
}

/// Scores to weights that add up to one.
#[inline(always)]
fn softmax<L: Lanes>(lanes: L, weights: &mut [f32]) {
    let highest = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for weights in weights.chunks_mut(L::COUNT) {
        let shifted = lanes.sub(lanes.load(weights), lanes.splat(highest));
        lanes.store(lanes.exp(shifted), weights);
        // Only what was stored counts, so that a tail adds nothing.
        total += lanes.sum(lanes.load(weights));
    }
    let scale = lanes.splat(1.0 / total);
    for weights in weights.chunks_mut(L::COUNT) {
        lanes.store(lanes.mul(lanes.load(weights), scale), weights);
    }
}

/// `out += weights . values`: `weights` `[seen]`, `values` `[PAGE_TOKENS, head_dim]`.
#[inline(always)]
fn mix<L: Lanes, E: Element>(lanes: L, weights: &[f32], values: &[E], out: &mut [f32]) {
    let head_dim = out.len();
    for (column, out) in out.chunks_mut(L::COUNT).enumerate() {
        let columns = column * L::COUNT..column * L::COUNT + out.len();
        let mut sum = lanes.load(out);
        for (&weight, value) in weights.iter().zip(values.chunks_exact(head_dim)) {
            sum = lanes.fma(lanes.splat(weight), lanes.load(&value[columns.clone()]), sum);
        }
        lanes.store(sum, out);
    }
}
