//! Rotary embedding, and keys and values into their pages.

use super::{
    Context, Cuda, Tensor,
    compiler::Source,
    expand::{PendingView, blocks_for, variant},
    launch::{Grid, Parameter, Parameters},
    matmul::is_few,
    step::{Extent, PIECE_ROWS},
};
use crate::Pending;

pub(super) const SOURCE: Source =
    Source { name: "rope_store", text: include_str!("rope_store.cu") };

/// As in `rope_store.cu`.
const THREADS: u32 = 128;
/// Blocks that a multiprocessor holds.
const RESIDENT: u32 = 7;
const RESIDENT_FEW: u32 = 5;
const RESIDENT_BASE: u32 = 16;
/// Pairs of a warp's item, of those for few rows.
const RUN: u32 = 32;

/// `Rotary` of `rope_store.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct RotaryView {
    inv_freq: u64,
    pairs: u32,
    heads: u32,
    layer: u32,
    padding: u32,
}

// SAFETY: the layout of `Rotary` in `rope_store.cu`.
unsafe impl Parameter for RotaryView {}

/// Rotates the queries of `qkv` `[rows, qkv_width]` into `q` `[rows, heads * head_dim]` and stores
/// keys (rotated) and values into the row's place in its page.
pub(super) fn rope_store(cx: &mut Context, layer: usize, qkv: Pending<'_, Cuda>, q: &mut Tensor) {
    let shape = cx.pool.shape();
    let (heads, kv_heads) = (shape.heads as u32, shape.kv_heads as u32);
    let (head_dim, pairs) = (shape.head_dim as u32, shape.inv_freq.len() as u32);
    assert!(layer < shape.layers, "a layer of the model");
    assert!(2 * pairs <= head_dim, "the rotary part is within a head");
    assert_eq!(qkv.y.cols, shape.qkv_width(), "the fused product's width");
    assert_eq!(q.cols, shape.heads * shape.head_dim, "the queries' width");
    let rows = cx.step.rows();
    let view = PendingView::new(cx, &qkv);
    q.become_rows(rows, cx.activation());
    if rows.bound == 0 {
        return;
    }
    let Extent { pieces, groups, .. } = cx.step.extent;
    let all_heads = heads + 2 * kv_heads;
    let warps = all_heads * (head_dim - pairs).div_ceil(RUN);
    let blocks = |items: u32, resident| blocks_for(cx, items.div_ceil(THREADS / 32), resident);
    let (operation, grid) = match (is_few(rows.bound), view.has_delta()) {
        (true, true) => {
            ("rope_store_few", Grid::flat(blocks(groups * warps, RESIDENT_FEW), THREADS))
        }
        (true, false) => {
            let items = rows.bound as u32 * warps;
            ("rope_store_base", Grid::flat(blocks(items, RESIDENT_BASE), THREADS))
        }
        (false, lora) => {
            let delta = if lora { head_dim.next_multiple_of(32) + 8 } else { 0 };
            let shared = PIECE_ROWS * (delta + 2 * pairs) * 4;
            let blocks = blocks_for(cx, pieces * all_heads, RESIDENT);
            ("rope_store", Grid { shared, ..Grid::flat(blocks, THREADS) })
        }
    };
    let kernel = variant(cx, operation, qkv.y.dtype);
    let inv_freq = cx.pool.inv_freq.address();
    let parameters = Parameters::default()
        .with(cx.step.view())
        .with(cx.pool.view())
        .with(view)
        .with(RotaryView { inv_freq, pairs, heads, layer: layer as u32, padding: 0 })
        .with(q.data.address());
    // SAFETY: the parameters of `rope_store.cu`; `view` answers for the product, `q` has the
    // queries' width, and a row's position is within its sequence's pages, which are its own.
    unsafe { cx.launch(("rope_store", &kernel), grid, parameters) };
}
