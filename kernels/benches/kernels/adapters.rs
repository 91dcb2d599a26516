//! Geometry of adapters; what their bytes say does not matter to a clock.

use std::{ops::Range, sync::Arc};

use switchyard_kernels::{
    Dtype, Linear, LinearTiles, RANK_CHUNK, ResidentAdapter, TILE_ALIGN, Tile, TileMap,
};

use crate::shape::Shape;

/// The adapters of one rank that stand in a pool's slabs.
pub(crate) struct AdapterSet {
    map: Arc<TileMap>,
    /// `[adapters, map.slabs]` slabs of the pool, in no order.
    slabs: Vec<u32>,
}

impl AdapterSet {
    /// As many adapters as the slabs hold, up to `most`, on all linears of all layers.
    pub(crate) fn new(shape: &Shape, rank: usize, most: usize, slabs: &[u32]) -> Self {
        let mut packing = Packing { slab_bytes: shape.attention().slab_bytes(), end: 0 };
        let layers = 0..shape.layers;
        let linears = layers.flat_map(|_| Linear::ALL).map(|linear| {
            let [outputs, inputs] = shape.linear(linear);
            let (a, b) = (packing.tiles(rank, inputs), packing.tiles(rank, outputs));
            Some(LinearTiles { padded_rank: rank as u32, scale: 2.0, a, b })
        });
        let linears = linears.collect();
        let image_slabs = packing.end.div_ceil(packing.slab_bytes) as u32;
        let map = TileMap { dtype: Dtype::Bf16, slabs: image_slabs, linears };
        let count = most.min(slabs.len() / map.slabs as usize);
        let slabs = slabs[..count * map.slabs as usize].to_vec();
        Self { map: Arc::new(map), slabs }
    }

    pub(crate) fn len(&self) -> usize {
        self.slabs.len() / self.map.slabs as usize
    }

    pub(crate) fn adapter(&self, number: usize) -> ResidentAdapter {
        let slabs = self.map.slabs as usize;
        let slabs = self.slabs[number * slabs..][..slabs].to_vec();
        ResidentAdapter { map: self.map.clone(), slabs }
    }
}

/// Tiles placed one after the other, as a packed image has them.
struct Packing {
    slab_bytes: usize,
    end: usize,
}

impl Packing {
    fn tiles(&mut self, rank: usize, long: usize) -> Vec<Tile> {
        let mut tiles = Vec::new();
        for first in (0..rank).step_by(RANK_CHUNK) {
            let ranks = first..rank.min(first + RANK_CHUNK);
            let most = self.slab_bytes / 2 / (ranks.len() * Dtype::Bf16.size()) / 64 * 64;
            for start in (0..long).step_by(most) {
                tiles.push(self.place(ranks.clone(), start..long.min(start + most)));
            }
        }
        tiles
    }

    fn place(&mut self, ranks: Range<usize>, long: Range<usize>) -> Tile {
        let bytes = ranks.len() * long.len() * Dtype::Bf16.size();
        let mut start = self.end.next_multiple_of(TILE_ALIGN);
        if start % self.slab_bytes + bytes > self.slab_bytes {
            start = start.next_multiple_of(self.slab_bytes);
        }
        self.end = start + bytes;
        Tile {
            ranks: ranks.start as u32..ranks.end as u32,
            long: long.start as u32..long.end as u32,
            slab: (start / self.slab_bytes) as u32,
            offset: (start % self.slab_bytes) as u32,
        }
    }
}
