//! Memory on the device and pinned memory on the host.

use std::{sync::Arc, thread};

use cudarc::driver::{result, sys};
use memmap2::{Advice, MmapMut};

use super::device::Device;
use crate::DeviceError;

/// Bytes on the device; contents unspecified until written.
pub(super) struct DeviceBuffer {
    device: Arc<Device>,
    address: sys::CUdeviceptr,
    len: usize,
    what: &'static str,
}

impl DeviceBuffer {
    pub(super) fn new(
        device: &Arc<Device>,
        len: usize,
        what: &'static str,
    ) -> Result<Self, DeviceError> {
        device.context.bind_to_thread().expect("the context is alive");
        // SAFETY: the context is current; the allocation is freed once, in `drop`.
        let address = unsafe { result::malloc_sync(len.max(1)) };
        let address = address.map_err(|_| device.out_of_memory(what, len))?;
        device.ledger.add(what, len);
        Ok(Self { device: device.clone(), address, len, what })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Where it lies, for kernels.
    pub(super) fn address(&self) -> sys::CUdeviceptr {
        self.address
    }

    /// Writes `bytes` at `offset` after everything queued so far; they are read before it returns.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.len, "a write within the buffer");
        let (to, stream) = (self.address + offset as u64, self.device.stream().cu_stream());
        // SAFETY: the range is within the allocation; pageable memory is staged by the driver
        // before the call returns.
        let done = unsafe { result::memcpy_htod_async(to, bytes, stream) };
        done.expect("copy to the device");
    }

    /// Writes a pinned buffer's head at `offset` in stream order; `from` must stay as it is until
    /// the stream has passed. Threads may write parts of a buffer side by side.
    pub(super) fn write_pinned(&self, offset: usize, from: &PinnedBuffer, len: usize) {
        assert!(offset + len <= self.len && len <= from.len, "a write within both buffers");
        let (to, stream) = (self.address + offset as u64, self.device.stream().cu_stream());
        // SAFETY: both ranges are within their allocations.
        let done =
            unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.pages.as_ptr().cast(), len, stream) }
                .result();
        done.expect("copy to the device");
    }

    /// Reads `len` bytes from the start, waiting for everything queued so far.
    pub(super) fn read(&self, len: usize) -> Vec<u8> {
        assert!(len <= self.len, "a read within the buffer");
        let mut bytes = vec![0; len];
        let stream = self.device.stream().cu_stream();
        // SAFETY: the range is within the allocation, and the stream is waited for below.
        let copied = unsafe { result::memcpy_dtoh_async(&mut bytes, self.address, stream) };
        copied.and_then(|()| self.device.stream().synchronize()).expect("copy from the device");
        bytes
    }
}

impl Drop for DeviceBuffer {
    fn drop(&mut self) {
        if !thread::panicking() {
            // Launches that wait may use it.
            self.device.stream();
        }
        // The device may already be lost; there is nobody to tell.
        let _ = self.device.context.bind_to_thread();
        // SAFETY: allocated in `new`, freed here alone; freeing waits for kernels that use it.
        let _ = unsafe { result::free_sync(self.address) };
        self.device.ledger.remove(self.what, self.len);
    }
}

/// Page-locked host memory, which copies run from without staging.
///
/// Pages are there before they are locked: where the driver allocates them itself, nobody launches
/// anything until it has.
pub(crate) struct PinnedBuffer {
    device: Arc<Device>,
    pages: MmapMut,
    len: usize,
}

impl PinnedBuffer {
    pub(crate) fn new(
        device: &Arc<Device>,
        len: usize,
        what: &'static str,
    ) -> Result<Self, DeviceError> {
        let refused =
            || DeviceError::OutOfMemory { what, bytes: len, device: "pinned host".to_owned() };
        let mut pages = MmapMut::map_anon(len.max(1)).map_err(|_| refused())?;
        // Fewer to touch, where the system has large ones.
        let _ = pages.advise(Advice::HugePage);
        pages.fill(0);
        device.context.bind_to_thread().expect("the context is alive");
        let address = pages.as_mut_ptr().cast();
        // SAFETY: the context is current; the pages are unlocked in `drop`, before they are
        // unmapped.
        let locked = unsafe { sys::cuMemHostRegister_v2(address, pages.len(), 0) };
        locked.result().map_err(|_| refused())?;
        Ok(Self { device: device.clone(), pages, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.pages[..self.len]
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.pages[..self.len]
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // Copies from it may still run; the device may already be lost.
        self.device.wait();
        // SAFETY: locked in `new`, unlocked here alone.
        let _ = unsafe { sys::cuMemHostUnregister(self.pages.as_mut_ptr().cast()) };
    }
}
