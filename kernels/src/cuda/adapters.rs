//! The device's table of resident adapters: where each tile of each site lies.
//!
//! The table is sized with the pool, so that it need not move while steps run: a slab holds only so
//! many tiles. Adapters that are more, or cut finer, than is expected may still not fit; then
//! everything moves to a larger table, between steps.

use std::sync::Arc;

use super::{
    device::Device, launch::Parameter, ledger::ADAPTER_TABLES, memory::DeviceBuffer, pool::Pool,
    ranges::Ranges,
};
use crate::{
    A_TILE_INPUTS, AdapterSlot, DeviceError, Linear, LinearTiles, RANK_CHUNK, ResidentAdapter,
    Site, Tile, TileMap,
};

const SITES: [Site; 4] = [Site::Qkv, Site::Output, Site::GateUp, Site::Down];
/// Bytes of `Tile` and of `SiteTiles` in `prelude.cuh`.
const TILE_BYTES: usize = 24;
const SITE_BYTES: usize = 32;
/// Room at first: adapters, tiles of each with a chunk of ranks and 4096 inputs on the average, and
/// tiles in a slab.
const FIRST_SLOTS: usize = 2048;
const TILES_PER_LINEAR: usize = 12;
const TILES_PER_SLAB: usize = 128;

/// Descriptors on the device, rewritten between steps.
pub(super) struct AdapterTable {
    device: Arc<Device>,
    layers: usize,
    /// `[slots, layers, 4]` of `SiteTiles`.
    sites: DeviceBuffer,
    slots: usize,
    /// `[tiles]` of `Tile`.
    tiles: DeviceBuffer,
    /// What of `tiles` nobody has.
    room: Ranges,
    /// By slot.
    bound: Vec<Option<Bound>>,
    /// `[layers, 4]`
    most: Vec<ShrinkSize>,
}

/// What `shrink` has to do with a row at a site, the most of any adapter so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShrinkSize {
    /// Columns of its result.
    pub(super) ranks: usize,
    /// Chunks of ranks.
    pub(super) chunks: u32,
    /// Tiles of `A`.
    pub(super) tiles: u32,
    /// Whether a tile of `A` is too long for a product, or cut elsewhere than at eights of inputs.
    pub(super) is_odd: bool,
}

impl ShrinkSize {
    fn include(&mut self, linears: &[Placed], tiles: u32) {
        let ranks = linears.iter().map(|linear| linear.tiles.padded_rank);
        let chunks = ranks.clone().map(|ranks| ranks.div_ceil(RANK_CHUNK as u32)).sum();
        self.ranks = self.ranks.max(ranks.sum::<u32>() as usize);
        self.chunks = self.chunks.max(chunks);
        self.tiles = self.tiles.max(tiles);
        self.is_odd |= linears.iter().any(Placed::is_odd);
    }
}

/// What a slot holds.
struct Bound {
    adapter: ResidentAdapter,
    /// First of its tiles.
    first: usize,
}

/// `Adapters` of `prelude.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct AdaptersView {
    sites: u64,
    tiles: u64,
    layers: u32,
    padding: u32,
}

impl AdaptersView {
    /// Of kernels that look at no adapter, whatever is bound.
    pub(super) const NONE: Self = Self { sites: 0, tiles: 0, layers: 0, padding: 0 };
}

// SAFETY: the layout of `Adapters` in `prelude.cuh`.
unsafe impl Parameter for AdaptersView {}

