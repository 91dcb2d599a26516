//! The first half of a LoRA product, activations to ranks, by two ways: [`few`] for the bf16 rows
//! of decoding (`shrink_decode.cu`), [`many`] for all others (`shrink.cu`).

use std::sync::Arc;

use super::{
    Context, Grid, Parameters, Tensor, adapters::ShrinkSize, compiler::Source, device::Device,
    launch::Parameter, matmul::is_few, memory::DeviceBuffer,
};
use crate::{DeviceError, Dtype, Site};

pub(super) const SOURCE: Source = Source { name: "shrink", text: include_str!("shrink.cu") };
pub(super) const DECODE: Source =
    Source { name: "shrink_decode", text: include_str!("shrink_decode.cu") };

/// Of a block, and so the pieces that a block of `shrink_decode.cu` can look up.
const THREADS: u32 = 256;
/// Consecutive pieces of one adapter that share a pass over its tiles, of a batch of many.
const PREFILL_PIECES: u32 = 4;
/// Inputs of which a block of `shrink_decode.cu` has all weights of an item in registers.
const RUN_INPUTS: u32 = 1024;
/// Blocks of a cluster.
const RUNS_MAX: u32 = 8;
/// Inputs come in such steps.
const STEP_INPUTS: u32 = 32;
/// Rows of an item of `shrink_decode.cu`.
const ITEM_ROWS: u32 = 8;

/// `Arguments` of `shrink.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Arguments {
    x: u64,
    out: u64,
    taken: u64,
    inputs: u32,
    cols: u32,
    layer: u32,
    site: u32,
    chunks: u32,
    padding: u32,
}

// SAFETY: the layout of `Arguments` in `shrink.cu`.
unsafe impl Parameter for Arguments {}

/// `Arguments` of `shrink_decode.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct DecodeArguments {
    x: u64,
    out: u64,
    signals: u64,
    inputs: u32,
    cols: u32,
    layer: u32,
    site: u32,
    pieces: u32,
    runs: u32,
    run_inputs: u32,
    padding: u32,
}

// SAFETY: the layout of `Arguments` in `shrink_decode.cu`.
unsafe impl Parameter for DecodeArguments {}

/// How many items the blocks of a kernel have taken; zero between kernels.
pub(super) struct Taken(DeviceBuffer);

