//! Where a weight matrix comes from before a backend has it.

use std::error::Error;

use crate::{Dtype, HostMatrix};

/// Why weights could not be read; its text says where they lie.
pub type SourceError = Box<dyn Error + Send + Sync>;

/// A weight matrix that a backend reads in pieces, straight to where it keeps them.
///
/// Files stay on the host's side of the seam: a backend sees bytes alone.
pub trait MatrixSource: Send + Sync {
    /// Element type of what is read.
    fn dtype(&self) -> Dtype;
    /// `[rows, cols]` = `[out, in]`.
    fn shape(&self) -> [usize; 2];
    /// Fills `out` with the row-major, little-endian bytes from `start` on, a multiple of 8. Any
    /// number of threads may read.
    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), SourceError>;

    /// Bytes of the whole.
    fn bytes(&self) -> usize {
        self.shape().iter().product::<usize>() * self.dtype().size()
    }

    /// The whole in host memory.
    fn into_host(self) -> Result<HostMatrix, SourceError>
    where
        Self: Sized,
    {
        let [rows, cols] = self.shape();
        let mut matrix = HostMatrix::zeroed(self.dtype(), rows, cols);
        self.read(0, matrix.data.bytes_mut())?;
        Ok(matrix)
    }
}

impl MatrixSource for HostMatrix {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> [usize; 2] {
        [self.rows, self.cols]
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), SourceError> {
        out.copy_from_slice(&self.data.bytes()[start..][..out.len()]);
        Ok(())
    }

    fn into_host(self) -> Result<HostMatrix, SourceError> {
        Ok(self)
    }
}
