//! Attention over paged keys and values.

use std::sync::Arc;

use super::{
    Context, Grid, Parameters, Tensor, compiler::Source, device::Device, launch::Parameter,
    memory::DeviceBuffer, rope_store::Rotation, step::Extent,
};
use crate::{AttentionShape, DeviceError, Dtype};

pub(super) const DECODE: Source =
    Source { name: "attention_decode", text: include_str!("attention_decode.cu") };
pub(super) const PREFILL: Source =
    Source { name: "attention_prefill", text: include_str!("attention_prefill.cu") };
pub(super) const PLAIN: Source =
    Source { name: "attention_plain", text: include_str!("attention_plain.cu") };

/// Most elements of a head that any kernel here takes.
const HEAD_DIM_MAX: usize = 256;
/// Threads of a block, in `attention_plain.cu` and `attention_prefill.cu`.
const THREADS: u32 = 128;
/// Warps of a block, query heads of a pass, and pages of a split, in `attention_decode.cu`.
const DECODE_WARPS: u32 = 4;
const DECODE_HEADS: u32 = 8;
const SPLIT_PAGES: u32 = 16;
/// Sequences of a step for which there is room from the start.
const SEQUENCES_EXPECTED: u32 = 256;
/// Blocks of the decode kernel per multiprocessor at most; beyond, a block takes several splits,
/// so that one long sequence among many does not fill the grid with blocks that have none.
const DECODE_BLOCKS: u32 = 16;

/// `Queries` of `attention_decode.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct QueriesView {
    rows: u64,
    inv_freq: u64,
    pairs: u32,
    heads: u32,
}

// SAFETY: the layout of `Queries` in `attention_decode.cu`.
unsafe impl Parameter for QueriesView {}

/// `out = softmax(q k^T / sqrt(head_dim)) v` over each row's own sequence up to its position:
/// `q`, `out` `[rows, heads * head_dim]`.
pub(super) fn attention(cx: &mut Context, layer: usize, q: &Tensor, out: &mut Tensor) {
    let AttentionShape { layers, heads, kv_heads, head_dim, dtype, .. } = *cx.pool.shape();
    let rows = cx.step.rows();
    assert!(layer < layers, "a layer of the pool");
    assert_eq!(heads % kv_heads, 0, "query heads share key-value heads evenly");
    assert!((1..=HEAD_DIM_MAX).contains(&head_dim), "heads of up to {HEAD_DIM_MAX} elements");
    assert_eq!((q.cols, out.cols), (heads * head_dim, heads * head_dim), "the queries' width");
    assert_eq!(q.rows.live, rows.live, "rows of the step");
    assert_eq!(q.dtype, cx.activation(), "queries are what `rope_store` writes");
    out.become_rows(rows, q.dtype);
    let rotation = q.deferred.take_rotation();
    if rows.bound == 0 {
        return;
    }
    let Some(width) = Width::of(cx.pool.shape()) else {
        let name = match dtype {
            Dtype::F32 => "attention_plain_f32",
            Dtype::F16 => "attention_plain_f16",
            Dtype::Bf16 => "attention_plain_bf16",
        };
        let grid = Grid { blocks: [rows.bound as u32, heads as u32, 1], ..Grid::flat(1, THREADS) };
        let parameters = parameters(cx, layer, q, out);
        // SAFETY: the kernel's parameters; `q` and `out` hold `rows` rows of `heads * head_dim` of
        // the type it is named after, and pages that the step names are slabs of the pool.
        return unsafe { cx.launch((PLAIN.name, name), grid, parameters) };
    };
    if cx.step.extent.shortest_part <= 1 {
        decode(cx, layer, (q, rotation), out, width);
    }
    if cx.step.extent.longest_part > 1 {
        assert!(rotation.is_none(), "only rows of decoding wait for attention");
        prefill(cx, layer, q, out, width);
    }
}

/// Whether attention of sequences with one row does the work of `rope_store` in passing.
pub(super) fn takes_rotation(shape: &AttentionShape) -> bool {
    Width::of(shape).is_some()
}

