//! A packed image as a file: a fixed prefix, a header that says where the tiles lie, the bytes.
//!
//! ```text
//! magic 8 | header's length u32 | image's length u64 | header | image | BLAKE3 of all before 32
//! ```
//!
//! Numbers are little endian. Lengths are checked against the file before memory is taken, the
//! hash before the header is believed, and every place in the header against the base's shapes,
//! so that no file, however it came about, makes a kernel read outside an image.

use std::{io, ops::Range, path::Path, sync::Arc};

use switchyard_kernels::{Linear, LinearTiles, MAX_RANK, RANK_CHUNK, TILE_ALIGN, Tile, TileMap};

use super::{
    BaseIdentity,
    sealed::{self, Sealed, damaged},
};
use crate::model::{AdapterId, AdapterImage, ImageMemory};

/// Names this format; part of every file's name too.
pub(super) const VERSION: u32 = 2;

const MAGIC: [u8; 8] = *b"syimage1";
const PREFIX: usize = 8 + 4 + 8;

/// Writes an image of the base's adapter.
pub(super) fn write(path: &Path, image: &AdapterImage, base: &BaseIdentity) -> io::Result<()> {
    let header = header(image, base);
    let mut prefix = MAGIC.to_vec();
    prefix.extend((header.len() as u32).to_le_bytes());
    prefix.extend((image.bytes.len() as u64).to_le_bytes());
    sealed::write(path, &[&prefix, &header, image.bytes.bytes()])
}

/// Reads the image of adapter `id` into `memory`, as it was written for the same base.
pub(super) fn read(
    path: &Path,
    id: AdapterId,
    (base, memory): (&BaseIdentity, &ImageMemory),
) -> io::Result<AdapterImage> {
    let mut file = Sealed::open(path)?;
    let mut prefix = [0; PREFIX];
    file.read(&mut prefix)?;
    let mut fields = Fields(&prefix);
    if fields.take() != Some(MAGIC) {
        return Err(damaged("it is of another format"));
    }
    let lengths = fields.u32().zip(fields.u64());
    let (header, image) = lengths.ok_or_else(|| damaged("it is too short"))?;
    let slab_bytes = base.slab_bytes() as u64;
    if u64::from(header).checked_add(image) != Some(file.left()) || image % slab_bytes != 0 {
        return Err(damaged("its length is wrong"));
    }
    let slabs = u32::try_from(image / slab_bytes).map_err(|_| damaged("its length is wrong"))?;
    let mut header = vec![0; header as usize];
    file.read(&mut header)?;
    let mut bytes = memory.room(slabs);
    file.read(bytes.bytes_mut())?;
    file.finish()?;
    let (rank, map) = parse(&header, id, base)
        .filter(|(_, map)| map.slabs == slabs && fits(map, base))
        .ok_or_else(|| damaged("its header belongs to another adapter or base"))?;
    let (map, bytes) = (Arc::new(map), Arc::new(bytes));
    Ok(AdapterImage { id, rank, map, bytes, resident: Arc::default() })
}

/// `id 32 | dtype, zero-padded 4 | slab bytes u64 | rank u32 | slabs u32 | linears u32`, then for
/// each linear its count of tiles of `A` and of `B`, both 0 where it has none, and if it has any
/// `padded rank u32 | scale f32 | tiles`.
fn header(image: &AdapterImage, base: &BaseIdentity) -> Vec<u8> {
    let AdapterImage { id, rank, map, .. } = image;
    let mut out = id.0.to_vec();
    out.extend(dtype_field(base));
    out.extend((base.slab_bytes() as u64).to_le_bytes());
    let mut numbers = vec![*rank, map.slabs, map.linears.len() as u32];
    for linear in &map.linears {
        let Some(LinearTiles { padded_rank, scale, a, b }) = linear else {
            numbers.extend([0, 0]);
            continue;
        };
        numbers.extend([a.len() as u32, b.len() as u32, *padded_rank, scale.to_bits()]);
        for Tile { ranks, long, slab, offset } in a.iter().chain(b) {
            numbers.extend([ranks.start, ranks.end, long.start, long.end, *slab, *offset]);
        }
    }
    out.extend(numbers.into_iter().flat_map(u32::to_le_bytes));
    out
}

