//! Host memory that weights are read into and kernels can read from.

use std::{mem, sync::Arc};

use crate::{Dtype, cuda::PinnedBuffer, host_memory::Home};

const ALIGN: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(crate) struct Line([u8; ALIGN]);

/// One allocation of initialised bytes on a 64-byte boundary.
pub(crate) enum Block {
    /// The system may move it out of memory; copies to a GPU are staged.
    Pageable(Vec<Line>),
    /// A GPU copies straight from it.
    Pinned(PinnedBuffer),
}

impl Block {
    /// At least `len` zero bytes.
    pub(crate) fn pageable(len: usize) -> Self {
        Self::Pageable(vec![Line([0; ALIGN]); len.div_ceil(ALIGN)])
    }

    fn bytes(&self) -> &[u8] {
        match self {
            // SAFETY: `lines` is one allocation of that many initialised bytes.
            Self::Pageable(lines) => unsafe {
                std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * ALIGN)
            },
            Self::Pinned(buffer) => buffer.bytes(),
        }
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        match self {
            // SAFETY: as in `bytes`, and `self` is borrowed mutably for as long as the slice lives.
            Self::Pageable(lines) => unsafe {
                std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast(), lines.len() * ALIGN)
            },
            Self::Pinned(buffer) => buffer.bytes_mut(),
        }
    }
}

/// Bytes on a 64-byte boundary, so that rows start on cache lines and tiles load aligned.
pub struct HostBuffer {
    block: Block,
    len: usize,
    /// Bytes of the block; where it comes from and goes back to.
    home: Option<(usize, Arc<Home>)>,
}

impl HostBuffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { block: Block::pageable(len), len, home: None }
    }

    /// The head of a block of `capacity` bytes that goes back when the buffer is dropped.
    pub(crate) fn lent(block: Block, len: usize, (capacity, home): (usize, Arc<Home>)) -> Self {
        assert!(len <= capacity && capacity <= block.bytes().len(), "a block with room");
        Self { block, len, home: Some((capacity, home)) }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Bytes of memory that it takes, at least its length.
    pub fn capacity(&self) -> usize {
        self.home.as_ref().map_or(self.len, |(capacity, _)| *capacity)
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.block.bytes()[..self.len]
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.block.bytes_mut()[..self.len]
    }
}

impl Drop for HostBuffer {
    fn drop(&mut self) {
        if let Some((capacity, home)) = self.home.take() {
            let nothing = Block::Pageable(Vec::new());
            home.give_back(mem::replace(&mut self.block, nothing), capacity);
        }
    }
}

/// A weight matrix in host memory, row-major `[rows, cols]` = `[out, in]` as checkpoints store it.
pub struct HostMatrix {
    /// Element type of `data`.
    pub dtype: Dtype,
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub cols: usize,
    /// `rows * cols` elements, little endian.
    pub data: HostBuffer,
}

impl HostMatrix {
    /// A zero matrix.
    pub fn zeroed(dtype: Dtype, rows: usize, cols: usize) -> Self {
        Self { dtype, rows, cols, data: HostBuffer::zeroed(rows * cols * dtype.size()) }
    }
}