/// Sequences with one row. With a rotation, queries and the newest keys and values are those of its
/// product; else `q` and the pages have them.
fn decode(
    cx: &mut Context,
    layer: usize,
    (q, rotation): (&Tensor, Option<Rotation>),
    out: &Tensor,
    width: Width,
) {
    let shape = cx.pool.shape();
    let (columns, splits) = (columns(shape), cx.step.extent.longest_pages.div_ceil(SPLIT_PAGES));
    let sequences = cx.step.extent.sequences;
    let room = (cx.device.processors * DECODE_BLOCKS).div_ceil(sequences * columns);
    let whole = shape.head_dim == width as usize;
    let (fresh, within) =
        (if rotation.is_some() { "fresh_" } else { "" }, if whole { "" } else { "within_" });
    let name = format!("attention_decode_{fresh}{within}{}", width as u32);
    // Slots of `attention_decode.cu`: 16 tokens of bf16 each.
    let slots = if let Width::W256 = width { 2 } else { 384 / width as u32 };
    let shared = DECODE_WARPS * slots * 16 * width as u32 * 2;
    let blocks = [sequences, columns, splits.clamp(1, room)];
    let grid = Grid { blocks, threads: DECODE_WARPS * 32, shared, cluster: 1 };
    assert!(splits <= 1 || cx.splits.fits(shape, &cx.step.extent), "room for partial sums");
    let queries = QueriesView {
        rows: rotation.map_or(q.data.address(), |rotation| rotation.product(cx, layer)),
        inv_freq: cx.pool.inv_freq.address(),
        pairs: shape.inv_freq.len() as u32,
        heads: shape.heads as u32,
    };
    let parameters = Parameters::default()
        .with(cx.step.view())
        .with(cx.pool.view())
        .with(layer as u32)
        .with(queries)
        .with(out.data.address())
        .with(cx.splits.partials.address())
        .with(cx.splits.arrivals.address());
    // SAFETY: the kernel's parameters; as in `attention` with bf16 rows of whole 16 bytes, or with
    // the f32 rows of the step's product, and there is room for what the splits of the step's
    // sequences leave.
    unsafe { cx.launch((DECODE.name, &name), grid, parameters) };
}

/// Sequences with more rows.
fn prefill(cx: &mut Context, layer: usize, q: &Tensor, out: &Tensor, width: Width) {
    let &AttentionShape { heads, kv_heads, .. } = cx.pool.shape();
    // Rows and tokens of a tile, as at the end of `attention_prefill.cu`.
    let (name, tile, tokens) = match width {
        Width::W64 => ("attention_prefill_64", 128, 64),
        Width::W128 => ("attention_prefill_128", 128, 48),
        Width::W256 => ("attention_prefill_256", 64, 32),
    };
    let Extent { rows, sequences, .. } = cx.step.extent;
    let tiles = rows * (heads / kv_heads) as u32 / tile + sequences;
    // Queries, and keys and values of two tiles, in bf16; positions.
    let shared = (tile + 4 * tokens) * width as u32 * 2 + tile * 4;
    let blocks = [tiles, kv_heads as u32, 1];
    let grid = Grid { blocks, threads: THREADS, shared, cluster: 1 };
    let parameters = parameters(cx, layer, q, out);
    // SAFETY: the kernel's parameters; as in `attention` with bf16 rows of whole 16 bytes.
    unsafe { cx.launch((PREFILL.name, name), grid, parameters) };
}

/// What every kernel here begins with.
fn parameters(cx: &Context, layer: usize, q: &Tensor, out: &Tensor) -> Parameters {
    Parameters::default()
        .with(cx.step.view())
        .with(cx.pool.view())
        .with(layer as u32)
        .with(cx.pool.shape().heads as u32)
        .with(q.data.address())
        .with(out.data.address())
}

