//! Weights on their way to the device: threads read pieces into pinned buffers of their own, and
//! the copy engine fetches one while the next is being read. Nothing is held whole on the host.

use std::{
    num::NonZero,
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, available_parallelism},
};

use cudarc::driver::CudaEvent;

use super::{
    device::Device,
    memory::{DeviceBuffer, PinnedBuffer},
};
use crate::{DeviceError, MatrixSource};

/// Threads that read; memory is read and written by so many as fast as a bus takes it.
const READERS_MAX: usize = 8;
/// Bytes of a piece: long enough for the bus to reach its rate, short enough for small matrices to
/// be shared out.
const PIECE_BYTES: usize = 2 << 20;

/// Pinned memory and who fills it; it is allocated when it is first needed.
pub(super) struct Upload {
    readers: Vec<Reader>,
}

/// What one thread reads into.
struct Reader {
    device: Arc<Device>,
    /// One is read into while the other is copied from.
    slots: [Option<Slot>; 2],
}

/// A piece on its way.
struct Slot {
    piece: PinnedBuffer,
    /// After the latest copy from it.
    copied: Option<CudaEvent>,
}

impl Upload {
    pub(super) fn new(device: &Arc<Device>) -> Self {
        let cores = available_parallelism().map_or(1, NonZero::get);
        let reader = || Reader { device: device.clone(), slots: [None, None] };
        Self { readers: (0..cores.min(READERS_MAX)).map(|_| reader()).collect() }
    }

    /// Copies a matrix to the head of `to`, in stream order. When it returns the source has been
    /// read; the last pieces may still be on their way.
    pub(super) fn send(
        &mut self,
        source: &impl MatrixSource,
        to: &DeviceBuffer,
    ) -> Result<(), DeviceError> {
        assert!(source.bytes() <= to.len(), "room for the whole matrix");
        let next = AtomicUsize::new(0);
        let readers = source.bytes().div_ceil(PIECE_BYTES).clamp(1, self.readers.len());
        let (first, others) = self.readers[..readers].split_first_mut().expect("one at least");
        thread::scope(|scope| {
            let next = &next;
            let run = |reader: &mut Reader| reader.run(source, to, next);
            let others: Vec<_> =
                others.iter_mut().map(|reader| scope.spawn(move || run(reader))).collect();
            let own = run(first);
            let join = |other: thread::ScopedJoinHandle<'_, _>| {
                other.join().unwrap_or_else(|cause| panic::resume_unwind(cause))
            };
            others.into_iter().map(join).fold(own, Result::and)
        })
    }
}

impl Reader {
    /// Takes pieces in turn with the other readers until none is left.
    fn run(
        &mut self,
        source: &impl MatrixSource,
        to: &DeviceBuffer,
        next: &AtomicUsize,
    ) -> Result<(), DeviceError> {
        self.device.context.bind_to_thread().expect("the context is alive");
        loop {
            let start = next.fetch_add(1, Ordering::Relaxed) * PIECE_BYTES;
            let Some(rest) = source.bytes().checked_sub(start).filter(|&rest| rest > 0) else {
                return Ok(());
            };
            let len = rest.min(PIECE_BYTES);
            let slot = self.free_slot()?;
            let read = source.read(start, &mut slot.piece.bytes_mut()[..len]);
            if let Err(why) = read {
                // The others need not read what will not be used.
                next.store(source.bytes().div_ceil(PIECE_BYTES), Ordering::Relaxed);
                return Err(DeviceError::Weights(why));
            }
            to.write_pinned(start, &slot.piece, len);
            let copied = self.device.stream().record_event(None).expect("an event after the copy");
            self.slots[1].as_mut().expect("just filled").copied = Some(copied);
        }
    }

    /// The slot that was filled longest ago, now the last, once the device has copied from it.
    fn free_slot(&mut self) -> Result<&mut Slot, DeviceError> {
        self.slots.swap(0, 1);
        let slot = match self.slots[1].take() {
            Some(slot) => slot,
            None => {
                let piece = PinnedBuffer::new(&self.device, PIECE_BYTES, "weights on their way")?;
                Slot { piece, copied: None }
            }
        };
        if let Some(copied) = &slot.copied {
            copied.synchronize().expect("the copy of an earlier piece");
        }
        Ok(self.slots[1].insert(slot))
    }
}