fn dtype_field(base: &BaseIdentity) -> [u8; 4] {
    let mut field = [0; 4];
    let name = base.dtype.name().as_bytes();
    field[..name.len()].copy_from_slice(name);
    field
}

/// The rank and the map, if the header is one of this adapter for this base.
fn parse(header: &[u8], id: AdapterId, base: &BaseIdentity) -> Option<(u32, TileMap)> {
    let mut fields = Fields(header);
    let same = fields.take() == Some(id.0)
        && fields.take() == Some(dtype_field(base))
        && fields.u64() == Some(base.slab_bytes() as u64);
    let (rank, slabs, count) = (fields.u32()?, fields.u32()?, fields.u32()?);
    if !same || count as usize != base.config.layers * Linear::ALL.len() {
        return None;
    }
    let linears = (0..count).map(|_| fields.linear()).collect::<Option<_>>()?;
    fields.0.is_empty().then_some((rank, TileMap { dtype: base.dtype, slabs, linears }))
}

/// Whether every tile lies within its linear and within its slab.
fn fits(map: &TileMap, base: &BaseIdentity) -> bool {
    map.linears.iter().enumerate().all(|(index, linear)| {
        let Some(tiles) = linear else { return true };
        let (out, input) = base.config.linear_shape(Linear::ALL[index % Linear::ALL.len()]);
        let ranks = tiles.padded_rank;
        let fit = |tile: &Tile, long| tile_fits(tile, (ranks, long), map, base.slab_bytes());
        ranks as usize <= MAX_RANK
            && tiles.a.iter().all(|tile| fit(tile, input))
            && tiles.b.iter().all(|tile| fit(tile, out))
            && covers(&tiles.a, ranks, input)
            && covers(&tiles.b, ranks, out)
    })
}

/// Whether tiles hold every rank over all inputs or outputs, one after the other: a GPU waits for
/// all of them.
fn covers(tiles: &[Tile], ranks: u32, long: usize) -> bool {
    let (mut chunk, mut at) = (0..0, long);
    for tile in tiles {
        if at == long {
            (chunk, at) = (chunk.end..tile.ranks.end, 0);
        }
        if (&tile.ranks, tile.long.start as usize) != (&chunk, at) {
            return false;
        }
        at = tile.long.end as usize;
    }
    (chunk.end, at) == (ranks, long)
}

/// `bounds` are the linear's padded rank and its inputs or outputs.
fn tile_fits(tile: &Tile, bounds: (u32, usize), map: &TileMap, slab_bytes: usize) -> bool {
    let within = |range: &Range<u32>, end: usize| !range.is_empty() && range.end as usize <= end;
    let shaped = within(&tile.ranks, bounds.0 as usize)
        && within(&tile.long, bounds.1)
        && tile.ranks.len() <= RANK_CHUNK
        && tile.ranks.len().is_multiple_of(8);
    let offset = tile.offset as usize;
    shaped
        && tile.slab < map.slabs
        && offset.is_multiple_of(TILE_ALIGN)
        && offset + tile.ranks.len() * tile.long.len() * map.dtype.size() <= slab_bytes
}

/// What is left of a header.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    /// `None` is a header that ends too early.
    fn linear(&mut self) -> Option<Option<LinearTiles>> {
        let (a, b) = (self.u32()?, self.u32()?);
        if (a, b) == (0, 0) {
            return Some(None);
        }
        let (padded_rank, scale) = (self.u32()?, f32::from_bits(self.u32()?));
        let mut tiles = |count| (0..count).map(|_| self.tile()).collect::<Option<Vec<_>>>();
        Some(Some(LinearTiles { padded_rank, scale, a: tiles(a)?, b: tiles(b)? }))
    }

    fn tile(&mut self) -> Option<Tile> {
        let ranks = self.u32()?..self.u32()?;
        let long = self.u32()?..self.u32()?;
        Some(Tile { ranks, long, slab: self.u32()?, offset: self.u32()? })
    }
}

#[cfg(test)]
mod tests;
