//! Products of few rows on Hopper: the launch contract of `matmul_decode.cuh`, and how each shape
//! is spread over the device.
//!
//! Such a product is deferred: its reader says what becomes of it.

mod tiling;

use std::sync::Arc;

use super::super::{
    Context, Matrix, Tensor,
    compiler::Source,
    deferred::Deferred,
    device::Device,
    expand::Ending,
    launch::{Parameter, Parameters},
    low_rank::{self, LowRankView},
    memory::DeviceBuffer,
    tensor::{RowScale, Rows},
    tensor_map::{BOX_COLUMNS, TensorMap},
};
use crate::Dtype;
use tiling::{TOKENS, Tiling};

/// A source by [`TOKENS`], for rows without adapters and for rows with them: modules that compile
/// side by side.
macro_rules! modules {
    ($name:literal, $text:literal) => {
        [
            modules!($name, $text, 8),
            modules!($name, $text, 32),
            modules!($name, $text, 64),
            modules!($name, $text, 96),
            modules!($name, $text, 128),
        ]
    };
    ($name:literal, $text:literal, $tokens:literal) => {
        [modules!($name, $text, $tokens, "", false), modules!($name, $text, $tokens, "_lora", true)]
    };
    ($name:literal, $text:literal, $tokens:literal, $lora:literal, $has_lora:literal) => {
        Source {
            name: concat!($name, "_", $tokens, $lora),
            text: concat!(
                "#define OF_TOKENS ",
                $tokens,
                "\n#define HAS_LORA ",
                $has_lora,
                "\n",
                include_str!($text),
            ),
        }
    };
}
type Modules = [[Source; 2]; TOKENS.len()];
pub(in crate::cuda) const SUMS: Modules = modules!("matmul_sums", "../matmul_sums.cu");
pub(in crate::cuda) const GATED: Modules = modules!("matmul_gated", "../matmul_gated.cu");
pub(in crate::cuda) const RESIDUAL: Modules = modules!("matmul_residual", "../matmul_residual.cu");

/// Rows that the way takes.
pub(in crate::cuda) const ROWS_MAX: usize = 128;
/// Weights that one copy brings, `BOX_ROWS` of the kernels.
const WEIGHT_BOX: usize = 64;

/// How the kernels copy a matrix `[outputs, inputs]`.
pub(in crate::cuda) struct WeightsMap {
    plain: TensorMap,
    /// With eights of the first half and of the second in turn, where they are whole.
    gated: Option<TensorMap>,
}

/// Whether there are kernels for products of so many inputs, low ranks too.
pub(in crate::cuda) fn takes(device: &Device, inputs: usize) -> bool {
    let fits = inputs > 0 && inputs.is_multiple_of(BOX_COLUMNS) && inputs <= low_rank::INPUTS_MAX;
    device.arch == "sm_90a" && fits
}

/// How the kernels copy a matrix, if they take products with it: bf16 `[outputs, inputs]`.
pub(in crate::cuda) fn weights_map(
    device: &Device,
    data: &DeviceBuffer,
    dtype: Dtype,
    [outputs, inputs]: [usize; 2],
) -> Option<WeightsMap> {
    let fits = outputs > 0 && outputs % 8 == 0 && takes(device, inputs);
    (dtype == Dtype::Bf16 && fits).then(|| WeightsMap {
        plain: TensorMap::new(data.address(), data.len(), [outputs, inputs], WEIGHT_BOX),
        gated: (outputs % 16 == 0).then(|| TensorMap::gated(data, [outputs, inputs], WEIGHT_BOX)),
    })
}

/// What becomes of a product, `Epilogue` of `product.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Epilogue {
    Plain,
    Gated,
    Residual,
}

/// `Product` of `matmul_decode.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
struct ProductView {
    out: u64,
    bias: u64,
    squares: u64,
    residual: u64,
    weight: u64,
    squares_out: u64,
    low_rank: LowRankView,
    rows: u32,
    inputs: u32,
    outputs: u32,
    eps: f32,
}

// SAFETY: the layout of `Product` in `matmul_decode.cuh`.
unsafe impl Parameter for ProductView {}

/// `y = x w^T` for few rows, not yet queued. What it names outlives it: see [`Deferred`].
#[derive(Clone)]
pub(in crate::cuda) struct Product {
    map: Arc<WeightsMap>,
    /// `x` `[rows, inputs]` in bf16, and the bytes that its tensor has.
    x: u64,
    x_bytes: usize,
    x_scale: Option<RowScale>,
    rows: Rows,
    outputs: usize,
    inputs: usize,
}

/// Defers `y = x w^T`: `x` `[rows, in]` and `w` `[out, in]` bf16, `rows` at most [`ROWS_MAX`].
pub(super) fn defer(x: &Tensor, (w, map): (&Matrix, &Arc<WeightsMap>), y: &mut Tensor) {
    assert!((1..=ROWS_MAX).contains(&x.rows.bound), "few rows");
    assert_eq!((x.dtype, w.dtype), (Dtype::Bf16, Dtype::Bf16));
    y.become_rows(x.rows, Dtype::F32);
    y.deferred.set(Deferred::Product(Product {
        map: Arc::clone(map),
        x: x.data.address(),
        x_bytes: x.data.len(),
        x_scale: x.scale.get(),
        rows: x.rows,
        outputs: w.rows,
        inputs: w.cols,
    }));
}

