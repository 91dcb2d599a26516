//! How a product of few rows is spread over the device.

use super::{
    super::super::{launch::Grid, low_rank::Shrinkers},
    Epilogue,
};
use crate::lora::{A_TILE_INPUTS, RANK_CHUNK};

/// Bytes of shared memory for the stages of a block: of two on a multiprocessor, and of one.
const ROOM_OF_TWO: u32 = 102 << 10;
const ROOM_OF_ONE: u32 = 208 << 10;
/// Inputs of a chunk.
const CHUNK: u32 = 64;
/// Inputs of the longest stage.
const STAGE_INPUTS: u32 = 2 * CHUNK;
/// Bytes of two `LowRankItems` (`low_rank_list.cuh`), at the most.
const fn low_rank_lists(tokens: u32) -> u32 {
    let seats = match tokens {
        0..=32 => 64,
        33..=64 => 128,
        more => more,
    };
    2 * (seats * (16 + 8 + 32 + 1) + 24 * 8 + 16)
}
/// A part of all places that is kept for blocks that shrink.
const SHRINKERS_MIN: u32 = 8;
/// Of tiles of `A` (`low_rank_shrink.cuh`): what is worth a block, and bytes of one.
const UNITS_OF_BLOCK: u32 = 2;
const UNIT_BYTES: u32 = (RANK_CHUNK * A_TILE_INPUTS * size_of::<u16>()) as u32;
/// Of gate and up: a chunk each.
const FEW_RANKS: u32 = 32;
/// Outputs of the lowest tile.
const LOW: u32 = 64;
/// Rows of `x` that kernels are made for.
pub(super) const TOKENS: [u32; 5] = [8, 32, 64, 96, 128];
/// Blocks that may share the inputs of a tile.
const SPLITS: [u32; 4] = [6, 3, 2, 1];

/// `Tiling` of `product.cuh`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tiling {
    /// Outputs of a block.
    pub(super) rows: u32,
    /// Rows of `x` of a block.
    pub(super) tokens: u32,
    /// Blocks that share the rows of `x`: what a block does for each row by one warp, for its low
    /// ranks, takes half as long where these are two.
    pub(super) row_blocks: u32,
    /// Blocks that share the inputs. The order of a sum depends on it, so it must not depend on
    /// how many rows `x` has.
    pub(super) splits: u32,
    /// Blocks of a multiprocessor.
    pub(super) per_processor: u32,
    /// Chunks of a stage.
    pub(super) chunks: u32,
}

impl Tiling {
    /// The choices that were fastest on an H200 in whole chains of products of an 8B and a 1.1B
    /// Llama at 8, 32, 64, 96 and 128 rows, within a percent or two; the tests name them. Low tiles
    /// spread weights evenly; high ones read x less often, which counts with many rows. `ranks`: of
    /// a row's adapter at the site, at the most; 0 without.
    pub(super) fn new(
        epilogue: Epilogue,
        rows: u32,
        [outputs, inputs]: [u32; 2],
        processors: u32,
        ranks: u32,
    ) -> Self {
        let tokens = TOKENS.into_iter().find(|&tokens| tokens >= rows).expect("few rows");
        let splits = splits(epilogue, [outputs, inputs], processors);
        let fits_low = outputs.div_ceil(LOW) <= 2 * processors;
        let many = tokens == 128 && ranks > 0;
        let shares_rows = match epilogue {
            Epilogue::Gated => fits_low && (many || tokens > 8 && ranks > FEW_RANKS),
            Epilogue::Plain => splits > 1 && many,
            Epilogue::Residual => false,
        };
        let (rows, per_processor) = match epilogue {
            _ if shares_rows => (128, 2),
            Epilogue::Residual if tokens > 64 && splits == 3 => (128, 1),
            Epilogue::Gated if !fits_low && tokens > 64 => (256, 1),
            Epilogue::Gated if !fits_low => (128, 2),
            Epilogue::Plain if splits == 1 && !fits_low && tokens <= 32 => (128, 2),
            Epilogue::Plain if splits == 1 && !fits_low => (256, 1),
            _ => (LOW, 2),
        };
        let deep = rows == LOW && tokens == 8;
        let row_blocks = if shares_rows { 2 } else { 1 };
        let (tokens, chunks) = (tokens / row_blocks, if deep { 2 } else { 1 });
        Self { rows, tokens, row_blocks, splits, per_processor, chunks }
    }

