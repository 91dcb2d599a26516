//! Products on the AMX tile unit: 16 weight rows by 16 activation rows by 32 columns a time.
//!
//! Weight rows are tile A as they lie in memory; only the activations are repacked, to pairs of
//! columns (tile B). A result is the same whatever tile position its row has, and rows that do
//! not fill a tile are padded with zeros, so one row costs what sixteen do: the stream of weights.
//! `asm!` because the intrinsics are not stable.

use std::arch::asm;

use half::bf16;

use crate::HostBuffer;

use super::{
    element::{elements, elements_mut},
    tensor::Tensor,
};

/// Rows of a tile.
const TILE: usize = 16;
/// Columns that a tile step multiplies.
const STEP: usize = 32;
/// Elements of a tile.
const TILE_LEN: usize = TILE * STEP;

/// Activations as B tiles: `[rows / 16, columns / 32, 16 pairs, 16 rows, 2]` in bf16, zero-padded.
pub(super) struct Tiles {
    data: HostBuffer,
    /// Steps along the columns.
    steps: usize,
    rows: usize,
}

impl Tiles {
    pub(super) fn pack(x: &Tensor) -> Self {
        let steps = x.cols().div_ceil(STEP);
        // An even number of row blocks, so that two can always be multiplied together.
        let blocks = x.rows().div_ceil(2 * TILE) * 2;
        let mut data = HostBuffer::zeroed(blocks * steps * TILE_LEN * size_of::<bf16>());
        let tiles = elements_mut::<bf16>(data.bytes_mut());
        for row in 0..x.rows() {
            let block = &mut tiles[row / TILE * steps * TILE_LEN..];
            for (column, &value) in x.row(row).iter().enumerate() {
                let pair = column / 2 * TILE + row % TILE;
                block[pair * 2 + column % 2] = bf16::from_f32(value);
            }
        }
        Self { data, steps, rows: x.rows() }
    }
}

/// `out[row, output]` over weight rows `[outputs, columns]`.
pub(super) fn multiply(tiles: &Tiles, weights: &[bf16], columns: usize, out: &mut [f32]) {
    let outputs = weights.len() / columns;
    assert_eq!(out.len(), tiles.rows * outputs);
    assert_eq!(tiles.steps, columns.div_ceil(STEP), "packed for this width");
    let packed = elements::<bf16>(tiles.data.bytes());
    configure();
    let mut padded = Vec::new();
    for first in (0..outputs).step_by(2 * TILE) {
        let count = (2 * TILE).min(outputs - first);
        let rows = &weights[first * columns..][..count * columns];
        let strip = if count == 2 * TILE && columns.is_multiple_of(STEP) {
            Strip { rows, stride: columns }
        } else {
            // Rows or columns that do not fill the tiles: the strip is copied into ones that do.
            padded.clear();
            padded.resize(2 * TILE * tiles.steps * STEP, bf16::ZERO);
            for (padded, row) in padded.chunks_mut(tiles.steps * STEP).zip(rows.chunks(columns)) {
                padded[..columns].copy_from_slice(row);
            }
            Strip { rows: &padded, stride: tiles.steps * STEP }
        };
        for row in (0..tiles.rows).step_by(2 * TILE) {
            let pair = &packed[row / TILE * tiles.steps * TILE_LEN..];
            let single = tiles.rows - row <= TILE;
            let block = strip.multiply(pair, tiles.steps, single);
            for m in 0..(2 * TILE).min(tiles.rows - row) {
                for n in 0..count {
                    out[(row + m) * outputs + first + n] = block.0[n][m];
                }
            }
        }
    }
    // SAFETY: frees the tile unit's state; no tile is in use.
    unsafe { asm!("tilerelease", options(nostack, nomem)) };
}

/// Sets all eight tiles of this thread to 16 rows of 64 bytes.
fn configure() {
    #[repr(C, align(64))]
    struct Config([u8; 64]);
    let mut config = Config([0; 64]);
    config.0[0] = 1;
    for tile in 0..8 {
        config.0[16 + 2 * tile] = (STEP * size_of::<bf16>()) as u8;
        config.0[48 + tile] = TILE as u8;
    }
    // SAFETY: only the path that was checked to have AMX packs `Tiles`, without which no one calls
    // this; the instruction reads the 64 bytes of `config`.
    unsafe { asm!("ldtilecfg [{}]", in(reg) &config, options(nostack, readonly)) };
}

/// 32 weight rows.
struct Strip<'a> {
    /// `[32, stride]`
    rows: &'a [bf16],
    stride: usize,
}

/// `[outputs, rows]`
#[repr(C, align(64))]
struct Block([[f32; 2 * TILE]; 2 * TILE]);

impl Strip<'_> {
    /// Multiplies with one or two blocks of 16 rows of `packed`, `steps` tiles each.
    fn multiply(&self, packed: &[bf16], steps: usize, single: bool) -> Block {
        assert!(self.stride >= steps * STEP && self.rows.len() >= 2 * TILE * self.stride);
        assert!(packed.len() >= 2 * steps * TILE_LEN && steps > 0);
        let mut block = Block([[0.0; 2 * TILE]; 2 * TILE]);
        let a0 = self.rows.as_ptr();
        let a1 = self.rows[TILE * self.stride..].as_ptr();
        let b0 = packed.as_ptr();
        let b1 = packed[steps * TILE_LEN..].as_ptr();
        // SAFETY: the tiles are configured by `multiply` above. Step `i` reads 32 columns from
        // column `32 i` of 16 rows `stride` apart at `a0` and `a1`, and 16 x 64 adjacent bytes at
        // `b0` and `b1`: within both slices by the assertions. The stores fill `block`, whose
        // rows are 128 bytes.
        unsafe {
            asm!("tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                options(nostack, nomem));
            if single {
                asm!(
                    "2:",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{b0} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{a1} + {stride}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "add {a0}, 64", "add {a1}, 64", "add {b0}, 1024",
                    "dec {count}", "jnz 2b",
                    a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _, b0 = inout(reg) b0 => _,
                    stride = in(reg) self.stride * size_of::<bf16>(), line = in(reg) 64usize,
                    count = inout(reg) steps => _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, options(nostack, readonly),
                );
            } else {
                asm!(
                    "2:",
                    "tileloadd tmm4, [{a0} + {stride}]",
                    "tileloadd tmm6, [{b0} + {line}]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm7, [{b1} + {line}]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm5, [{a1} + {stride}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {a0}, 64", "add {a1}, 64", "add {b0}, 1024", "add {b1}, 1024",
                    "dec {count}", "jnz 2b",
                    a0 = inout(reg) a0 => _, a1 = inout(reg) a1 => _,
                    b0 = inout(reg) b0 => _, b1 = inout(reg) b1 => _,
                    stride = in(reg) self.stride * size_of::<bf16>(), line = in(reg) 64usize,
                    count = inout(reg) steps => _,
                    out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                    options(nostack, readonly),
                );
            }
            let to = block.0.as_mut_ptr().cast::<f32>();
            asm!(
                "tilestored [{to00} + {line}], tmm0", "tilestored [{to01} + {line}], tmm1",
                "tilestored [{to10} + {line}], tmm2", "tilestored [{to11} + {line}], tmm3",
                to00 = in(reg) to, to01 = in(reg) to.add(TILE),
                to10 = in(reg) to.add(2 * TILE * TILE),
                to11 = in(reg) to.add(2 * TILE * TILE + TILE),
                line = in(reg) 2 * TILE * size_of::<f32>(), options(nostack),
            );
        }
        block
    }
}