impl AdapterTable {
    /// A table without room, before `reserve`.
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        Self::with_room(device, 0, (0, 0))
    }

    /// A table for the adapters of a pool of so many slabs.
    pub(super) fn reserve(
        device: &Arc<Device>,
        pool: &Pool,
        slabs: usize,
    ) -> Result<Self, DeviceError> {
        let layers = pool.shape().layers;
        let slots = slabs.min(FIRST_SLOTS);
        let of_adapters = slots * layers * Linear::ALL.len() * TILES_PER_LINEAR;
        let tiles = (slabs * TILES_PER_SLAB).min(of_adapters);
        Self::with_room(device, layers, (slots, tiles))
    }

    fn with_room(
        device: &Arc<Device>,
        layers: usize,
        (slots, tiles): (usize, usize),
    ) -> Result<Self, DeviceError> {
        let buffer = |bytes| DeviceBuffer::new(device, bytes, ADAPTER_TABLES);
        Ok(Self {
            device: device.clone(),
            layers,
            sites: buffer(slots * layers * SITES.len() * SITE_BYTES)?,
            slots,
            tiles: buffer(tiles * TILE_BYTES)?,
            room: Ranges::new(tiles),
            bound: Vec::new(),
            most: vec![ShrinkSize::default(); layers * SITES.len()],
        })
    }

    /// For kernels.
    pub(super) fn view(&self) -> AdaptersView {
        AdaptersView {
            sites: self.sites.address(),
            tiles: self.tiles.address(),
            layers: self.layers as u32,
            padding: 0,
        }
    }

    /// The most that any adapter bound so far takes of `shrink`.
    pub(super) fn most(&self, layer: usize, site: Site) -> ShrinkSize {
        self.most.get(layer * SITES.len() + site as usize).copied().unwrap_or_default()
    }

    /// The most ranks of any site.
    pub(super) fn most_ranks(&self) -> usize {
        self.most.iter().map(|size| size.ranks).max().unwrap_or(0)
    }

    /// Makes an adapter usable as `slot`.
    pub(super) fn bind(&mut self, pool: &Pool, slot: AdapterSlot, adapter: ResidentAdapter) {
        assert_eq!(adapter.slabs.len(), adapter.map.slabs as usize, "every slab has a place");
        assert_eq!(pool.shape().layers, self.layers, "a table for this pool");
        let slot = slot.0 as usize;
        let tiles = tile_count(&adapter.map);
        assert!(tiles == 0 || adapter.map.dtype == pool.shape().dtype, "tiles in the base's type");
        if self.bound.len() <= slot {
            self.bound.resize_with(slot + 1, || None);
        }
        if let Some(Bound { adapter, first }) = self.bound[slot].take() {
            self.room.give(first..first + tile_count(&adapter.map));
        }
        let first = if slot < self.slots { self.room.take(tiles) } else { None };
        self.bound[slot] = Some(Bound { adapter, first: first.unwrap_or(0) });
        match first {
            Some(_) => self.write(pool, slot),
            None => self.grow(pool),
        }
    }

    /// Moves everything to a table with twice the room that is needed.
    fn grow(&mut self, pool: &Pool) {
        let needed: usize = self.bound.iter().flatten().map(|b| tile_count(&b.adapter.map)).sum();
        let slots = self.slots.max(self.bound.len().next_power_of_two());
        let room = Self::with_room(&self.device, self.layers, (slots, 2 * needed));
        let before = std::mem::replace(self, room.expect("a few megabytes for more adapters"));
        self.most = before.most;
        self.bound = before.bound;
        for slot in 0..self.bound.len() {
            if let Some(Bound { adapter, first }) = &mut self.bound[slot] {
                *first = self.room.take(tile_count(&adapter.map)).expect("room for all of them");
                self.write(pool, slot);
            }
        }
    }

    fn write(&mut self, pool: &Pool, slot: usize) {
        let bound = self.bound[slot].as_ref();
        let Bound { adapter, first } = bound.expect("a slot that has been bound");
        let (mut sites, mut tiles) = (Vec::new(), Vec::new());
        for layer in 0..self.layers {
            for (index, site) in SITES.into_iter().enumerate() {
                let linears = columns(pool, adapter, layer, site);
                let end = |tiles: &Vec<u8>| (first + tiles.len() / TILE_BYTES) as u32;
                let a = end(&tiles);
                linears.iter().for_each(|l| l.append_a(pool, adapter, &mut tiles));
                let b = end(&tiles);
                linears.iter().for_each(|l| l.append_b(pool, adapter, &mut tiles));
                let (a_count, b_count) = (b - a, end(&tiles) - b);
                self.most[layer * SITES.len() + index].include(&linears, a_count);
                let [columns, before] = later_linears(&linears, b_count);
                for word in [[a, a_count], [b, b_count], columns, before].concat() {
                    sites.extend(word.to_le_bytes());
                }
            }
        }
        self.sites.write(slot * self.layers * SITES.len() * SITE_BYTES, &sites);
        self.tiles.write(first * TILE_BYTES, &tiles);
    }
}

/// One linear of a site: its tiles, the first of its rank columns and of its outputs.
struct Placed<'a> {
    tiles: &'a LinearTiles,
    column: u32,
    output: u32,
}

