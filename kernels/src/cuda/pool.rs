//! The unified pool in device memory: one allocation of slabs. Whose slab is whose is the engine's
//! affair; here only addresses are computed.

use std::sync::Arc;

use super::{device::Device, launch::Parameter, ledger::POOL, memory::DeviceBuffer};
use crate::{AttentionShape, DeviceError, Dtype, Tile};

/// Slabs on the device.
pub(super) struct Pool {
    shape: AttentionShape,
    /// `[slabs, slab_bytes]`
    memory: DeviceBuffer,
    /// `[rotary_dim / 2]` of the shape.
    pub(super) inv_freq: DeviceBuffer,
}

/// `Pool` of `prelude.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PoolView {
    memory: u64,
    slab_bytes: u64,
    layers: u32,
    kv_heads: u32,
    head_dim: u32,
    padding: u32,
}

// SAFETY: the layout of `Pool` in `prelude.cuh`.
unsafe impl Parameter for PoolView {}

impl Pool {
    /// A pool without slabs, before `reserve`.
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let shape = AttentionShape {
            layers: 0,
            heads: 0,
            kv_heads: 0,
            head_dim: 0,
            dtype: Dtype::F32,
            inv_freq: Vec::new(),
        };
        Self::reserve(device, &shape, 0)
    }

    pub(super) fn reserve(
        device: &Arc<Device>,
        shape: &AttentionShape,
        slabs: usize,
    ) -> Result<Self, DeviceError> {
        let bytes = shape.slab_bytes().checked_mul(slabs);
        let bytes = bytes.ok_or_else(|| device.out_of_memory(POOL, usize::MAX))?;
        let memory = DeviceBuffer::new(device, bytes, POOL)?;
        let frequencies: Vec<u8> = shape.inv_freq.iter().flat_map(|f| f.to_le_bytes()).collect();
        let mut inv_freq = DeviceBuffer::new(device, frequencies.len(), "rotary frequencies")?;
        inv_freq.write(0, &frequencies);
        Ok(Self { shape: shape.clone(), memory, inv_freq })
    }

    pub(super) fn shape(&self) -> &AttentionShape {
        &self.shape
    }

    /// For kernels.
    pub(super) fn view(&self) -> PoolView {
        PoolView {
            memory: self.memory.address(),
            slab_bytes: self.shape.slab_bytes() as u64,
            layers: self.shape.layers as u32,
            kv_heads: self.shape.kv_heads as u32,
            head_dim: self.shape.head_dim as u32,
            padding: 0,
        }
    }

    /// Where a slab begins.
    pub(super) fn slab_address(&self, slab: u32) -> u64 {
        let start = slab as usize * self.shape.slab_bytes();
        assert!(start + self.shape.slab_bytes() <= self.memory.len(), "a slab of the pool");
        self.memory.address() + start as u64
    }

    /// Where a tile of an image begins that stands in these slabs.
    pub(super) fn tile_address(&self, slabs: &[u32], tile: &Tile) -> u64 {
        self.slab_address(slabs[tile.slab as usize]) + u64::from(tile.offset)
    }
}
