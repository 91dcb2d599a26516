//! Products of any sizes and element types, by tiles in shared memory.

use super::super::{
    Context, Matrix, Tensor,
    launch::{Grid, Parameters},
};
use crate::Dtype;

/// Threads of a block, and outputs of its tile, as in `matmul_plain.cu`.
const THREADS: u32 = 256;
const TILE_OUTPUTS: u32 = 64;

/// `y = x w^T` in f32, whatever `x` and `w` are.
pub(super) fn multiply(cx: &mut Context, x: &Tensor, w: &Matrix, y: &mut Tensor) {
    assert_ne!(x.dtype, Dtype::F16, "activations are f32 or bf16");
    y.become_rows(x.rows, Dtype::F32);
    let [rows, inputs, outputs] = [x.rows.bound, w.cols, w.rows].map(|n| n as u32);
    // A tile's height changes no sum.
    let tile_rows = if rows <= 16 { 16 } else { 64 };
    let kernel = format!("matmul_plain_{}_{}_{tile_rows}", x.dtype.name(), w.dtype.name());
    let blocks = [outputs.div_ceil(TILE_OUTPUTS), rows.div_ceil(tile_rows), 1];
    let grid = Grid { blocks, threads: THREADS, shared: 0, cluster: 1 };
    let parameters = Parameters::default()
        .with(x.data.address())
        .with(w.data.address())
        .with(y.data.address())
        .with(rows)
        .with(inputs)
        .with(outputs);
    // SAFETY: the kernel's parameters in order; `x` holds `[rows, inputs]` and `w`
    // `[outputs, inputs]` of the types that its name says, `y` has room for `[rows, outputs]` in
    // f32, and the kernel stays within those.
    unsafe { cx.launch((super::PLAIN.name, &kernel), grid, parameters) };
}