/// Elements of a head that a kernel on tensor cores has room for.
#[derive(Clone, Copy)]
enum Width {
    W64 = 64,
    W128 = 128,
    W256 = 256,
}

impl Width {
    /// `None` where only the plain kernel does: heads of bf16 in whole 16 bytes are a must.
    fn of(shape: &AttentionShape) -> Option<Self> {
        if shape.dtype != Dtype::Bf16 || !shape.head_dim.is_multiple_of(8) {
            return None;
        }
        Some(match shape.head_dim {
            0..=64 => Self::W64,
            65..=128 => Self::W128,
            _ => Self::W256,
        })
    }
}

/// Passes over a sequence's pages in the decode kernel: each serves some query heads of one
/// key-value head.
fn columns(shape: &AttentionShape) -> u32 {
    let (heads, kv_heads) = (shape.heads as u32, shape.kv_heads as u32);
    (heads / kv_heads).div_ceil(DECODE_HEADS) * kv_heads
}

/// Where the decode kernel's blocks meet when a sequence has several splits.
pub(super) struct Splits {
    device: Arc<Device>,
    /// `[splits of all sequences, columns, DECODE_HEADS * (width + 2)]` of f32.
    partials: DeviceBuffer,
    /// `[sequences, columns]` blocks that have arrived; zeros between kernels.
    arrivals: DeviceBuffer,
}

impl Splits {
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let (partials, arrivals) = Self::room(device, 0, 0)?;
        Ok(Self { device: device.clone(), partials, arrivals })
    }

    /// Makes room for steps whose sequences fill the pool; what pages in common or more sequences
    /// take beyond that is found when they come.
    pub(super) fn reserve_for_pool(
        &mut self,
        shape: &AttentionShape,
        slabs: usize,
    ) -> Result<(), DeviceError> {
        let (sequences, pages) = (SEQUENCES_EXPECTED, slabs as u32);
        let extent = Extent { sequences, pages, longest_pages: pages, ..Extent::default() };
        self.reserve(shape, &extent)
    }

    /// Makes room for a step's splits. Kernels of the step before have ended.
    pub(super) fn reserve(
        &mut self,
        shape: &AttentionShape,
        extent: &Extent,
    ) -> Result<(), DeviceError> {
        if !self.fits(shape, extent) {
            let (partials, arrivals) = Self::bytes(shape, extent);
            let partials = partials.max(self.partials.len());
            let arrivals = arrivals.max(self.arrivals.len());
            (self.partials, self.arrivals) = Self::room(&self.device, partials, arrivals)?;
        }
        Ok(())
    }

    fn room(
        device: &Arc<Device>,
        partials: usize,
        arrivals: usize,
    ) -> Result<(DeviceBuffer, DeviceBuffer), DeviceError> {
        const WHAT: &str = "partial sums of attention";
        let mut zeros = DeviceBuffer::new(device, arrivals, WHAT)?;
        zeros.write(0, &vec![0; arrivals]);
        Ok((DeviceBuffer::new(device, partials, WHAT)?, zeros))
    }

    fn fits(&self, shape: &AttentionShape, extent: &Extent) -> bool {
        let (partials, arrivals) = Self::bytes(shape, extent);
        partials <= self.partials.len() && arrivals <= self.arrivals.len()
    }

    /// Bytes of both buffers. A sequence's splits begin at `page_indptr / SPLIT_PAGES + sequence`,
    /// which leaves each at least as many places as it has splits.
    fn bytes(shape: &AttentionShape, extent: &Extent) -> (usize, usize) {
        let Some(width) = Width::of(shape) else { return (0, 0) };
        if extent.shortest_part > 1 || extent.longest_pages <= SPLIT_PAGES {
            return (0, 0);
        }
        let splits = (extent.pages / SPLIT_PAGES + extent.sequences) as usize;
        let columns = columns(shape) as usize;
        let partial = DECODE_HEADS as usize * (width as usize + 2) * 4;
        (splits * columns * partial, extent.sequences as usize * columns * 4)
    }
}
