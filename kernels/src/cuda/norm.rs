//! Residual addition and RMS norm.

use super::{
    Context, Cuda, Tensor, Vector,
    compiler::Source,
    device::Device,
    expand::{Ending, PendingView, variant},
    launch::{Grid, Parameter, Parameters},
    step::PIECE_ROWS,
    tensor::RowScale,
};
use crate::{Dtype, Pending};

pub(super) const SOURCE: Source = Source { name: "norm", text: include_str!("norm.cu") };
pub(super) const PREFILL: Source =
    Source { name: "norm_prefill", text: include_str!("norm_prefill.cu") };

/// As in `norm.cu` and `norm_prefill.cu`.
const THREADS: u32 = 128;
const PREFILL_THREADS: u32 = 256;
const SLICES_MAX: u32 = 8;
/// Bytes of the `Block` of `norm.cu`.
const BLOCK_BYTES: u32 = 128;
/// Slices are whole warps' shares.
const SLICE_UNIT: u32 = 64;
/// Rows up to which a step is one of decoding.
const DECODE_ROWS: u32 = 128;
/// Columns of a slice, where clusters have room for so many: in decoding a row is spread widely.
const DECODE_COLUMNS: u32 = 512;
const PREFILL_COLUMNS: u32 = 1024;

/// `Norm` of `norm.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct NormView {
    residual: u64,
    weight: u64,
    out: u64,
    eps: f32,
    hidden: u32,
    slices: u32,
    slice: u32,
    pieces: u32,
    rows: u32,
}

// SAFETY: the layout of `Norm` in `norm.cuh`.
unsafe impl Parameter for NormView {}

/// `residual += add`, then `out = residual / sqrt(mean(residual^2) + eps) * weight`, both
/// `[rows, hidden]`: `residual` f32, `out` what feeds a product.
pub(super) fn norm(
    cx: &mut Context,
    residual: &mut Tensor,
    add: Option<Pending<'_, Cuda>>,
    (weight, eps): (&Vector, f32),
    out: &mut Tensor,
) {
    let (rows, hidden) = (cx.step.rows(), residual.cols as u32);
    assert_eq!((residual.rows.live, residual.dtype), (rows.live, Dtype::F32), "a residual stream");
    assert_eq!((out.cols, weight.len), (residual.cols, residual.cols), "norm keeps the width");
    assert!(add.as_ref().is_none_or(|add| add.y.cols == residual.cols), "one residual stream");
    out.become_rows(rows, cx.activation());
    if rows.bound == 0 {
        return;
    }
    if let Some(add) = &add
        && let Some((product, ending)) = Ending::take(cx, add)
    {
        return product.queue_residual(cx, &ending, (weight.data.address(), eps), [residual, out]);
    }
    let view = add.as_ref().map_or_else(PendingView::none, |add| PendingView::new(cx, add));
    let (rows, pieces) = (rows.bound as u32, cx.step.extent.pieces);
    let spread = if rows <= DECODE_ROWS {
        Spread::of_rows(&cx.device, rows, hidden)
    } else {
        Spread::of_pieces(&cx.device, pieces, hidden)
    };
    let kernel = variant(cx, spread.source.name, add.map_or(Dtype::F32, |add| add.y.dtype));
    let parameters = NormView {
        residual: residual.data.address(),
        weight: weight.data.address(),
        out: out.data.address(),
        eps,
        hidden,
        slices: spread.slices,
        slice: spread.slice,
        pieces,
        rows: spread.rows,
    };
    let parameters = Parameters::default().with(cx.step.view()).with(view).with(parameters);
    // SAFETY: the parameters of both sources; `view` answers for the product, and residual, weight
    // and `out` have the shapes asserted above.
    unsafe { cx.launch((spread.source.name, &kernel), spread.grid, parameters) };
}

/// How rows are spread over blocks. A function of `hidden` for all steps of decoding, and for all
/// larger ones: the order of a row's sum of squares hangs on it.
struct Spread {
    source: Source,
    /// Blocks that share rows, and columns of each.
    slices: u32,
    slice: u32,
    /// Of a block.
    rows: u32,
    grid: Grid,
}

impl Spread {
    /// A row to a block, or to a cluster.
    fn of_rows(device: &Device, rows: u32, hidden: u32) -> Self {
        let (slices, slice) = slices(device, hidden, DECODE_COLUMNS);
        let (blocks, shared) = ([rows * slices, 1, 1], BLOCK_BYTES + slice * 4);
        assert!(shared <= device.shared_max, "{hidden} columns fit in shared memory");
        let grid = Grid { blocks, threads: THREADS, shared, cluster: slices };
        Self { source: SOURCE, slices, slice, rows: 1, grid }
    }

    /// As many rows of a piece as there is room for.
    fn of_pieces(device: &Device, pieces: u32, hidden: u32) -> Self {
        let (slices, slice) = slices(device, hidden, PREFILL_COLUMNS);
        let row_bytes = (slice + 8) * 4;
        let room = device.shared_max - PIECE_ROWS * SLICES_MAX * 4;
        let rows = (room / row_bytes).min(PIECE_ROWS);
        assert!(rows > 0, "{hidden} columns fit in shared memory");
        let blocks = [pieces * PIECE_ROWS.div_ceil(rows) * slices, 1, 1];
        let (threads, shared) = (PREFILL_THREADS, rows * row_bytes);
        let grid = Grid { blocks, threads, shared, cluster: slices };
        Self { source: PREFILL, slices, slice, rows, grid }
    }
}

/// Blocks that share a row, and columns of each: about so many, where there are clusters.
fn slices(device: &Device, hidden: u32, columns: u32) -> (u32, u32) {
    // Hopper and the large Blackwells, whose targets have features under an `a`.
    let slices_max = if device.arch.ends_with('a') { SLICES_MAX } else { 1 };
    let slices = hidden.div_ceil(columns).next_power_of_two().min(slices_max);
    (slices, hidden.div_ceil(slices).next_multiple_of(SLICE_UNIT))
}

/// Multiplies the rows of `x` with what they are yet to be multiplied with, if anything, for
/// readers that do not.
pub(super) fn settle_scale(cx: &mut Context, x: &Tensor) {
    let Some(RowScale { squares, residuals, eps }) = x.scale.take() else { return };
    let kernel = format!("scale_rows_{}", x.dtype.name());
    let parameters = Parameters::default()
        .with(x.data.address())
        .with(squares)
        .with(x.cols as u32)
        .with(residuals)
        .with(eps);
    let grid = Grid::flat(x.rows.bound as u32, THREADS);
    // SAFETY: the parameters of `scale_rows` in `norm.cu`; a scale has squares for each row.
    unsafe { cx.launch(("norm", &kernel), grid, parameters) };
}
