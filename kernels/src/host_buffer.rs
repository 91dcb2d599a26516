//! Host memory that weights are read into and kernels can read from.

use crate::Dtype;

const ALIGN: usize = 64;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ALIGN]);

/// Zeroed bytes on a 64-byte boundary, so that rows start on cache lines and tiles load aligned.
pub struct HostBuffer {
    lines: Vec<Line>,
    len: usize,
}

impl HostBuffer {
    /// `len` zero bytes.
    pub fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line([0; ALIGN]); len.div_ceil(ALIGN)], len }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it holds no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `lines` is one allocation of at least `len` initialised bytes.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// The bytes, to be written.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably for as long as the slice lives.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
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