impl Product {
    /// Where its activations lie.
    pub(in crate::cuda) fn x(&self) -> u64 {
        self.x
    }

    /// Whether [`Self::queue_gated`] takes it.
    pub(in crate::cuda) fn takes_gate(&self) -> bool {
        self.map.gated.is_some()
    }

    /// Queues the product as it is: `y` `[rows, outputs]` in f32, with what `ending` adds.
    pub(in crate::cuda) fn queue(self, cx: &mut Context, ending: &Ending, y: &Tensor) {
        self.assert_fits(y, self.outputs);
        self.launch(cx, Epilogue::Plain, self.view(ending, y));
    }

    /// Queues `out = silu(gate) * up` of the product, gate then up: `out` `[rows, outputs / 2]`.
    pub(in crate::cuda) fn queue_gated(self, cx: &mut Context, ending: &Ending, out: &Tensor) {
        self.assert_fits(out, self.outputs / 2);
        self.launch(cx, Epilogue::Gated, self.view(ending, out));
    }

    /// Queues `residual += product` and `out = residual * weight`, all `[rows, outputs]`, where
    /// `out` has yet to be divided by the root mean square of its residual: its scale.
    pub(in crate::cuda) fn queue_residual(
        self,
        cx: &mut Context,
        ending: &Ending,
        (weight, eps): (u64, f32),
        [residual, out]: [&Tensor; 2],
    ) {
        self.assert_fits(residual, self.outputs);
        self.assert_fits(out, self.outputs);
        let squares = out.squares.address();
        let view = ProductView {
            residual: residual.data.address(),
            weight,
            squares_out: squares,
            ..self.view(ending, out)
        };
        self.launch(cx, Epilogue::Residual, view);
        out.scale.set(Some(RowScale { squares, residuals: self.outputs as u32, eps }));
    }

    fn assert_fits(&self, tensor: &Tensor, cols: usize) {
        assert_eq!((tensor.rows.live, tensor.cols), (self.rows.live, cols), "what it becomes");
        assert!(self.rows.bound * cols * 4 <= tensor.data.len(), "room for its rows");
    }

    fn view(&self, ending: &Ending, out: &Tensor) -> ProductView {
        ProductView {
            out: out.data.address(),
            bias: ending.bias,
            squares: self.x_scale.map_or(0, |scale| scale.squares),
            residual: 0,
            weight: 0,
            squares_out: 0,
            low_rank: ending.low_rank,
            rows: self.rows.bound as u32,
            inputs: self.inputs as u32,
            outputs: self.outputs as u32,
            eps: self.x_scale.map_or(0.0, |scale| scale.eps),
        }
    }

    /// How blocks copy the activations. Copies that reach past a matrix take longer, so the map has
    /// all rows that the kernel is made for, if the tensor has: what lies there becomes sums that
    /// nobody writes.
    fn activations_map(&self, tiling: Tiling) -> TensorMap {
        let room = self.x_bytes / (self.inputs * size_of::<u16>());
        let rows = self.rows.bound.max(room.min(tiling.of_tokens() as usize));
        TensorMap::new(self.x, self.x_bytes, [rows, self.inputs], tiling.tokens as usize)
    }

    fn launch(&self, cx: &mut Context, epilogue: Epilogue, mut view: ProductView) {
        let has_lora = !view.low_rank.is_none();
        let ProductView { rows, inputs, outputs, .. } = view;
        let processors = cx.device.processors;
        let tiling =
            Tiling::new(epilogue, rows, [outputs, inputs], processors, view.low_rank.ranks);
        let map = match epilogue {
            Epilogue::Gated => self.map.gated.expect("whole eights of gate and up"),
            Epilogue::Plain | Epilogue::Residual => self.map.plain,
        };
        let x = self.activations_map(tiling);
        // A block with adapters has one tile.
        let is_persistent = epilogue == Epilogue::Plain && !has_lora;
        let mut grid = tiling.grid(outputs, is_persistent.then_some(processors), has_lora);
        let (modules, operation) = match epilogue {
            Epilogue::Plain => (SUMS, "matmul_sums"),
            Epilogue::Gated => (GATED, "matmul_gated"),
            Epilogue::Residual => (RESIDUAL, "matmul_residual"),
        };
        let of_tokens = TOKENS.iter().position(|&tokens| tokens == tiling.of_tokens());
        let module = modules[of_tokens.expect("a tiling's tokens")][usize::from(has_lora)];
        let kernel = tiling.kernel(operation);
        if has_lora {
            let places = cx.modules.resident((module.name, &kernel), grid, processors);
            let shrinkers = tiling.shrinkers(view.low_rank.units, inputs, grid, places);
            grid.blocks[0] += shrinkers.only;
            view.low_rank.shrinkers = shrinkers;
        }
        let parameters = Parameters::default().with(map).with(x).with(cx.step.view()).with(view);
        // SAFETY: the kernels' parameters in order; the maps are those of `w`, in boxes of 64 rows,
        // and of `x`, in boxes of `tokens` rows. `weights_map` has seen to whole chunks of inputs
        // and groups of outputs, and `Tiling` to a stage per split and the grid; what is written
        // has room for its rows (asserted by `become_rows`), and allocations start at 256-byte
        // boundaries.
        unsafe { cx.launch((module.name, &kernel), grid, parameters) };
    }
}
