//! The unified pool in host memory: slabs that hold KV pages or adapter tiles, and the table of
//! adapters that have been written into it. Whose slab is whose is the engine's affair; here only
//! addresses are computed.

use std::ops::Range;

use crate::{
    AdapterSlot, AttentionShape, DeviceError, Dtype, HostBuffer, PAGE_TOKENS, ResidentAdapter, Tile,
};

/// Slabs and bound adapters.
pub(super) struct Pool {
    shape: AttentionShape,
    /// `[slabs, slab_bytes]`
    memory: HostBuffer,
    /// `[slots]`
    adapters: Vec<Option<ResidentAdapter>>,
}

/// Which half of a page.
#[derive(Clone, Copy)]
pub(super) enum Half {
    Key,
    Value,
}

/// Where one head of one page lies.
#[derive(Clone, Copy)]
pub(super) struct PageHead {
    pub(super) slab: u32,
    pub(super) layer: usize,
    pub(super) half: Half,
    pub(super) kv_head: usize,
}

impl Pool {
    /// A pool without slabs, before `reserve`.
    pub(super) fn empty() -> Self {
        let shape = AttentionShape {
            layers: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            dtype: Dtype::F32,
            inv_freq: Vec::new(),
        };
        Self { shape, memory: HostBuffer::zeroed(0), adapters: Vec::new() }
    }

    pub(super) fn reserve(shape: &AttentionShape, slabs: usize) -> Result<Self, DeviceError> {
        assert!(shape.kv_heads > 0 && shape.heads.is_multiple_of(shape.kv_heads));
        assert!(2 * shape.inv_freq.len() <= shape.head_dim, "rotary part within the head");
        let overflow = || DeviceError::OutOfMemory {
            what: "the pool of KV pages and adapters",
            bytes: usize::MAX,
            device: "cpu".to_owned(),
        };
        let bytes = shape.slab_bytes().checked_mul(slabs).ok_or_else(overflow)?;
        let memory = HostBuffer::zeroed(bytes);
        Ok(Self { shape: shape.clone(), memory, adapters: Vec::new() })
    }

    pub(super) fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    pub(super) fn load(&mut self, image: &HostBuffer, slabs: &[u32]) {
        let slab_bytes = self.shape.slab_bytes();
        let pieces = image.bytes().chunks(slab_bytes);
        assert_eq!(pieces.len(), slabs.len(), "one pool slab per slab of the image");
        for (piece, &slab) in pieces.zip(slabs) {
            let start = slab as usize * slab_bytes;
            self.memory.bytes_mut()[start..][..piece.len()].copy_from_slice(piece);
        }
    }

    pub(super) fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        assert_eq!(adapter.slabs.len(), adapter.map.slabs as usize, "every slab has a place");
        let slot = slot.0 as usize;
        if self.adapters.len() <= slot {
            self.adapters.resize(slot + 1, None);
        }
        self.adapters[slot] = Some(adapter);
    }

    pub(super) fn adapter(&self, slot: AdapterSlot) -> &ResidentAdapter {
        let bound = self.adapters.get(slot.0 as usize).and_then(Option::as_ref);
        bound.expect("a segment names a slot that has been bound")
    }

    /// Elements of a tile, as bytes.
    pub(super) fn tile(&self, adapter: &ResidentAdapter, tile: &Tile) -> &[u8] {
        let count = tile.ranks.len() * tile.long.len();
        let slab = adapter.slabs[tile.slab as usize] as usize;
        let start = slab * self.shape.slab_bytes() + tile.offset as usize;
        &self.memory.bytes()[start..][..count * adapter.map.dtype.size()]
    }

    /// Keys or values `[PAGE_TOKENS, head_dim]` of one head of one page, as bytes.
    pub(super) fn page(&self, head: PageHead) -> &[u8] {
        &self.memory.bytes()[self.page_range(head)]
    }

    /// The same, to be written.
    pub(super) fn page_mut(&mut self, head: PageHead) -> &mut [u8] {
        let range = self.page_range(head);
        &mut self.memory.bytes_mut()[range]
    }

    /// A slab is `[layers, 2, kv_heads, PAGE_TOKENS, head_dim]`.
    fn page_range(&self, head: PageHead) -> Range<usize> {
        let AttentionShape { layers, kv_heads, head_dim, dtype, .. } = self.shape;
        assert!(head.layer < layers && head.kv_head < kv_heads);
        let bytes = PAGE_TOKENS * head_dim * dtype.size();
        let plane = (head.slab as usize * layers + head.layer) * 2 + head.half as usize;
        let start = (plane * kv_heads + head.kv_head) * bytes;
        start..start + bytes
    }
}
