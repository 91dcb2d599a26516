//! A GPU: its context, its stream and what it can do.

use std::{
    fmt::Display,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cudarc::{
    cublaslt,
    driver::{CudaContext, CudaStream, DriverError, result, sys},
    nvrtc,
};

use super::{
    launch::Launch,
    ledger::Ledger,
    monitor::Monitor,
    replay::{Replay, ReplayCounts},
    step::Class,
};
use crate::DeviceError;

/// Oldest compute capability: bf16 on tensor cores and asynchronous copies.
const CAPABILITY_MIN: (i32, i32) = (8, 0);

/// An opened GPU. Everything that lives on it holds one.
pub(crate) struct Device {
    pub(super) context: Arc<CudaContext>,
    /// Every kernel and every ordered copy runs here.
    stream: Arc<CudaStream>,
    replay: Mutex<Replay>,
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
        let open = || -> Result<((i32, i32), Self), DriverError> {
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
            let capability = context.compute_capability()?;
            let (name, arch) = (context.name()?, target(capability));
            let replay = Mutex::default();
            let device =
                Self { context, stream, replay, name, arch, processors, shared_max, ledger };
            Ok((capability, device))
        };
        let opened = open();
        let (capability, device) =
            opened.map_err(|e| unavailable(format!("cuda:{ordinal} did not open"), e))?;
        if capability < CAPABILITY_MIN {
            return Err(DeviceError::Unavailable(format!(
                "cuda:{ordinal} ({}, {}) is too old: kernels need sm_80 (Ampere) or later",
                device.name, device.arch
            )));
        }
        Ok(Arc::new(device))
    }

    /// Memory that nobody has taken.
    pub(super) fn free_bytes(&self) -> usize {
        self.context.mem_get_info().map_or(0, |(free, _)| free)
    }

    /// The stream, for whatever comes after all launches so far.
    pub(super) fn stream(&self) -> &Arc<CudaStream> {
        self.replay().flush(&self.context, self.stream.cu_stream());
        &self.stream
    }

    /// Waits for what has been queued. Launches on hold stay so: any thread may call it.
    pub(super) fn wait(&self) {
        // The device may already be lost; there is nobody to tell.
        let _ = self.stream.synchronize();
    }

    /// Begins a step of that class: its launches may wait until something else wants the stream.
    pub(super) fn hold(&self, class: Option<Class>) {
        self.stream();
        self.replay().hold(class);
    }

    /// Queues a kernel.
    pub(super) fn launch(&self, launch: Launch) {
        self.replay().launch(launch, self.stream.cu_stream());
    }

    /// How steps were launched so far.
    pub(super) fn replay_counts(&self) -> ReplayCounts {
        self.replay().counts()
    }

    fn replay(&self) -> MutexGuard<'_, Replay> {
        self.replay.lock().unwrap_or_else(PoisonError::into_inner)
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
            "no NVIDIA driver on this machine (libcuda.so was not found): `apt-get install \
             cuda-drivers` from NVIDIA's repository installs it, else use the device \"cpu\""
                .to_owned(),
        ));
    }
    let counted = result::init().and_then(|()| CudaContext::device_count());
    let count =
        counted.map_err(|error| unavailable("the NVIDIA driver has no usable GPU", error))?;
    Ok(count.unsigned_abs() as usize)
}

/// What stands below a GPU that has been opened: "driver for CUDA 13.0, NVRTC 13.0, cuBLASLt 13.1".
pub fn versions() -> String {
    let (mut driver, mut major, mut minor) = (0, 0, 0);
    // SAFETY: all places are writable; the libraries were found when the GPU was opened.
    let library = unsafe {
        let _ = sys::cuDriverGetVersion(&mut driver);
        let _ = nvrtc::sys::nvrtcVersion(&mut major, &mut minor);
        cublaslt::sys::cublasLtGetVersion()
    };
    format!(
        "driver for CUDA {}.{}, NVRTC {major}.{minor}, cuBLASLt {}.{}",
        driver / 1000,
        driver % 1000 / 10,
        library / 10_000,
        library % 10_000 / 100
    )
}

/// The compiler's name of an architecture; Hopper and later have features under an `a`.
fn target((major, minor): (i32, i32)) -> String {
    let suffix = if (9..12).contains(&major) { "a" } else { "" };
    format!("sm_{major}{minor}{suffix}")
}

fn unavailable(what: impl Display, error: DriverError) -> DeviceError {
    DeviceError::Unavailable(format!("{what}: {error}"))
}