    /// Which of [`TOKENS`] its kernel is made for.
    pub(super) fn of_tokens(self) -> u32 {
        self.tokens * self.row_blocks
    }

    /// Its kernel.
    pub(super) fn kernel(self, operation: &str) -> String {
        let Self { rows, tokens, splits, per_processor, chunks, .. } = self;
        format!("{operation}_{rows}_{tokens}_{splits}_{per_processor}_{chunks}")
    }

    /// `THREADS` of the kernels' `Tiling`, and shared memory: the stages, what `Board` has for
    /// them, and with adapters lists of items. With `processors` blocks take tiles in turn.
    pub(super) fn grid(self, outputs: u32, processors: Option<u32>, has_lora: bool) -> Grid {
        let Self { rows, tokens, row_blocks, splits, per_processor, chunks } = self;
        let room = if per_processor == 1 { ROOM_OF_ONE } else { ROOM_OF_TWO };
        let (weights, inputs) = (chunks * rows * CHUNK * 2, chunks * tokens * CHUNK * 2);
        let stages = (room / (weights + inputs)).min(8);
        let bytes = stages * (weights + inputs);
        // `B_STAGES` of the kernels, at the most: `B` has places of `x` too where rows are many.
        let places = if has_lora && tokens == 128 { bytes / weights } else { stages };
        let lists = if has_lora { low_rank_lists(tokens) } else { 0 };
        let board = 16 * places + 352 + 4 * tokens;
        // What blocks of a cluster push to each other: `PUSHED_BYTES`.
        let pushes = splits > 1 && (tokens == 8 || tokens == 32 && !has_lora);
        let pushed = if pushes { splits * tokens.div_ceil(splits) * (rows + 4) * 4 } else { 0 };
        let shared = bytes + pushed + board + lists;
        let tiles = outputs.div_ceil(rows);
        let blocks = match processors {
            Some(processors) if splits == 1 => tiles.min(processors * per_processor),
            _ => tiles * row_blocks * splits,
        };
        let warpgroups = if rows >= 128 { 2 } else { 1 };
        let threads = warpgroups * 128 + 64;
        Grid { blocks: [blocks, 1, 1], threads, shared, cluster: splits }
    }
}

impl Tiling {
    /// `SHRINKS` of the kernels.
    fn may_all_shrink(self) -> bool {
        let Self { tokens, row_blocks, splits, .. } = self;
        tokens == 128 || tokens >= 32 && row_blocks == 1 && splits > 1
    }

    /// Which blocks shrink beside those of `grid`, if there are so many units at the most: whole
    /// clusters of them, as many as there is room for at a time, and are of use. Those with outputs
    /// too where the others would end after them; two clusters fewer do nothing else then, so that
    /// the last ones find their places at once. `places`: blocks that the device holds.
    pub(super) fn shrinkers(self, units: u32, inputs: u32, grid: Grid, places: u32) -> Shrinkers {
        let useful = units.div_ceil(UNITS_OF_BLOCK);
        let within = |room: u32| (useful.min(room) / self.splits).max(1) * self.splits;
        let room = places.saturating_sub(grid.blocks[0]).max(places / SHRINKERS_MIN);
        let only = within(room);
        let blocks = grid.blocks[0] + only;
        let of_weights = inputs / self.splits * self.rows * 2 / UNIT_BYTES;
        let would_end_last = units >= only * of_weights + blocks;
        // Blocks wait for each other's low ranks: only where none can wait for a place.
        if self.may_all_shrink() && would_end_last && blocks <= places {
            Shrinkers { only: within(room.saturating_sub(2 * self.splits)), all: 1 }
        } else {
            Shrinkers { only, all: 0 }
        }
    }
}

