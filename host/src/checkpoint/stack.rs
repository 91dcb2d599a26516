//! A weight matrix in the files of a checkpoint: tensors of equal width, one below the other.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use switchyard_kernels::{Dtype, MatrixSource, SourceError};

use super::{CheckpointError, TensorEntry, TensorFile};

/// Counts what has been read.
pub(super) struct Meter {
    read: AtomicU64,
    total: u64,
    progress: Box<dyn Fn(u64, u64) + Send + Sync>,
}

impl Meter {
    pub(super) fn new(total: u64, progress: impl Fn(u64, u64) + Send + Sync + 'static) -> Self {
        Self { read: AtomicU64::new(0), total, progress: Box::new(progress) }
    }

    pub(super) fn advance(&self, bytes: usize) {
        let before = self.read.fetch_add(bytes as u64, Ordering::Relaxed);
        (self.progress)(before + bytes as u64, self.total);
    }
}

/// Tensors stacked along their rows, read where and when a backend asks.
pub struct TensorStack {
    dtype: Dtype,
    /// `[rows, cols]`
    shape: [usize; 2],
    parts: Vec<Part>,
    meter: Arc<Meter>,
}

/// One tensor of a stack.
struct Part {
    file: Arc<TensorFile>,
    entry: TensorEntry,
    name: String,
}

impl TensorStack {
    /// Of checked tensors, each with its file and name, converted to `dtype` as they are read.
    pub(super) fn new(
        dtype: Dtype,
        parts: Vec<(Arc<TensorFile>, TensorEntry, String)>,
        meter: Arc<Meter>,
    ) -> Self {
        let part = |(file, entry, name)| Part { file, entry, name };
        let parts: Vec<_> = parts.into_iter().map(part).collect();
        let rows = parts.iter().map(|part| part.entry.shape[0]).sum();
        let shape = [rows, parts[0].entry.shape[1]];
        Self { dtype, shape, parts, meter }
    }
}

impl MatrixSource for TensorStack {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> [usize; 2] {
        self.shape
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), SourceError> {
        let size = self.dtype.size();
        assert!(start + out.len() <= self.bytes(), "a read within the matrix");
        let (mut first, mut rest) = (start / size, out);
        for Part { file, entry, name } in &self.parts {
            let elements = entry.elements();
            if first >= elements {
                first -= elements;
                continue;
            }
            let (piece, after) = rest.split_at_mut(rest.len().min((elements - first) * size));
            file.read((entry, first), self.dtype, piece)
                .map_err(|why| CheckpointError::Tensor { tensor: name.clone(), why })?;
            self.meter.advance(piece.len() / size * entry.dtype.size());
            if after.is_empty() {
                return Ok(());
            }
            (first, rest) = (0, after);
        }
        unreachable!("the parts hold the whole matrix")
    }
}
