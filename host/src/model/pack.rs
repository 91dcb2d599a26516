//! Packs an adapter's weights into the slab image that residency copies, by the tile geometry of
//! [`switchyard_kernels::TileMap`].
//!
//! Layers are placed in order, so that the first slabs hold the first layers; within a layer tiles
//! go largest first, each into the fullest slab that still takes it. A tile is at most half a slab,
//! so that slabs fill well whatever the mix of sizes.

use std::{ops::Range, sync::Arc};

use half::{bf16, f16};
use switchyard_kernels::{
    A_TILE_INPUTS, Dtype, HostMatrix, Linear, LinearTiles, MAX_RANK, RANK_CHUNK, TILE_ALIGN, Tile,
    TileMap,
};

use super::{AdapterId, AdapterImage, ImageMemory, LoraLinear, LoraWeights, ModelConfig};

/// Ranks are padded to a multiple of this.
const RANK_ALIGN: usize = 8;
/// Where a tile is cut, inputs or outputs of a piece are a multiple of this if they can be.
const LONG_ALIGN: usize = 64;

/// Why an adapter cannot be packed for a pool.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum PackError {
    /// A linear's rank is beyond what the kernels take.
    #[error("layer {layer}, {linear:?}: rank {rank} is not in 1..={MAX_RANK}")]
    Rank {
        /// Decoder layer.
        layer: usize,
        /// The linear.
        linear: Linear,
        /// Its rank.
        rank: usize,
    },
    /// A weight is infinite or not a number. Kernels multiply tiles with zeros for rows of other
    /// adapters, so that it would spread to them.
    #[error(
        "layer {layer}, {linear:?}: a weight of {matrix} is {value}, where all have to be finite; \
         train or export the adapter again"
    )]
    NotFinite {
        /// Decoder layer.
        layer: usize,
        /// The linear.
        linear: Linear,
        /// `A` or `B`.
        matrix: &'static str,
        /// The first such weight.
        value: f32,
    },
    /// The model's KV page is so small that no tile fits half of it.
    #[error("a pool slab of {slab_bytes} bytes is too small for LoRA tiles")]
    SlabTooSmall {
        /// Bytes of a slab.
        slab_bytes: usize,
    },
}

impl LoraWeights {
    /// Packs the weights for a pool, into `memory`; shapes must be those of `config`.
    pub fn pack(
        &self,
        config: &ModelConfig,
        memory: &ImageMemory,
        id: AdapterId,
    ) -> Result<AdapterImage, PackError> {
        let slab_bytes = memory.slab_bytes();
        let mut linears = vec![None; config.layers * Linear::ALL.len()];
        for lora in &self.linears {
            lora.assert_fits(config);
            lora.check_finite()?;
            let entry = &mut linears[lora.layer * Linear::ALL.len() + lora.linear as usize];
            assert!(entry.is_none(), "two entries for {:?} of layer {}", lora.linear, lora.layer);
            *entry = Some(lora.cut(slab_bytes)?);
        }
        let dtype = self.linears.first().map_or(Dtype::F32, |lora| lora.a.dtype);
        let mut slabs = Slabs { bytes: slab_bytes, filled: Vec::new() };
        for layer in linears.chunks_mut(Linear::ALL.len()) {
            slabs.place(layer.iter_mut().flatten(), dtype);
        }
        let map = TileMap { dtype, slabs: slabs.filled.len() as u32, linears };
        let mut bytes = memory.room(map.slabs);
        // What no tile covers is padding.
        bytes.bytes_mut().fill(0);
        for lora in &self.linears {
            let tiles = map.linear(lora.layer, lora.linear).expect("cut above");
            let start = |tile: &Tile| tile.slab as usize * slab_bytes + tile.offset as usize;
            for tile in &tiles.a {
                lora.copy_a(tile, &mut bytes.bytes_mut()[start(tile)..]);
            }
            for tile in &tiles.b {
                lora.copy_b(tile, &mut bytes.bytes_mut()[start(tile)..]);
            }
        }
        let rank = self.linears.iter().map(|lora| lora.a.rows as u32).max().unwrap_or(0);
        let (map, bytes) = (Arc::new(map), Arc::new(bytes));
        Ok(AdapterImage { id, rank, map, bytes, resident: Arc::default() })
    }
}

impl LoraLinear {
    fn assert_fits(&self, config: &ModelConfig) {
        let (out, input) = config.linear_shape(self.linear);
        assert!(self.layer < config.layers, "layer {} of {}", self.layer, config.layers);
        assert_eq!((self.a.cols, self.b.rows), (input, out), "shapes of {:?}", self.linear);
        assert_eq!(self.a.rows, self.b.cols, "rank of A and of B");
        assert_eq!(self.a.dtype, self.b.dtype, "element type of A and of B");
    }

    fn check_finite(&self) -> Result<(), PackError> {
        for (matrix, weights) in [("A", &self.a), ("B", &self.b)] {
            if let Some(value) = first_not_finite(weights) {
                let Self { layer, linear, .. } = *self;
                return Err(PackError::NotFinite { layer, linear, matrix, value });
            }
        }
        Ok(())
    }

