//! Products of few rows on Hopper: the launch contract of `matmul_decode.cu`, and how each shape
//! is spread over the device.

use super::super::{
    Context, Matrix, Tensor,
    device::Device,
    launch::{Grid, Parameters},
    memory::DeviceBuffer,
    tensor_map::{BOX_COLUMNS, TensorMap},
};
use crate::Dtype;

/// Rows that the way takes.
pub(in crate::cuda) const ROWS_MAX: usize = 128;
/// Weights that one copy brings, `BOX_ROWS` of the kernel.
const WEIGHT_BOX: usize = 64;
/// Blocks that share the inputs of a tile where outputs are few.
const SPLITS: u32 = 4;
/// Inputs that are worth splitting.
const SPLIT_INPUTS: u32 = 512;

/// How the kernel copies a matrix, if it takes products with it: bf16 `[outputs, inputs]`.
pub(in crate::cuda) fn weights_map(
    device: &Device,
    data: &DeviceBuffer,
    dtype: Dtype,
    [outputs, inputs]: [usize; 2],
) -> Option<TensorMap> {
    let fits = outputs > 0 && inputs > 0 && outputs % 8 == 0 && inputs % BOX_COLUMNS == 0;
    let takes = device.arch == "sm_90a" && dtype == Dtype::Bf16 && fits;
    takes.then(|| TensorMap::new(data, [outputs, inputs], WEIGHT_BOX))
}

/// How a product is spread over the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tiling {
    /// Outputs of a block.
    rows: u32,
    /// Rows of `x`, rounded up.
    tokens: u32,
    /// Blocks that share the inputs. The order of a sum depends on it, so it must not depend on
    /// how many rows `x` has.
    splits: u32,
}

impl Tiling {
    /// The choices that were fastest on an H200 for the products of an 8B and a 1.1B Llama at 8,
    /// 32, 64 and 128 rows, within a few percent; the tests name them. Tiles are high while the
    /// blocks still cover the device, as x is read once per tile.
    fn new(rows: u32, [outputs, inputs]: [u32; 2], processors: u32) -> Self {
        let tokens = rows.next_power_of_two().max(8);
        let wide = if tokens == 128 { 256 } else { 128 };
        let tiles = outputs.div_ceil(128);
        if 2 * tiles >= processors || inputs < SPLIT_INPUTS {
            let few = tokens >= 64 && tiles < processors;
            return Self { rows: if few { 64 } else { wide }, tokens, splits: 1 };
        }
        let blocks = outputs.div_ceil(64) * SPLITS;
        let room = if tokens <= 16 { 2 * processors } else { processors * 3 / 2 };
        Self { rows: if blocks <= room { 64 } else { wide }, tokens, splits: SPLITS }
    }

    /// `THREADS`, `PER_PROCESSOR` and the shared memory of the kernel's `Tiling`: stages of 64
    /// inputs, two barriers for each, and what aligning them to 1024 bytes takes.
    fn grid(self, outputs: u32, processors: u32) -> Grid {
        let warpgroups = if self.rows >= 128 { 2 } else { 1 };
        let (per_processor, room) = if self.rows >= 256 { (1, 208 << 10) } else { (2, 105 << 10) };
        let stage = (self.rows + self.tokens) * BOX_COLUMNS as u32 * 2;
        let stages = (room / stage).min(8);
        let tiles = outputs.div_ceil(self.rows);
        let blocks = match self.splits {
            1 => tiles.min(processors * per_processor),
            splits => tiles * splits,
        };
        Grid {
            blocks: [blocks, 1, 1],
            threads: warpgroups * 128 + 32,
            shared: stages * (stage + 16) + 1024,
            cluster: self.splits,
        }
    }
}

