//! The low ranks that a product of few rows makes and adds by itself: what `low_rank.cuh` is given,
//! and where they are summed up, in fixed point (`fixed.cuh`).
//!
//! Two buffers take turns: a product adds to zeros, and leaves zeros in the other one for the
//! product that comes next in its step.

use std::sync::Arc;

use super::{
    Context, Grid, Parameters,
    adapters::{AdaptersView, ShrinkSize},
    device::Device,
    matmul::FEW_ROWS,
    memory::DeviceBuffer,
    shrink::{self, Shrink},
};
use crate::{DeviceError, MAX_RANK};

/// Ranks of a row, of the site with the most linears.
const RANKS_MAX: usize = 3 * MAX_RANK;
/// Of a sum.
const WORD_BYTES: usize = 8;
const BUFFER_BYTES: usize = FEW_ROWS * RANKS_MAX * WORD_BYTES;
/// Most inputs of a sum, which counts them in eights, in thirteen bits.
pub(super) const INPUTS_MAX: usize = 8 * ((1 << 13) - 1);
const THREADS: u32 = 256;

/// Which blocks of a product shrink.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Shrinkers {
    /// Blocks that do nothing else.
    pub(super) only: u32,
    /// Whether those with outputs shrink too: 1 or 0.
    pub(super) all: u32,
}

impl Shrinkers {
    const NONE: Self = Self { only: 0, all: 0 };
}

/// `LowRank` of `low_rank_list.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct LowRankView {
    s: u64,
    spent: u64,
    x: u64,
    adapters: AdaptersView,
    words: u32,
    /// Of a row, at the most.
    pub(super) ranks: u32,
    layer: u32,
    site: u32,
    inputs: u32,
    pub(super) shrinkers: Shrinkers,
    /// Of the step, at the most.
    pieces: u32,
    /// Tiles of `A` of all these, at the most.
    pub(super) units: u32,
}

impl LowRankView {
    /// Of products that add none.
    pub(super) const NONE: Self = Self {
        s: 0,
        spent: 0,
        x: 0,
        adapters: AdaptersView::NONE,
        words: 0,
        ranks: 0,
        layer: 0,
        site: 0,
        inputs: 0,
        shrinkers: Shrinkers::NONE,
        pieces: 0,
        units: 0,
    };

    pub(super) fn is_none(&self) -> bool {
        self.s == 0
    }

    /// For the step's next product. Queues what clears the place of its sums, if it is the first.
    pub(super) fn of_next(cx: &mut Context, shrink: &Shrink) -> Self {
        let ShrinkSize { ranks, tiles, .. } = cx.adapters.most(shrink.layer, shrink.site);
        assert!(ranks <= RANKS_MAX, "ranks of a site");
        let rows = cx.step.rows().bound;
        let words = (rows * cx.adapters.most_ranks()) as u32;
        let used = cx.low_ranks.used;
        let (s, spent) = (cx.low_ranks.address(used), cx.low_ranks.address(used + 1));
        if used == 0 {
            clear(cx, s, words);
        }
        cx.low_ranks.used += 1;
        Self {
            s,
            spent,
            x: shrink.x,
            adapters: cx.adapters.view(),
            words,
            ranks: ranks as u32,
            layer: shrink.layer as u32,
            site: shrink.site as u32,
            inputs: shrink.inputs as u32,
            shrinkers: Shrinkers::NONE,
            pieces: cx.step.extent.pieces,
            units: cx.step.extent.pieces * tiles,
        }
    }
}

/// The buffers, and how often the step at hand has used one.
pub(super) struct LowRanks {
    buffers: DeviceBuffer,
    used: usize,
}

impl LowRanks {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        Ok(Self { buffers: DeviceBuffer::new(device, 2 * BUFFER_BYTES, "low ranks")?, used: 0 })
    }

    pub(super) fn begin_step(&mut self) {
        self.used = 0;
    }

    fn address(&self, number: usize) -> u64 {
        self.buffers.address() + (number % 2 * BUFFER_BYTES) as u64
    }
}

fn clear(cx: &mut Context, words: u64, count: u32) {
    let grid = Grid::flat(count.div_ceil(THREADS).clamp(1, cx.device.processors), THREADS);
    let parameters = Parameters::default().with(words).with(count);
    // SAFETY: the parameters of `clear_low_ranks`; a buffer has room for so many words, those of
    // few rows with the most ranks.
    unsafe { cx.launch((shrink::SOURCE.name, "clear_low_ranks"), grid, parameters) };
}
