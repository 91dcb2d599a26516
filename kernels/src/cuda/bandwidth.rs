//! How fast a GPU's memory is: what a byte floor is measured against.

use cudarc::driver::{DriverError, result, sys::CUevent_flags};

use super::{device::Device, memory::DeviceBuffer};
use crate::DeviceError;

/// Large against any cache.
const BYTES: usize = 1 << 30;
/// Copies that are timed as one, and how often; the first time warms up.
const COPIES: usize = 8;
const PASSES: usize = 5;
const WHAT: &str = "a probe of the memory's bandwidth";

/// Bytes per second that the GPU of that number reads and writes, together, when it copies within
/// its memory: the best of a few passes.
pub fn copy_bandwidth(ordinal: usize) -> Result<f64, DeviceError> {
    let device = Device::open(ordinal)?;
    let from = DeviceBuffer::new(&device, BYTES, WHAT)?;
    let to = DeviceBuffer::new(&device, BYTES, WHAT)?;
    let pass = || -> Result<f64, DriverError> {
        let event = || device.context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT));
        let (start, end) = (event()?, event()?);
        let stream = device.stream();
        start.record(stream)?;
        for _ in 0..COPIES {
            // SAFETY: both ranges are whole allocations that outlive the wait below.
            unsafe {
                result::memcpy_dtod_async(to.address(), from.address(), BYTES, stream.cu_stream())
            }?;
        }
        end.record(stream)?;
        Ok((2 * COPIES * BYTES) as f64 / (f64::from(start.elapsed_ms(&end)?) * 1e-3))
    };
    let mut best = 0.0;
    for _ in 0..PASSES {
        let measured = pass();
        let measured = measured.map_err(|e| DeviceError::Unavailable(format!("{WHAT}: {e}")))?;
        best = f64::max(best, measured);
    }
    Ok(best)
}
