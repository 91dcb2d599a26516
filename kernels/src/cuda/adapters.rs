//! The device's table of resident adapters: where each tile of each site lies.

use std::sync::Arc;

use super::{device::Device, launch::Parameter, memory::DeviceBuffer, pool::Pool};
use crate::{
    AdapterSlot, DeviceError, LinearTiles, RANK_CHUNK, ResidentAdapter, Site, Tile, TileMap,
};

const SITES: [Site; 4] = [Site::Qkv, Site::Output, Site::GateUp, Site::Down];
/// Bytes of `Tile` and of `SiteTiles` in `prelude.cuh`.
const TILE_BYTES: usize = 24;
const SITE_BYTES: usize = 20;

/// Descriptors on the device, rewritten between steps.
pub(super) struct AdapterTable {
    device: Arc<Device>,
    /// `[slots, layers, 4]` of `SiteTiles`.
    sites: DeviceBuffer,
    /// `[slots, tiles_max]` of `Tile`.
    tiles: DeviceBuffer,
    slots: usize,
    layers: usize,
    tiles_max: usize,
    /// `[slots]` what each slot holds, to write again when the tables grow.
    bound: Vec<Option<ResidentAdapter>>,
    /// `[layers, 4]`
    most: Vec<ShrinkSize>,
}

/// What `shrink` has to do with a row at a site.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ShrinkSize {
    /// Columns of its result.
    pub(super) ranks: usize,
    /// Chunks of ranks.
    pub(super) chunks: u32,
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
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        Ok(Self {
            device: device.clone(),
            sites: DeviceBuffer::new(device, 0, "adapter tables")?,
            tiles: DeviceBuffer::new(device, 0, "adapter tables")?,
            slots: 0,
            layers: 0,
            tiles_max: 0,
            bound: Vec::new(),
            most: Vec::new(),
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

    /// Makes an adapter usable as `slot`.
    pub(super) fn bind(&mut self, pool: &Pool, slot: AdapterSlot, adapter: &ResidentAdapter) {
        assert_eq!(adapter.slabs.len(), adapter.map.slabs as usize, "every slab has a place");
        let slot = slot.0 as usize;
        let tiles = tile_count(&adapter.map);
        assert!(tiles == 0 || adapter.map.dtype == pool.shape().dtype, "tiles in the base's type");
        let layers = pool.shape().layers;
        if self.bound.len() <= slot {
            self.bound.resize(slot + 1, None);
        }
        self.bound[slot] = Some(adapter.clone());
        if slot >= self.slots || tiles > self.tiles_max || layers != self.layers {
            self.grow(layers, tiles);
            for slot in 0..self.bound.len() {
                self.write(pool, slot);
            }
        } else {
            self.write(pool, slot);
        }
    }

    fn grow(&mut self, layers: usize, tiles: usize) {
        self.slots = self.bound.len().next_power_of_two();
        self.tiles_max = self.tiles_max.max(tiles);
        self.layers = layers;
        let buffer = |bytes| {
            DeviceBuffer::new(&self.device, bytes, "adapter tables").expect("a few megabytes")
        };
        self.sites = buffer(self.slots * layers * SITES.len() * SITE_BYTES);
        self.tiles = buffer(self.slots * self.tiles_max * TILE_BYTES);
        self.most.resize(layers * SITES.len(), ShrinkSize::default());
    }

    fn write(&mut self, pool: &Pool, slot: usize) {
        let Some(adapter) = &self.bound[slot] else { return };
        let first = slot * self.tiles_max;
        let (mut sites, mut tiles) = (Vec::new(), Vec::new());
        for layer in 0..self.layers {
            for (index, site) in SITES.into_iter().enumerate() {
                let a = first + tiles.len() / TILE_BYTES;
                let linears = columns(pool, adapter, layer, site);
                linears.iter().for_each(|l| l.append_a(pool, adapter, &mut tiles));
                let b = first + tiles.len() / TILE_BYTES;
                linears.iter().for_each(|l| l.append_b(pool, adapter, &mut tiles));
                let end = first + tiles.len() / TILE_BYTES;
                let ranks = adapter.map.site_ranks(layer, site);
                let chunks = |l: &Placed| l.tiles.padded_rank.div_ceil(RANK_CHUNK as u32);
                let most = &mut self.most[layer * SITES.len() + index];
                most.ranks = most.ranks.max(ranks);
                most.chunks = most.chunks.max(linears.iter().map(chunks).sum());
                for word in [a, b - a, b, end - b, ranks] {
                    sites.extend((word as u32).to_le_bytes());
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

impl Placed<'_> {
    fn append_a(&self, pool: &Pool, adapter: &ResidentAdapter, to: &mut Vec<u8>) {
        for tile in &self.tiles.a {
            to.extend(self.describe(
                pool.tile_address(&adapter.slabs, tile),
                tile,
                tile.long.start,
            ));
        }
    }

    /// By output, then by rank.
    fn append_b(&self, pool: &Pool, adapter: &ResidentAdapter, to: &mut Vec<u8>) {
        let mut tiles: Vec<&Tile> = self.tiles.b.iter().collect();
        tiles.sort_by_key(|tile| (tile.long.start, tile.ranks.start));
        for tile in tiles {
            let start = self.output + tile.long.start;
            to.extend(self.describe(pool.tile_address(&adapter.slabs, tile), tile, start));
        }
    }

    /// `Tile` of `prelude.cuh`.
    fn describe(&self, address: u64, tile: &Tile, start: u32) -> Vec<u8> {
        assert!(tile.ranks.len() <= RANK_CHUNK, "a chunk of ranks");
        [
            &address.to_le_bytes()[..],
            &start.to_le_bytes(),
            &(tile.long.len() as u32).to_le_bytes(),
            &((self.column + tile.ranks.start) as u16).to_le_bytes(),
            &(tile.ranks.len() as u16).to_le_bytes(),
            &self.tiles.scale.to_le_bytes(),
        ]
        .concat()
    }
}

fn tile_count(map: &TileMap) -> usize {
    map.linears.iter().flatten().map(|linear| linear.a.len() + linear.b.len()).sum()
}

/// Outputs of one linear. Those of gate and up are known from the adapter's own tiles: a linear
/// without tiles after which others follow is as wide as its partner.
fn width(
    site: Site,
    linear: crate::Linear,
    shape: &crate::AttentionShape,
    map: &TileMap,
    layer: usize,
) -> u32 {
    use crate::Linear;
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
