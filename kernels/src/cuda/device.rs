//! A GPU: its context, its stream and what it can do.

use std::{fmt::Display, sync::Arc};

use cudarc::driver::{CudaContext, CudaStream, DriverError, result, sys};

use super::{ledger::Ledger, monitor::Monitor};
use crate::DeviceError;

/// An opened GPU. Everything that lives on it holds one.
pub(crate) struct Device {
    pub(super) context: Arc<CudaContext>,
    /// Every kernel and every ordered copy runs here.
    pub(super) stream: Arc<CudaStream>,
    /// As the driver calls it: "NVIDIA H200".
    pub(super) name: String,
    /// Target of the compiler: "sm_90a".
    pub(super) arch: String,
    /// Multiprocessors.
    pub(super) processors: u32,
    /// Most dynamic shared memory of a block, bytes.
    pub(super) shared_max: u32,
    /// Whose its memory is.
    pub(super) ledger: Ledger,
}

impl Device {
    /// Opens the GPU of that number, or says what is missing.
    pub(super) fn open(ordinal: usize) -> Result<Arc<Self>, DeviceError> {
        let count = devices()?;
        if count <= ordinal {
            let plural = if count == 1 { "" } else { "s" };
            return Err(DeviceError::Unavailable(format!(
                "cuda:{ordinal} does not exist: the driver sees {count} GPU{plural}, from 0"
            )));
        }
        // Before the context, which takes memory too.
        let ledger = Ledger::new(Monitor::open(ordinal));
        let open = || -> Result<Self, DriverError> {
            let context = CudaContext::new(ordinal)?;
            // SAFETY: everything runs on one stream, and copies on another are ordered by events
            // of our own.
            unsafe { context.disable_event_tracking() };
            let stream = context.new_stream()?;
            let number = |what| context.attribute(what).map(i32::unsigned_abs);
            use sys::CUdevice_attribute as Attribute;
            let processors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
            let shared_max =
                number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
            let (major, minor) = context.compute_capability()?;
            let (name, arch) = (context.name()?, target(major, minor));
            Ok(Self { context, stream, name, arch, processors, shared_max, ledger })
        };
        let device = open().map_err(|e| unavailable(format!("cuda:{ordinal} did not open"), e))?;
        Ok(Arc::new(device))
    }

    /// The error of an allocation that the device refused.
    pub(super) fn out_of_memory(&self, what: &'static str, bytes: usize) -> DeviceError {
        DeviceError::OutOfMemory { what, bytes, device: self.name.clone() }
    }
}

/// GPUs that the driver sees, at least one; an error says what is missing.
pub fn devices() -> Result<usize, DeviceError> {
    // SAFETY: looks a library up by name; its initialisers are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(DeviceError::Unavailable(
            "no NVIDIA driver on this machine (libcuda.so was not found): install one, or set \
             `engine.device = \"cpu\"`"
                .to_owned(),
        ));
    }
    let counted = result::init().and_then(|()| CudaContext::device_count());
    let count =
        counted.map_err(|error| unavailable("the NVIDIA driver has no usable GPU", error))?;
    Ok(count.unsigned_abs() as usize)
}

/// The compiler's name of an architecture; Hopper and later have features under an `a`.
fn target(major: i32, minor: i32) -> String {
    let suffix = if (9..12).contains(&major) { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}

fn unavailable(what: impl Display, error: DriverError) -> DeviceError {
    DeviceError::Unavailable(format!("{what}: {error}"))
}