/// `y = x w^T` in f32: `x` `[rows, in]` and `w` `[out, in]` bf16, `rows` at most [`ROWS_MAX`].
pub(super) fn multiply(
    cx: &mut Context,
    x: &Tensor,
    (w, map): (&Matrix, &TensorMap),
    y: &mut Tensor,
) {
    assert!((1..=ROWS_MAX).contains(&x.rows.bound), "few rows");
    assert_eq!((x.dtype, w.dtype), (Dtype::Bf16, Dtype::Bf16));
    y.become_rows(x.rows, Dtype::F32);
    let [rows, inputs, outputs] = [x.rows.bound, w.cols, w.rows].map(|n| n as u32);
    let processors = cx.device.processors;
    let tiling = Tiling::new(rows, [outputs, inputs], processors);
    let Tiling { rows: tile_rows, tokens, splits } = tiling;
    let kernel = format!("matmul_decode_{tile_rows}_{tokens}_{splits}");
    let parameters = Parameters::default()
        .with(*map)
        .with(TensorMap::new(&x.data, [x.rows.bound, x.cols], tokens as usize))
        .with(y.data.address())
        .with(rows)
        .with(inputs)
        .with(outputs);
    let grid = tiling.grid(outputs, processors);
    // SAFETY: the kernel's parameters in order; the maps are those of `w`, in boxes of 64 rows, and
    // of `x`, in boxes of `tokens` rows. `weights_map` has seen to whole chunks of inputs and
    // groups of outputs, and `Tiling` to a chunk per split and the grid; `y` has room for
    // `[rows, outputs]` in f32, and allocations start at 256-byte boundaries.
    unsafe { cx.launch((super::DECODE.name, &kernel), grid, parameters) };
}

#[cfg(test)]
mod tests {
    use super::Tiling;

    const H200: u32 = 132;

    /// Measured on an H200: (outputs, inputs), splits, tile rows at 8, 32, 64 and 128 rows.
    const FASTEST: [([u32; 2], u32, [u32; 4]); 10] = [
        ([6144, 4096], 4, [128, 128, 128, 256]),
        ([4096, 4096], 4, [64, 128, 128, 256]),
        ([28672, 4096], 1, [128, 128, 128, 256]),
        ([4096, 14336], 4, [64, 128, 128, 256]),
        ([128_256, 4096], 1, [128, 128, 128, 256]),
        ([2560, 2048], 4, [64; 4]),
        ([2048, 2048], 4, [64; 4]),
        ([11264, 2048], 1, [128, 128, 64, 64]),
        ([2048, 5632], 4, [64; 4]),
        ([32000, 2048], 1, [128, 128, 128, 256]),
    ];

    #[test]
    fn shapes_of_models_get_what_was_measured() {
        for (shape, splits, heights) in FASTEST {
            for (tokens, rows) in [8, 32, 64, 128].into_iter().zip(heights) {
                let expected = Tiling { rows, tokens, splits };
                assert_eq!(Tiling::new(tokens, shape, H200), expected, "{shape:?}");
                assert_eq!(Tiling::new(tokens - 3, shape, H200), expected, "{shape:?}");
            }
        }
    }

    /// Splits don't depend on the rows, a split has inputs, and blocks fit a processor.
    #[test]
    fn any_shape_gets_a_tiling_that_the_kernel_has() {
        for outputs in (8..20_000).step_by(232) {
            for inputs in (64..8192).step_by(448) {
                let splits = Tiling::new(1, [outputs, inputs], H200).splits;
                assert!(inputs / 64 >= splits);
                for rows in 1..=128 {
                    let tiling = Tiling::new(rows, [outputs, inputs], H200);
                    let heights = if tiling.tokens == 128 { [64, 256] } else { [64, 128] };
                    assert!([8, 16, 32, 64, 128].contains(&tiling.tokens) && tiling.tokens >= rows);
                    assert!(heights.contains(&tiling.rows) && tiling.splits == splits);
                    let grid = tiling.grid(outputs, H200);
                    let per_processor = if tiling.rows == 256 { 1 } else { 2 };
                    assert!((grid.shared + 1024) * per_processor <= 228 << 10);
                    assert_eq!(grid.blocks[0] % splits, 0);
                }
            }
        }
    }
}
