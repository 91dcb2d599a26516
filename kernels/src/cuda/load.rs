//! Adapter images on their way into the pool: one copy per slab, in order, on a stream of their
//! own beside the one that kernels run on.
//!
//! The two streams are not ordered with each other, and need not be. Nothing that has been queued
//! reads or writes the slabs of a load: the engine takes a slab back only after the tokens of the
//! last step that used it have been collected, so that step has run. Nothing is queued that does
//! before [`Load::elapsed`] has said that the copy is complete: work that is launched after the
//! host has seen an event comes after it.

use std::{sync::Arc, time::Duration};

use cudarc::driver::{CudaEvent, CudaStream, sys};

use super::{device::Device, pool::Pool};
use crate::{DeviceError, HostBuffer};

/// The stream that images are copied on.
pub(super) struct Loader {
    device: Arc<Device>,
    stream: Arc<CudaStream>,
}

/// One image on its way.
pub struct Load {
    /// Read by the copies; nobody writes what is shared.
    _image: Arc<HostBuffer>,
    started: CudaEvent,
    done: CudaEvent,
}

impl Loader {
    pub(super) fn new(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let stream = device.context.new_stream().map_err(|error| {
            DeviceError::Unavailable(format!("no stream for copies on {}: {error}", device.name))
        })?;
        Ok(Self { device: device.clone(), stream })
    }

    /// Queues the copies. From pageable memory the driver stages them and may keep the caller
    /// waiting.
    pub(super) fn begin(&self, pool: &Pool, image: Arc<HostBuffer>, slabs: &[u32]) -> Load {
        // Timed, and whoever waits for them sleeps.
        let flags = Some(sys::CUevent_flags::CU_EVENT_BLOCKING_SYNC);
        let event = || self.device.context.new_event(flags).expect("the context is alive");
        let (started, done) = (event(), event());
        started.record(&self.stream).expect("an event ahead of a copy");
        let pieces = image.bytes().chunks(pool.shape().slab_bytes());
        assert_eq!(pieces.len(), slabs.len(), "one pool slab per slab of the image");
        for (piece, &slab) in pieces.zip(slabs) {
            let (to, stream) = (pool.slab_address(slab), self.stream.cu_stream());
            // SAFETY: a piece is at most a slab, which lies in the pool. The image outlives the
            // copy: dropping the load waits for it; the pool does too, for a loader that goes
            // before it has waited for its stream.
            let copied = unsafe {
                sys::cuMemcpyHtoDAsync_v2(to, piece.as_ptr().cast(), piece.len(), stream)
            };
            copied.result().expect("a copy to the pool");
        }
        done.record(&self.stream).expect("an event behind a copy");
        Load { _image: image, started, done }
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        // The device may already be lost.
        let _ = self.stream.synchronize();
    }
}

impl Load {
    /// How long the copy took, once it is complete.
    pub(super) fn elapsed(&self) -> Option<Duration> {
        if !self.done.try_is_complete().expect("the copy of an adapter") {
            return None;
        }
        let ms = self.started.elapsed_ms(&self.done).expect("two events that have been recorded");
        Some(Duration::from_secs_f64(f64::from(ms) * 1e-3))
    }

    pub(super) fn wait(&self) {
        self.done.synchronize().expect("the copy of an adapter");
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // The device may already be lost.
        let _ = self.done.synchronize();
    }
}