    /// Geometry without places.
    fn cut(&self, slab_bytes: usize) -> Result<LinearTiles, PackError> {
        let rank = self.a.rows;
        if rank == 0 || rank > MAX_RANK {
            return Err(PackError::Rank { layer: self.layer, linear: self.linear, rank });
        }
        let padded = rank.next_multiple_of(RANK_ALIGN);
        let half = slab_bytes / 2 / TILE_ALIGN * TILE_ALIGN;
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for start in (0..padded).step_by(RANK_CHUNK) {
            let ranks = start..padded.min(start + RANK_CHUNK);
            let most = half / (ranks.len() * self.a.dtype.size());
            if most == 0 {
                return Err(PackError::SlabTooSmall { slab_bytes });
            }
            let most = if most > LONG_ALIGN { most / LONG_ALIGN * LONG_ALIGN } else { most };
            a.extend(pieces(&ranks, self.a.cols, most.min(A_TILE_INPUTS)));
            b.extend(pieces(&ranks, self.b.rows, most));
        }
        Ok(LinearTiles { padded_rank: padded as u32, scale: self.scale, a, b })
    }

    /// `[ranks, long]` of `A`; ranks past the true one stay zero.
    fn copy_a(&self, tile: &Tile, to: &mut [u8]) {
        let bytes = tile.long.len() * self.a.dtype.size();
        for (rank, row) in tile.ranks.clone().zip(to.chunks_mut(bytes)) {
            if (rank as usize) < self.a.rows {
                row.copy_from_slice(span(&self.a, rank, tile.long.clone()));
            }
        }
    }

    /// `[long, ranks]` of `B`; ranks past the true one stay zero.
    fn copy_b(&self, tile: &Tile, to: &mut [u8]) {
        let size = self.b.dtype.size();
        let true_ranks = tile.ranks.start..tile.ranks.end.min(self.b.cols as u32);
        for (out, row) in tile.long.clone().zip(to.chunks_mut(tile.ranks.len() * size)) {
            row[..true_ranks.len() * size].copy_from_slice(span(&self.b, out, true_ranks.clone()));
        }
    }
}

/// The first weight that is infinite or not a number.
fn first_not_finite(matrix: &HostMatrix) -> Option<f32> {
    let bytes = matrix.data.bytes();
    let half = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let odd = |value: &f32| !value.is_finite();
    match matrix.dtype {
        Dtype::F32 => {
            let word = |word: &[u8]| f32::from_le_bytes([word[0], word[1], word[2], word[3]]);
            bytes.chunks_exact(4).map(word).find(odd)
        }
        Dtype::F16 => {
            bytes.chunks_exact(2).map(|pair| f16::from_bits(half(pair)).to_f32()).find(odd)
        }
        Dtype::Bf16 => {
            bytes.chunks_exact(2).map(|pair| bf16::from_bits(half(pair)).to_f32()).find(odd)
        }
    }
}

/// Bytes of `cols` of one row.
fn span(matrix: &HostMatrix, row: u32, cols: Range<u32>) -> &[u8] {
    let size = matrix.dtype.size();
    let start = row as usize * matrix.cols * size;
    &matrix.data.bytes()[start + cols.start as usize * size..start + cols.end as usize * size]
}

/// Cuts `0..long` into pieces of at most `most`.
fn pieces(ranks: &Range<usize>, long: usize, most: usize) -> impl Iterator<Item = Tile> {
    let ranks = ranks.start as u32..ranks.end as u32;
    (0..long).step_by(most).map(move |start| Tile {
        ranks: ranks.clone(),
        long: start as u32..long.min(start + most) as u32,
        slab: 0,
        offset: 0,
    })
}

/// Slabs of an image while they fill.
struct Slabs {
    /// Size of each.
    bytes: usize,
    /// Bytes taken from the start of each, a multiple of [`TILE_ALIGN`].
    filled: Vec<usize>,
}

impl Slabs {
    fn place<'a>(&mut self, layer: impl Iterator<Item = &'a mut LinearTiles>, dtype: Dtype) {
        let tile_bytes = |tile: &Tile| tile.ranks.len() * tile.long.len() * dtype.size();
        let mut tiles: Vec<&mut Tile> =
            layer.flat_map(|linear| linear.a.iter_mut().chain(&mut linear.b)).collect();
        tiles.sort_by_key(|tile| std::cmp::Reverse(tile_bytes(tile)));
        for tile in tiles {
            let bytes = tile_bytes(tile).next_multiple_of(TILE_ALIGN);
            let slab = self.best_fit(bytes);
            (tile.slab, tile.offset) = (slab as u32, self.filled[slab] as u32);
            self.filled[slab] += bytes;
        }
    }

    /// The fullest slab that takes `bytes` more; a new one if none does.
    fn best_fit(&mut self, bytes: usize) -> usize {
        let fits = |(_, filled): &(usize, &usize)| **filled + bytes <= self.bytes;
        let fullest = self.filled.iter().enumerate().filter(fits).max_by_key(|(_, filled)| *filled);
        if let Some((slab, _)) = fullest {
            return slab;
        }
        self.filled.push(0);
        self.filled.len() - 1
    }
}

#[cfg(test)]
mod tests;
