//! An adapter's weights: checked and in host memory, then packed into the pool's slab image.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use switchyard_kernels::{HostBuffer, HostMatrix, HostMemory, Linear, TileMap};

/// Identity of an adapter's content: a BLAKE3 hash over its canonical configuration and weights.
/// Two directories with the same content are the same adapter; a changed file is another one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterId(pub [u8; 32]);

impl fmt::Display for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..8].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for AdapterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdapterId({self})")
    }
}

/// LoRA weights of one linear, true rank, both in the base's element type.
pub struct LoraLinear {
    /// Decoder layer.
    pub layer: usize,
    /// Which of the layer's linears.
    pub linear: Linear,
    /// `alpha / r`, or `alpha / sqrt(r)` for rank-stabilised LoRA.
    pub scale: f32,
    /// `[rank, in]`
    pub a: HostMatrix,
    /// `[out, rank]`
    pub b: HostMatrix,
}

/// An adapter as checked against its base: every entry has the base's shapes.
pub struct LoraWeights {
    /// At most one per (layer, linear).
    pub linears: Vec<LoraLinear>,
}

/// An adapter packed for a pool: what residency copies, slab by slab. It comes and goes while the
/// adapter is registered.
pub struct AdapterImage {
    /// Identity of the content.
    pub id: AdapterId,
    /// Largest rank of any linear.
    pub rank: u32,
    /// Where the tiles lie.
    pub map: Arc<TileMap>,
    /// `map.slabs` slabs of bytes; the last may be shorter. A copy into the pool shares them.
    pub bytes: Arc<HostBuffer>,
    /// Whether the pool holds it now. The engine writes it; routers and metrics read it through
    /// whatever still names the adapter.
    pub resident: Arc<AtomicBool>,
}

impl AdapterImage {
    /// Whether nobody but the one holder of `self` knows of it: no name stands for the adapter and
    /// nobody keeps its image.
    pub fn is_forgotten(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.resident) == 1
    }
}

/// Where the bytes of images come from: all of them from one kind of host memory, that which the
/// device copies fastest from. Clones share it.
#[derive(Clone)]
pub struct ImageMemory {
    host: HostMemory,
    slab_bytes: usize,
}

impl ImageMemory {
    /// Memory for images of a pool whose slabs have that size.
    pub fn new(host: HostMemory, slab_bytes: usize) -> Self {
        Self { host, slab_bytes }
    }

    /// Memory that belongs to no device.
    pub fn pageable(slab_bytes: usize) -> Self {
        Self::new(HostMemory::pageable(), slab_bytes)
    }

    /// Bytes of a slab.
    pub fn slab_bytes(&self) -> usize {
        self.slab_bytes
    }

    /// Room for an image, `[slabs, slab_bytes]`, of unspecified contents.
    pub fn room(&self, slabs: u32) -> HostBuffer {
        self.host.buffer(slabs as usize * self.slab_bytes)
    }

    /// Bytes of memory that an image takes.
    pub fn capacity(&self, slabs: u32) -> usize {
        self.host.capacity(slabs as usize * self.slab_bytes)
    }

    /// The host memory itself.
    pub fn host(&self) -> &HostMemory {
        &self.host
    }
}
