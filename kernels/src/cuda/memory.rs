//! Memory on the device and pinned memory on the host.

use std::{ffi::c_void, sync::Arc, thread};

use cudarc::driver::{result, sys};

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
        let done = unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.address, len, stream) }.result();
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
pub(crate) struct PinnedBuffer {
    device: Arc<Device>,
    address: *mut c_void,
    len: usize,
}

// SAFETY: plain memory with one owner.
unsafe impl Send for PinnedBuffer {}
// SAFETY: a shared reference only reads it.
unsafe impl Sync for PinnedBuffer {}

impl PinnedBuffer {
    pub(crate) fn new(
        device: &Arc<Device>,
        len: usize,
        what: &'static str,
    ) -> Result<Self, DeviceError> {
        device.context.bind_to_thread().expect("the context is alive");
        // SAFETY: the context is current; the allocation is freed once, in `drop`.
        let address = unsafe { result::malloc_host(len.max(1), 0) };
        let address = address.map_err(|_| DeviceError::OutOfMemory {
            what,
            bytes: len,
            device: "pinned host".to_owned(),
        })?;
        // SAFETY: `address` has room for `len` bytes.
        unsafe { std::ptr::write_bytes(address.cast::<u8>(), 0, len) };
        Ok(Self { device: device.clone(), address, len })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: one allocation of `len` bytes, initialised in `new`.
        unsafe { std::slice::from_raw_parts(self.address.cast(), self.len) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`, and `self` is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.address.cast(), self.len) }
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        // Copies from it may still run; the device may already be lost.
        self.device.wait();
        // SAFETY: allocated in `new`, freed here alone.
        let _ = unsafe { result::free_host(self.address) };
    }
}
