//! Residual addition and RMS norm.

use super::{
    Context, Cuda, Tensor, Vector,
    compiler::Source,
    device::Device,
    expand::{Ending, PendingView, variant},
    launch::{Grid, Parameter, Parameters},
    tensor::RowScale,
};
use crate::{Dtype, Pending};

pub(super) const SOURCE: Source = Source { name: "norm", text: include_str!("norm.cu") };

/// As in `norm.cu`.
const THREADS: u32 = 128;
const SLICES_MAX: u32 = 8;
/// Bytes of its `Block`.
const BLOCK_BYTES: u32 = 128;
/// Slices are whole warps' shares.
const SLICE_UNIT: u32 = 64;
/// Rows up to which a step is one of decoding and a row is spread widely.
const DECODE_ROWS: u32 = 128;

/// `Norm` of `norm.cu`.
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
    padding: u32,
}

// SAFETY: the layout of `Norm` in `norm.cu`.
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
    let kernel = variant(cx, "norm", add.map_or(Dtype::F32, |add| add.y.dtype));
    let rows = rows.bound as u32;
    let (slices, slice) = slices(&cx.device, rows, hidden);
    let shared = BLOCK_BYTES + slice * 4;
    assert!(shared <= cx.device.shared_max, "{hidden} columns fit in shared memory");
    let blocks = [rows * slices, 1, 1];
    let grid = Grid { blocks, threads: THREADS, shared, cluster: slices };
    let parameters = NormView {
        residual: residual.data.address(),
        weight: weight.data.address(),
        out: out.data.address(),
        eps,
        hidden,
        slices,
        slice,
        pieces: cx.step.extent.pieces,
        padding: 0,
    };
    let parameters = Parameters::default().with(cx.step.view()).with(view).with(parameters);
    // SAFETY: the parameters of `norm.cu`; `view` answers for the product, and residual, weight
    // and `out` have the shapes asserted above.
    unsafe { cx.launch(("norm", &kernel), grid, parameters) };
}

/// Blocks that share a row, and columns of each. A function of `hidden` for all steps of decoding,
/// and for all larger ones: the order of a row's sum of squares hangs on it.
fn slices(device: &Device, rows: u32, hidden: u32) -> (u32, u32) {
    let columns = if rows <= DECODE_ROWS { 512 } else { 2048 };
    // Hopper and the large Blackwells, whose targets have features under an `a`.
    let has_clusters = device.arch.ends_with('a');
    let slices_max = if has_clusters { SLICES_MAX } else { 1 };
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
