//! Where a weight matrix comes from before a backend has it.

use std::{
    error::Error,
    num::NonZero,
    panic,
    sync::{Mutex, PoisonError},
    thread::{self, available_parallelism},
};

use crate::{Dtype, HostMatrix};

/// Bytes that a thread reads at a time.
const PIECE_BYTES: usize = 4 << 20;

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

    /// The whole in host memory, read by several threads.
    fn into_host(self) -> Result<HostMatrix, SourceError>
    where
        Self: Sized,
    {
        let [rows, cols] = self.shape();
        let mut matrix = HostMatrix::zeroed(self.dtype(), rows, cols);
        let cores = available_parallelism().map_or(1, NonZero::get);
        let others = self.bytes().div_ceil(PIECE_BYTES).min(cores).saturating_sub(1);
        let pieces = Mutex::new(matrix.data.bytes_mut().chunks_mut(PIECE_BYTES).enumerate());
        let next = || pieces.lock().unwrap_or_else(PoisonError::into_inner).next();
        let read = || {
            while let Some((number, piece)) = next() {
                self.read(number * PIECE_BYTES, piece)?;
            }
            Ok(())
        };
        let done = thread::scope(|scope| {
            let others: Vec<_> = (0..others).map(|_| scope.spawn(read)).collect();
            let own = read();
            let join = |other: thread::ScopedJoinHandle<'_, _>| {
                other.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
            };
            others.into_iter().map(join).fold(own, Result::and)
        });
        done.map(|()| matrix)
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
