//! Rotary embedding, and keys and values into their pages.

use super::{
    Context, Cuda, Tensor, attention,
    compiler::Source,
    deferred::Deferred,
    expand::{PendingView, blocks_for, variant},
    launch::{Grid, Parameter, Parameters},
    step::{Extent, PIECE_ROWS},
};
use crate::{AttentionShape, Dtype, Pending};

pub(super) const SOURCE: Source =
    Source { name: "rope_store", text: include_str!("rope_store.cu") };

/// As in `rope_store.cu`.
const THREADS: u32 = 128;
/// Blocks that a multiprocessor holds.
const RESIDENT: u32 = 7;

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
/// keys (rotated) and values into the row's place in its page. Deferred where nothing is to be
/// added to the product and attention takes it as it is.
pub(super) fn rope_store(cx: &mut Context, layer: usize, qkv: Pending<'_, Cuda>, q: &mut Tensor) {
    let shape = cx.pool.shape();
    assert!(layer < shape.layers, "a layer of the model");
    assert!(2 * shape.inv_freq.len() <= shape.head_dim, "the rotary part is within a head");
    assert_eq!(qkv.y.cols, shape.qkv_width(), "the fused product's width");
    assert_eq!(q.cols, shape.heads * shape.head_dim, "the queries' width");
    let rows = cx.step.rows();
    let product = PendingView::settled(cx, &qkv);
    q.become_rows(rows, cx.activation());
    if rows.bound == 0 {
        return;
    }
    let rotation = Rotation { step: cx.step.number, layer, product, dtype: qkv.y.dtype };
    let complete = product.is_bare() && rotation.dtype == Dtype::F32;
    if complete && cx.step.extent.longest_part == 1 && attention::takes_rotation(cx.pool.shape()) {
        q.deferred.set(Deferred::Rotation(rotation));
    } else {
        rotation.queue(cx, q);
    }
}

/// A product that becomes queries, keys and values of a layer.
#[derive(Clone, Copy)]
pub(super) struct Rotation {
    /// The step whose positions and pages are meant.
    step: u64,
    layer: usize,
    product: PendingView,
    dtype: Dtype,
}

impl Rotation {
    /// Where the product lies, `[rows, qkv_width]` in f32 with nothing to be added, for attention
    /// of the same layer and step.
    pub(super) fn product(&self, cx: &Context, layer: usize) -> u64 {
        assert_eq!((self.step, self.layer), (cx.step.number, layer), "queries of this attention");
        assert!(self.product.is_bare() && self.dtype == Dtype::F32, "a complete product");
        self.product.y()
    }

    /// Queues the kernel that writes queries to `q`, and keys and values to their pages.
    pub(super) fn queue(self, cx: &mut Context, q: &Tensor) {
        let Self { step, layer, product, dtype } = self;
        assert_eq!(step, cx.step.number, "queries are read in the step that they are of");
        let AttentionShape { heads, kv_heads, head_dim, inv_freq, .. } = cx.pool.shape();
        let (heads, pairs) = (*heads as u32, inv_freq.len() as u32);
        let Extent { pieces, .. } = cx.step.extent;
        let items = pieces * (heads + 2 * *kv_heads as u32);
        let delta =
            if product.has_delta() { (*head_dim as u32).next_multiple_of(32) + 8 } else { 0 };
        let shared = PIECE_ROWS * (delta + 2 * pairs) * 4;
        let grid = Grid { shared, ..Grid::flat(blocks_for(cx, items, RESIDENT), THREADS) };
        let kernel = variant(cx, "rope_store", dtype);
        let inv_freq = cx.pool.inv_freq.address();
        let parameters = Parameters::default()
            .with(cx.step.view())
            .with(cx.pool.view())
            .with(product)
            .with(RotaryView { inv_freq, pairs, heads, layer: layer as u32, padding: 0 })
            .with(q.data.address());
        // SAFETY: the parameters of `rope_store.cu`; `product` is a view of this step's, `q` has
        // the queries' width, and a row's position is within its sequence's pages, which are its
        // own.
        unsafe { cx.launch(("rope_store", &kernel), grid, parameters) };
    }
}