impl Taken {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let mut count = DeviceBuffer::new(device, 4, "items taken by shrink")?;
        count.write(0, &[0; 4]);
        Ok(Self(count))
    }
}

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, cols]` in f32, of which a row's ranks are written.
pub(super) fn shrink(cx: &mut Context, x: &Tensor, (layer, site): (usize, Site), out: &mut Tensor) {
    assert_eq!(x.rows.live, cx.step.rows().live, "activations of this step");
    assert!(layer < cx.pool.shape().layers, "a layer of the model");
    let size = cx.adapters.most(layer, site);
    assert!(size.ranks <= out.cols, "room for every adapter's ranks");
    out.become_rows(cx.step.rows(), Dtype::F32);
    out.scale.set(x.scale.get());
    if !cx.step.extent.has_lora {
        return;
    }
    if is_few(x.rows.bound) && x.dtype == Dtype::Bf16 {
        few(cx, x, (layer, site, size), out);
    } else {
        many(cx, x, (layer, site, size), out);
    }
}

fn few(cx: &mut Context, x: &Tensor, place: (usize, Site, ShrinkSize), out: &Tensor) {
    let (layer, site, ShrinkSize { chunks, .. }) = place;
    let (rows, pieces) = (x.rows.bound as u32, cx.step.extent.pieces);
    assert!(pieces <= THREADS, "few pieces of few rows");
    assert_eq!(cx.pool.shape().dtype, Dtype::Bf16, "bf16 activations beside bf16 tiles");
    let inputs = x.cols as u32;
    let (runs, run_inputs) = runs(inputs, &cx.device.arch);
    let claim = (cx.device.arch == "sm_90a").then(|| cx.signals.claim(layer, site)).flatten();
    let signals = claim.as_ref().map_or(0, |claim| claim.address);
    if claim.as_ref().is_some_and(|claim| claim.is_raised) {
        let parameters = Parameters::default().with(signals);
        // SAFETY: the parameter of `lower_signals`; the words live as long as the context.
        unsafe { cx.launch((DECODE.name, "lower_signals"), Grid::flat(1, 1), parameters) };
    }
    let arguments = DecodeArguments {
        x: x.data.address(),
        out: out.data.address(),
        signals,
        inputs,
        cols: out.cols as u32,
        layer: layer as u32,
        site: site as u32,
        pieces,
        runs,
        run_inputs,
        padding: 0,
    };
    let parameters =
        Parameters::default().with(cx.step.view()).with(cx.adapters.view()).with(arguments);
    // Two blocks on a multiprocessor leave room for one of the product that comes next.
    let items = (pieces + rows / ITEM_ROWS) * chunks;
    let clusters = items.min(2 * cx.device.processors / runs).max(1);
    let grid = Grid { cluster: runs, ..Grid::flat(clusters * runs, THREADS) };
    // SAFETY: the parameters are `Step`, `Adapters` and `Arguments`; `x` and `out` hold the step's
    // rows, a row of `out` has room for the ranks of every bound adapter, and the inputs of its
    // tiles are columns of `x` (asserted where adapters are admitted).
    unsafe { cx.launch((DECODE.name, "shrink_decode"), grid, parameters) };
    if let Some(claim) = claim {
        cx.signals.raise(&claim, clusters * runs);
    }
}

/// Blocks that share the inputs of an item, and the inputs of each. The order of a sum depends on
/// it, so it must not depend on the rows.
fn runs(inputs: u32, arch: &str) -> (u32, u32) {
    let runs_max = if arch == "sm_90a" { RUNS_MAX } else { 1 };
    let runs = inputs.div_ceil(RUN_INPUTS).clamp(1, runs_max);
    (runs, inputs.div_ceil(runs).next_multiple_of(STEP_INPUTS))
}

fn many(cx: &mut Context, x: &Tensor, place: (usize, Site, ShrinkSize), out: &Tensor) {
    let (layer, site, ShrinkSize { chunks, .. }) = place;
    let (pieces, processors) = (cx.step.extent.pieces, cx.device.processors);
    let prefill = (x.dtype, pieces > 2 * processors) == (Dtype::Bf16, true);
    let arguments = Arguments {
        x: x.data.address(),
        out: out.data.address(),
        taken: cx.taken.0.address(),
        inputs: x.cols as u32,
        cols: out.cols as u32,
        layer: layer as u32,
        site: site as u32,
        chunks,
        padding: 0,
    };
    let parameters =
        Parameters::default().with(cx.step.view()).with(cx.adapters.view()).with(arguments);
    let kernel = kernel(x.dtype, cx.pool.shape().dtype, prefill);
    let items = pieces.div_ceil(if prefill { PREFILL_PIECES } else { 1 }) * chunks;
    let grid = Grid::flat(items.clamp(1, 2 * processors), THREADS);
    // SAFETY: as in `few`; nobody else uses the count of items taken.
    unsafe { cx.launch((SOURCE.name, kernel), grid, parameters) };
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

#[cfg(test)]
mod tests {
    use super::{RUNS_MAX, STEP_INPUTS, runs};

    #[test]
    fn runs_of_models() {
        let expected = [
            (512, (1, 512)),
            (2048, (2, 1024)),
            (4096, (4, 1024)),
            (5632, (6, 960)),
            (14336, (8, 1792)),
        ];
        for (inputs, runs_of_it) in expected {
            assert_eq!(runs(inputs, "sm_90a"), runs_of_it, "{inputs} inputs");
            assert_eq!(runs(inputs, "sm_80").0, 1, "no clusters");
        }
    }

    #[test]
    fn every_run_has_inputs() {
        for inputs in 1..40_000 {
            let (runs, run) = runs(inputs, "sm_90a");
            assert!((1..=RUNS_MAX).contains(&runs) && run % STEP_INPUTS == 0);
            assert!((runs - 1) * run < inputs && inputs <= runs * run, "{inputs} inputs");
        }
    }
}