fn columns<'a>(
    pool: &Pool,
    adapter: &'a ResidentAdapter,
    layer: usize,
    site: Site,
) -> Vec<Placed<'a>> {
    let shape = pool.shape();
    let (mut column, mut output, mut placed) = (0, 0, Vec::new());
    for &linear in site.linears() {
        let tiles = adapter.map.linear(layer, linear);
        if let Some(tiles) = tiles {
            placed.push(Placed { tiles, column, output });
            column += tiles.padded_rank;
        }
        output += width(site, linear, shape, &adapter.map, layer);
    }
    placed
}

/// `columns` and `before` of `SiteTiles`: where the second and the third of the linears that an
/// adapter has begin.
fn later_linears(linears: &[Placed], tiles: u32) -> [[u32; 2]; 2] {
    let (mut columns, mut before) = ([u32::MAX; 2], [tiles; 2]);
    let mut count = 0;
    for (i, pair) in linears.windows(2).enumerate() {
        count += pair[0].tiles.b.len() as u32;
        (columns[i], before[i]) = (pair[1].output, count);
    }
    [columns, before]
}

impl Placed<'_> {
    fn is_odd(&self) -> bool {
        let is_odd = |tile: &Tile| {
            !(tile.long.start | tile.long.end).is_multiple_of(8) || tile.long.len() > A_TILE_INPUTS
        };
        self.tiles.a.iter().any(is_odd)
    }

    fn append_a(&self, pool: &Pool, adapter: &ResidentAdapter, to: &mut Vec<u8>) {
        for tile in &self.tiles.a {
            self.append(pool.tile_address(&adapter.slabs, tile), tile, tile.long.start, to);
        }
    }

    /// By output, then by rank.
    fn append_b(&self, pool: &Pool, adapter: &ResidentAdapter, to: &mut Vec<u8>) {
        let mut tiles: Vec<&Tile> = self.tiles.b.iter().collect();
        tiles.sort_by_key(|tile| (tile.long.start, tile.ranks.start));
        for tile in tiles {
            let start = self.output + tile.long.start;
            self.append(pool.tile_address(&adapter.slabs, tile), tile, start, to);
        }
    }

    /// `Tile` of `prelude.cuh`.
    fn append(&self, address: u64, tile: &Tile, start: u32, to: &mut Vec<u8>) {
        assert!(tile.ranks.len() <= RANK_CHUNK, "a chunk of ranks");
        to.extend(address.to_le_bytes());
        to.extend(start.to_le_bytes());
        to.extend((tile.long.len() as u32).to_le_bytes());
        to.extend(((self.column + tile.ranks.start) as u16).to_le_bytes());
        to.extend((tile.ranks.len() as u16).to_le_bytes());
        to.extend(self.tiles.scale.to_le_bytes());
    }
}

fn tile_count(map: &TileMap) -> usize {
    map.linears.iter().flatten().map(|linear| linear.a.len() + linear.b.len()).sum()
}

/// Outputs of one linear. Those of gate and up are known from the adapter's own tiles: a linear
/// without tiles after which others follow is as wide as its partner.
fn width(
    site: Site,
    linear: Linear,
    shape: &crate::AttentionShape,
    map: &TileMap,
    layer: usize,
) -> u32 {
    match linear {
        Linear::Query => (shape.heads * shape.head_dim) as u32,
        Linear::Key | Linear::Value => (shape.kv_heads * shape.head_dim) as u32,
        _ => {
            let known = site.linears().iter().find_map(|&linear| map.linear(layer, linear));
            let outputs = |tiles: &LinearTiles| tiles.b.iter().map(|tile| tile.long.end).max();
            known.and_then(outputs).unwrap_or(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(tiles_of_b: usize) -> LinearTiles {
        let tile = Tile { ranks: 0..16, long: 0..64, slab: 0, offset: 0 };
        LinearTiles { padded_rank: 16, scale: 1.0, a: Vec::new(), b: vec![tile; tiles_of_b] }
    }

    #[test]
    fn later_linears_begin_behind_those_that_an_adapter_has() {
        let (query, value) = (linear(3), linear(2));
        let placed = |tiles, output| Placed { tiles, column: 0, output };
        let three = [placed(&query, 0), placed(&value, 2048), placed(&value, 2304)];
        assert_eq!(later_linears(&three, 7), [[2048, 2304], [3, 5]]);
        let two = [placed(&query, 0), placed(&value, 2304)];
        assert_eq!(later_linears(&two, 5), [[2304, u32::MAX], [3, 5]]);
        assert_eq!(later_linears(&two[..1], 3), [[u32::MAX; 2], [3, 3]]);
        assert_eq!(later_linears(&[], 0), [[u32::MAX; 2], [0, 0]]);
    }
}