/// As many as bring the blocks of the lowest tiles near one and a half to a processor.
fn splits(epilogue: Epilogue, [outputs, inputs]: [u32; 2], processors: u32) -> u32 {
    if epilogue == Epilogue::Gated {
        return 1;
    }
    let most = (processors * 3 / 2 / outputs.div_ceil(LOW)).min(inputs.div_ceil(STAGE_INPUTS));
    SPLITS.into_iter().find(|&splits| splits <= most).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::{
        super::{super::super::compiler::Source, GATED, Modules, RESIDUAL, SUMS},
        *,
    };

    const H200: u32 = 132;

    /// Measured on an H200: (outputs, inputs), splits, tile rows by [`TOKENS`].
    const FASTEST: [(Epilogue, [u32; 2], u32, [u32; 5]); 10] = [
        (Epilogue::Plain, [6144, 4096], 2, [64; 5]),
        (Epilogue::Residual, [4096, 4096], 3, [64, 64, 64, 128, 128]),
        (Epilogue::Gated, [28672, 4096], 1, [128, 128, 128, 256, 256]),
        (Epilogue::Residual, [4096, 14336], 3, [64, 64, 64, 128, 128]),
        (Epilogue::Plain, [128_256, 4096], 1, [128, 128, 256, 256, 256]),
        (Epilogue::Plain, [2560, 2048], 3, [64; 5]),
        (Epilogue::Residual, [2048, 2048], 6, [64; 5]),
        (Epilogue::Gated, [11264, 2048], 1, [64; 5]),
        (Epilogue::Residual, [2048, 5632], 6, [64; 5]),
        (Epilogue::Plain, [32000, 2048], 1, [128, 128, 256, 256, 256]),
    ];

    #[test]
    fn shapes_of_models_get_what_was_measured() {
        for (epilogue, shape, splits, heights) in FASTEST {
            for (tokens, rows) in TOKENS.into_iter().zip(heights) {
                let tiling = Tiling::new(epilogue, tokens, shape, H200, 0);
                assert_eq!((tiling.rows, tiling.splits), (rows, splits), "{shape:?} {tokens}");
                assert_eq!(Tiling::new(epilogue, tokens - 3, shape, H200, 0), tiling);
            }
        }
    }

    #[test]
    fn two_blocks_share_many_rows_with_adapters() {
        let tiles = |epilogue, outputs, rows, has_lora| {
            let ranks = if has_lora { 16 } else { 0 };
            let tiling = Tiling::new(epilogue, rows, [outputs, 2048], H200, ranks);
            let blocks = tiling.grid(outputs, None, has_lora).blocks[0];
            ([tiling.rows, tiling.tokens, tiling.row_blocks], blocks)
        };
        let gated = |outputs, rows, has_lora| tiles(Epilogue::Gated, outputs, rows, has_lora);
        assert_eq!(gated(11264, 97, true), ([128, 64, 2], 2 * 88));
        assert_eq!(gated(11264, 128, false), ([64, 128, 1], 176));
        assert_eq!(gated(11264, 96, true), ([64, 96, 1], 176));
        assert_eq!(gated(28672, 128, true), ([256, 128, 1], 112));
        assert_eq!(tiles(Epilogue::Plain, 2560, 128, true), ([128, 64, 2], 20 * 2 * 3));
        assert_eq!(tiles(Epilogue::Plain, 2560, 128, false), ([64, 128, 1], 40 * 3));
        assert_eq!(tiles(Epilogue::Residual, 2048, 128, true), ([64, 128, 1], 32 * 6));
    }

    /// The modules that have the kernels, by epilogue.
    const KERNELS: [(Epilogue, Modules); 3] =
        [(Epilogue::Plain, SUMS), (Epilogue::Gated, GATED), (Epilogue::Residual, RESIDUAL)];

    /// What of a module's source is compiled.
    fn compiled(module: Source, tokens: u32) -> &'static str {
        assert!(module.text.starts_with(&format!("#define OF_TOKENS {tokens}\n")));
        let (_, begun) = module.text.split_once(&format!("if OF_TOKENS == {tokens}\n")).unwrap();
        begun.split_once("\n#e").unwrap().0
    }

    fn assert_has_kernel(modules: Modules, tiling: Tiling, has_lora: bool) {
        let Tiling { rows, tokens, splits, per_processor, chunks, .. } = tiling;
        let of_tokens = TOKENS.iter().position(|&of| of == tiling.of_tokens()).unwrap();
        let module = modules[of_tokens][usize::from(has_lora)];
        let kernels = compiled(module, tiling.of_tokens());
        let kernel = format!("KERNEL({rows}, {tokens}, {splits}, {per_processor}, {chunks})");
        let marked = if has_lora { "LORA_" } else { "BASE_" };
        let listed = |line: &str| line == kernel || line == format!("{marked}{kernel}");
        assert!(kernels.lines().any(listed), "{} {kernel}", module.name);
    }

    /// Splits depend on neither rows nor adapters, a split has inputs, the kernel exists, and
    /// blocks fit a processor.
    #[test]
    fn any_shape_gets_a_tiling_that_has_a_kernel() {
        for (epilogue, modules) in KERNELS {
            for (outputs, inputs) in (16..40_000)
                .step_by(464)
                .flat_map(|outputs| (64..8192).step_by(448).map(move |inputs| (outputs, inputs)))
            {
                let shape = [outputs, inputs];
                let splits = Tiling::new(epilogue, 1, shape, H200, 0).splits;
                assert!(inputs.div_ceil(STAGE_INPUTS) >= splits);
                for rows in [1, 8, 9, 31, 33, 64, 65, 96, 97, 128] {
                    for ranks in [0, 16, 64] {
                        let has_lora = ranks > 0;
                        let tiling = Tiling::new(epilogue, rows, shape, H200, ranks);
                        assert!(tiling.of_tokens() >= rows && tiling.splits == splits);
                        assert_has_kernel(modules, tiling, has_lora);
                        let grid = tiling.grid(outputs, Some(H200), has_lora);
                        assert!((grid.shared + 1024) * tiling.per_processor <= 228 << 10);
                        assert_eq!(grid.blocks[0] % splits, 0);
                        assert_shrinkers_fit(tiling, inputs, grid);
                    }
                }
            }
        }
    }

    fn assert_shrinkers_fit(tiling: Tiling, inputs: u32, grid: Grid) {
        for units in [0, 1, 100, 10_000] {
            let places = H200 * tiling.per_processor;
            let only = tiling.shrinkers(units, inputs, grid, places).only;
            assert!(only >= tiling.splits && only.is_multiple_of(tiling.splits));
            assert!(only <= units.max(tiling.splits));
        }
    }

    #[test]
    fn all_blocks_shrink_where_some_would_end_last() {
        let shrinkers = |rows, units, places| {
            let tiling = Tiling::new(Epilogue::Residual, rows, [2048, 5632], H200, 16);
            tiling.shrinkers(units, 5632, tiling.grid(2048, None, true), places)
        };
        assert_eq!(shrinkers(32, 20, 234), Shrinkers { only: 6, all: 0 });
        assert_eq!(shrinkers(32, 32 * 11, 234), Shrinkers { only: 42, all: 0 });
        assert_eq!(shrinkers(32, 32 * 8 * 11, 234), Shrinkers { only: 30, all: 1 });
        assert_eq!(shrinkers(128, 128 * 11, 234), Shrinkers { only: 30, all: 1 });
        assert_eq!(shrinkers(8, 8 * 8 * 11, 234), Shrinkers { only: 42, all: 0 });
        assert_eq!(
            shrinkers(32, 32 * 8 * 11, 200),
            Shrinkers { only: 24, all: 0 },
            "some would wait"
        );
    }
}
