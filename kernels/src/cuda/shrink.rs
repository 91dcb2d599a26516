//! The first half of a LoRA product, activations to ranks: by blocks of the product itself where
//! its rows are few (`low_rank_shrink.cuh`), and by itself for all others (`shrink.cu`).

use std::sync::Arc;

use super::{
    Context, Grid, Parameters, Tensor, compiler::Source, deferred::Deferred, device::Device,
    launch::Parameter, matmul, memory::DeviceBuffer,
};
use crate::{DeviceError, Dtype, Site};

pub(super) const SOURCE: Source = Source { name: "shrink", text: include_str!("shrink.cu") };

/// Of a block.
const THREADS: u32 = 256;
/// Bytes of a piece, and of a chunk, in a stage.
const LINES_BYTES: u32 = 16 * 256;

/// `Shape` of `shrink_tensor.cuh`.
struct Shape {
    /// Consecutive pieces of one adapter that share a pass over its tiles.
    pieces: u32,
    /// Chunks that share a pass over `x`.
    chunks: u32,
    stages: u32,
    /// Blocks of a multiprocessor.
    resident: u32,
}
/// For as many items as there can be: of few pieces.
const FEW: Shape = Shape { pieces: 1, chunks: 1, stages: 8, resident: 3 };
/// Of a batch of many.
const PREFILL: Shape = Shape { pieces: 4, chunks: 3, stages: 3, resident: 1 };

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

/// How many items the blocks of a kernel have taken; zero between kernels.
pub(super) struct Taken(DeviceBuffer);

impl Taken {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let mut count = DeviceBuffer::new(device, 4, "items taken by shrink")?;
        count.write(0, &[0; 4]);
        Ok(Self(count))
    }
}

/// `out = scale * x A^T`, not yet queued. What it names outlives it: see [`Deferred`].
#[derive(Clone, Copy)]
pub(super) struct Shrink {
    /// `[rows, inputs]`, the step's rows.
    pub(super) x: u64,
    dtype: Dtype,
    pub(super) inputs: usize,
    pub(super) layer: usize,
    pub(super) site: Site,
}

/// `out = scale * x A^T` for the linears of a site, by each row's own adapter: `x` `[rows, in]`,
/// `out` `[rows, cols]` in f32, of which a row's ranks are written. Deferred where the product of
/// `x` can make it.
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
    let shrink = Shrink { x: x.data.address(), dtype: x.dtype, inputs: x.cols, layer, site };
    if matmul::waits(cx, x) && !size.is_odd {
        out.deferred.set(Deferred::Shrink(shrink));
    } else {
        shrink.queue(cx, out);
    }
}

impl Shrink {
    /// Queues it by itself.
    pub(super) fn queue(self, cx: &mut Context, out: &Tensor) {
        let Self { x, dtype, inputs, layer, site } = self;
        let chunks = cx.adapters.most(layer, site).chunks;
        let (pieces, processors) = (cx.step.extent.pieces, cx.device.processors);
        let prefill = (dtype, pieces > 2 * processors) == (Dtype::Bf16, true);
        let arguments = Arguments {
            x,
            out: out.data.address(),
            taken: cx.taken.0.address(),
            inputs: inputs as u32,
            cols: out.cols as u32,
            layer: layer as u32,
            site: site as u32,
            chunks,
            padding: 0,
        };
        let parameters =
            Parameters::default().with(cx.step.view()).with(cx.adapters.view()).with(arguments);
        let kernel = kernel(dtype, cx.pool.shape().dtype, prefill);
        let shape = if prefill { PREFILL } else { FEW };
        let items = pieces.div_ceil(shape.pieces) * chunks.div_ceil(shape.chunks);
        let blocks = items.clamp(1, shape.resident * processors);
        let shared = match dtype {
            Dtype::Bf16 => shape.stages * (shape.pieces + shape.chunks) * LINES_BYTES,
            _ => 0,
        };
        let grid = Grid { shared, ..Grid::flat(blocks, THREADS) };
        // SAFETY: the parameters of `shrink.cu`; `x` and `out` hold the step's rows, a row of `out`
        // has room for the ranks of every bound adapter, and the inputs of its tiles are columns of
        // `x` (asserted where adapters are admitted). Nobody else uses the count of items taken.
        unsafe { cx.launch((SOURCE.name, kernel), grid, parameters) };
    }
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
