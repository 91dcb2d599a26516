//! The first half of a LoRA product: activations to ranks.

use std::sync::Arc;

use super::{
    Context, Grid, Parameters, Tensor,
    adapters::ShrinkSize,
    compiler::Source,
    device::Device,
    launch::Parameter,
    matmul::{FEW_ROWS, is_few},
    memory::DeviceBuffer,
};
use crate::{DeviceError, Dtype, Site};

pub(super) const SOURCE: Source = Source { name: "shrink", text: include_str!("shrink.cu") };

const THREADS: u32 = 256;
/// Consecutive pieces of one adapter that share a pass over its tiles, of a batch of many.
const PREFILL_PIECES: u32 = 4;
/// Inputs of a run: the 64 KiB of a chunk that a block has in flight at a time or two.
const RUN_INPUTS: u32 = 2048;
/// Floats that a run of a chunk leaves, `PIECE_ROWS * CHUNK_RANKS` of `shrink.cu`.
const PARTIAL: usize = 256;
const WHAT: &str = "partial sums of shrink";

/// `Arguments` of `shrink.cu`.
#[derive(Clone, Copy)]
#[repr(C)]
struct Arguments {
    x: u64,
    out: u64,
    partials: u64,
    arrivals: u64,
    run_inputs: u32,
    runs: u32,
    taken: u64,
    inputs: u32,
    cols: u32,
    layer: u32,
    site: u32,
    chunks: u32,
    is_late: u32,
}

// SAFETY: the layout of `Arguments` in `shrink.cu`.
unsafe impl Parameter for Arguments {}

/// Where the kernel's blocks meet.
pub(super) struct Meeting {
    device: Arc<Device>,
    /// `[chunks, runs, PARTIAL]` of f32.
    partials: DeviceBuffer,
    /// Items taken, then `[chunks]` runs that have ended; zeros between kernels.
    counters: DeviceBuffer,
}

impl Meeting {
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let partials = DeviceBuffer::new(device, 0, WHAT)?;
        let counters = DeviceBuffer::new(device, 4, WHAT)?;
        let mut meeting = Self { device: device.clone(), partials, counters };
        meeting.counters.write(0, &[0; 4]);
        Ok(meeting)
    }

    /// Makes room for the runs of so many chunks.
    fn reserve(&mut self, chunks: usize, runs: usize) -> Result<(), DeviceError> {
        let (partials, counters) = (chunks * runs * PARTIAL * 4, 4 + chunks * 4);
        if partials > self.partials.len() {
            self.partials = DeviceBuffer::new(&self.device, partials, WHAT)?;
        }
        if counters > self.counters.len() {
            self.counters = DeviceBuffer::new(&self.device, counters, WHAT)?;
            self.counters.write(0, &vec![0; counters]);
        }
        Ok(())
    }
}

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, cols]` in f32, of which a row's ranks are written.
pub(super) fn shrink(cx: &mut Context, x: &Tensor, (layer, site): (usize, Site), out: &mut Tensor) {
    let extent = cx.step.extent;
    assert_eq!(x.rows.live, cx.step.rows().live, "activations of this step");
    assert!(layer < cx.pool.shape().layers, "a layer of the model");
    let ShrinkSize { ranks, chunks } = cx.adapters.most(layer, site);
    assert!(ranks <= out.cols, "room for every adapter's ranks");
    out.become_rows(cx.step.rows(), Dtype::F32);
    out.scale.set(x.scale.get());
    if !extent.has_lora {
        return;
    }
    let processors = cx.device.processors;
    let prefill = (x.dtype, extent.pieces > 2 * processors) == (Dtype::Bf16, true);
    let groups = extent.pieces.div_ceil(if prefill { PREFILL_PIECES } else { 1 });
    let inputs = x.cols as u32;
    let few = is_few(x.rows.bound);
    let runs = if few { inputs.div_ceil(RUN_INPUTS) } else { 1 };
    let run_inputs = if runs > 1 { RUN_INPUTS } else { inputs };
    if runs > 1 {
        let room = cx.meeting.reserve(FEW_ROWS * chunks as usize, runs as usize);
        room.expect("memory for partial sums");
    }
    let arguments = Arguments {
        x: x.data.address(),
        out: out.data.address(),
        partials: cx.meeting.partials.address(),
        arrivals: cx.meeting.counters.address() + 4,
        run_inputs,
        runs,
        taken: cx.meeting.counters.address(),
        inputs,
        cols: out.cols as u32,
        layer: layer as u32,
        site: site as u32,
        chunks,
        is_late: u32::from(cx.multiplied == Some(x.data.address())),
    };
    let parameters =
        Parameters::default().with(cx.step.view()).with(cx.adapters.view()).with(arguments);
    let kernel = kernel(x.dtype, cx.pool.shape().dtype, prefill);
    // Those without an item bring near what the expand needs.
    let blocks = groups * chunks * runs + extent.pieces.div_ceil(THREADS / 32);
    let grid = Grid::flat(blocks.min(2 * processors), THREADS);
    // SAFETY: the parameters are `Step`, `Adapters` and `Arguments`; `x` and `out` hold the step's
    // rows, a row of `out` has room for the ranks of every bound adapter, the inputs of its
    // tiles are columns of `x` (asserted where adapters are admitted), and there is room for what
    // the runs of the step's chunks leave.
    unsafe { cx.launch(("shrink", kernel), grid, parameters) };
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
