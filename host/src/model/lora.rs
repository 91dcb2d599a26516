//! An adapter's weights: checked and in host memory, then packed into the pool's slab image.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicBool},
};

use switchyard_kernels::{HostBuffer, HostMatrix, Linear, TileMap};

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
    /// `map.slabs` slabs of bytes; the last may be shorter.
    pub bytes: HostBuffer,
    /// Whether the pool holds it now. The engine writes it; routers and metrics read it through
    /// whatever still names the adapter.
    pub resident: Arc<AtomicBool>,
}

impl AdapterImage {
    /// Zeroed memory for an image's bytes, `[slabs, slab_bytes]`. Every image's memory comes from
    /// here, so that a device may ask for a kind that it copies faster from.
    pub fn room(slabs: u32, slab_bytes: usize) -> HostBuffer {
        HostBuffer::zeroed(slabs as usize * slab_bytes)
    }

    /// Whether nobody but the one holder of `self` knows of it: no name stands for the adapter and
    /// nobody keeps its image.
    pub fn is_forgotten(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1 && Arc::strong_count(&self.resident) == 1
    }
}
