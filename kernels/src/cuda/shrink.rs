//! The first half of a LoRA product: activations to ranks.

use super::{Context, Grid, Parameters, Tensor, compiler::Source, launch::Parameter};
use crate::{Dtype, MAX_RANK, RANK_CHUNK, Site};

pub(super) const SOURCE: Source = Source { name: "shrink", text: include_str!("shrink.cu") };

const THREADS: u32 = 256;
/// Consecutive pieces of one adapter that share a pass over its tiles, of a batch of many.
const PREFILL_PIECES: u32 = 4;
/// Most blocks along y.
const BLOCKS_Y: u32 = 65_535;

/// `Arguments` of `shrink.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Arguments {
    x: u64,
    out: u64,
    inputs: u32,
    cols: u32,
    layer: u32,
    site: u32,
}

// SAFETY: the layout of `Arguments` in `shrink.cu`.
unsafe impl Parameter for Arguments {}

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, cols]` in f32, of which a row's ranks are written.
pub(super) fn shrink(cx: &mut Context, x: &Tensor, (layer, site): (usize, Site), out: &mut Tensor) {
    let extent = cx.step.extent;
    assert_eq!(x.rows, extent.rows as usize, "activations of this step");
    assert!(layer < cx.pool.shape().layers, "a layer of the model");
    assert!(cx.adapters.ranks_max(layer, site) <= out.cols, "room for every adapter's ranks");
    out.become_rows(x.rows, Dtype::F32);
    if !extent.has_lora {
        return;
    }
    let processors = cx.device.processors;
    let prefill = (x.dtype, extent.pieces > 2 * processors) == (Dtype::Bf16, true);
    let groups = extent.pieces.div_ceil(if prefill { PREFILL_PIECES } else { 1 });
    // About two blocks per processor: more chunks side by side where there are few pieces.
    let linears = site.linears().len() as u32;
    let chunks_max = linears * (MAX_RANK / RANK_CHUNK) as u32;
    let chunks = (2 * processors / groups).clamp(linears, chunks_max);
    let blocks = [chunks, groups.min(BLOCKS_Y), 1];
    let arguments = Arguments {
        x: x.data.address(),
        out: out.data.address(),
        inputs: x.cols as u32,
        cols: out.cols as u32,
        layer: layer as u32,
        site: site as u32,
    };
    let parameters =
        Parameters::default().with(cx.step.view()).with(cx.adapters.view()).with(arguments);
    let kernel = kernel(x.dtype, cx.pool.shape().dtype, prefill);
    // SAFETY: the parameters are `Step`, `Adapters` and `Arguments`; `x` and `out` hold the step's
    // rows, a row of `out` has room for the ranks of every bound adapter, and the inputs of its
    // tiles are columns of `x` (asserted where adapters are admitted).
    unsafe { cx.launch(("shrink", kernel), Grid { blocks, ..Grid::flat(1, THREADS) }, parameters) };
}

fn kernel(x: Dtype, tiles: Dtype, prefill: bool) -> &'static str {
    match (x, tiles) {
        (Dtype::F32, Dtype::F32) => "shrink_f32_f32",
        (Dtype::F32, Dtype::F16) => "shrink_f32_f16",
        (Dtype::F32, Dtype::Bf16) => "shrink_f32_bf16",
        (Dtype::Bf16, Dtype::Bf16) if prefill => "shrink_bf16_bf16_prefill",
        (Dtype::Bf16, Dtype::Bf16) => "shrink_bf16_bf16",
        _ => panic!("no kernel shrinks {} activations with {} tiles", x.name(), tiles.name()),
    }
}
