//! Where an adapter's weights lie: the tile geometry that packing above the seam and the LoRA
//! kernels below it agree on.
//!
//! A linear's `A` `[rank, in]` and `B` `[out, rank]` are cut into rank chunks of 16 (the last at a
//! multiple of 8, zero-filled). A chunk of `A` is cut again into pieces of [`A_TILE_INPUTS`], and
//! one of either that would still exceed half a slab along its long dimension (`in` for `A`, `out`
//! for `B`). Each piece is a [`Tile`]: contiguous, on a 128-byte boundary, never across a slab
//! border. The packed image is `slabs` slabs of bytes that are copied one by one into whichever
//! pool slabs are free.

use std::{ops::Range, sync::Arc};

use crate::Dtype;

/// Ranks per chunk.
pub const RANK_CHUNK: usize = 16;
/// Most inputs of a tile of `A`: what a GPU's block takes at a time, by one copy. An odd number of
/// eights, so that its ranks begin in different banks of shared memory.
pub const A_TILE_INPUTS: usize = 520;
/// Largest rank of a linear that is admitted.
pub const MAX_RANK: usize = 256;
/// Alignment of a tile within its slab, bytes.
pub const TILE_ALIGN: usize = 128;

/// A linear that may carry LoRA weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Linear {
    /// `q_proj`
    Query,
    /// `k_proj`
    Key,
    /// `v_proj`
    Value,
    /// `o_proj`
    Output,
    /// `gate_proj`
    Gate,
    /// `up_proj`
    Up,
    /// `down_proj`
    Down,
}

impl Linear {
    /// All of them, in the order of [`TileMap`].
    pub const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];
}

/// A base product that serves one or more linears with the same input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Site {
    /// Query, key and value, outputs one after the other.
    Qkv,
    /// The attention output.
    Output,
    /// Gate, then up.
    GateUp,
    /// The MLP output.
    Down,
}

impl Site {
    /// The linears whose outputs stand side by side in the site's product.
    pub const fn linears(self) -> &'static [Linear] {
        match self {
            Self::Qkv => &[Linear::Query, Linear::Key, Linear::Value],
            Self::Output => &[Linear::Output],
            Self::GateUp => &[Linear::Gate, Linear::Up],
            Self::Down => &[Linear::Down],
        }
    }
}

/// One contiguous piece of an `A` or a `B`.
///
/// An `A` tile is `[ranks.len(), long.len()]` (each rank's weights over the inputs `long`); a `B`
/// tile is `[long.len(), ranks.len()]` (each output's weights over the ranks).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Ranks of the linear it holds; may end past the true rank, where it is zero.
    pub ranks: Range<u32>,
    /// Inputs (for `A`) or outputs (for `B`) of the linear it holds.
    pub long: Range<u32>,
    /// Slab of the image, from 0.
    pub slab: u32,
    /// Bytes from the slab's start, a multiple of [`TILE_ALIGN`].
    pub offset: u32,
}

/// The tiles of one linear.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearTiles {
    /// Rank rounded up to the chunks' widths: 8, 16, 24, 32, 48...: a multiple of 8.
    pub padded_rank: u32,
    /// Applied to `x A` in f32: `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA.
    pub scale: f32,
    /// Tiles of `A`, by rank then by input.
    pub a: Vec<Tile>,
    /// Tiles of `B`, by rank then by output.
    pub b: Vec<Tile>,
}

/// Where everything of one adapter lies in its packed image.
#[derive(Clone, Debug, PartialEq)]
pub struct TileMap {
    /// Element type of every tile.
    pub dtype: Dtype,
    /// Slabs of the image.
    pub slabs: u32,
    /// `[layers * 7]`, layer by layer in the order of [`Linear::ALL`]; `None` where the adapter
    /// leaves a linear alone.
    pub linears: Vec<Option<LinearTiles>>,
}

impl TileMap {
    /// The tiles of one linear, if the adapter has any there.
    pub fn linear(&self, layer: usize, linear: Linear) -> Option<&LinearTiles> {
        self.linears[layer * Linear::ALL.len() + linear as usize].as_ref()
    }

    /// Sum of the padded ranks of a site's linears: the columns a row of `shrink` takes.
    pub fn site_ranks(&self, layer: usize, site: Site) -> usize {
        let ranks = |&linear| self.linear(layer, linear).map_or(0, |l| l.padded_rank as usize);
        site.linears().iter().map(ranks).sum()
    }
}

/// An adapter whose image has been written into pool slabs.
#[derive(Clone, Debug)]
pub struct ResidentAdapter {
    /// Geometry of the image.
    pub map: Arc<TileMap>,
    /// `[map.slabs]` pool slab that holds each slab of the image.
    pub slabs: Vec<u32>,
}
