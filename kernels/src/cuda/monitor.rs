//! What the driver says about a GPU's memory, by way of NVML. Where its library is not installed
//! or does not answer, nothing is said.

use std::{
    ffi::{CStr, CString, c_char, c_int, c_uint, c_void},
    process, ptr,
};

use cudarc::driver::{result, sys};
use libloading::Library;

use crate::DeviceReading;

const LIBRARY: &str = "libnvidia-ml.so.1";
/// Processes on one GPU that are looked through for this one.
const PROCESSES: usize = 256;
/// Room for "00000000:1B:00.0".
const BUS_ID: usize = 32;

/// `nvmlMemory_t`
#[derive(Default)]
#[repr(C)]
struct Memory {
    total: u64,
    free: u64,
    used: u64,
}

/// `nvmlProcessInfo_t`
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Process {
    pid: c_uint,
    used: u64,
    gpu_instance: c_uint,
    compute_instance: c_uint,
}

type Init = unsafe extern "C" fn() -> c_int;
type HandleByBus = unsafe extern "C" fn(*const c_char, *mut *mut c_void) -> c_int;
type MemoryInfo = unsafe extern "C" fn(*mut c_void, *mut Memory) -> c_int;
type Processes = unsafe extern "C" fn(*mut c_void, *mut c_uint, *mut Process) -> c_int;

/// NVML's view of one GPU.
pub struct Monitor {
    /// `nvmlDevice_t`, good until the library is shut down.
    device: *mut c_void,
    memory: MemoryInfo,
    processes: Option<Processes>,
    shutdown: Init,
    /// What the functions are part of.
    _library: Library,
}

// SAFETY: NVML may be called from any thread, and a device handle names no thread.
unsafe impl Send for Monitor {}
// SAFETY: as above; it locks by itself.
unsafe impl Sync for Monitor {}

impl Monitor {
    /// NVML's view of the GPU with that number of the driver's.
    pub(super) fn open(ordinal: usize) -> Option<Self> {
        let bus = bus_id(ordinal)?;
        // SAFETY: the library is NVIDIA's and its initialisers are its own; the symbols have the
        // types that `nvml.h` gives them, and `shutdown` answers `init` once.
        unsafe {
            let library = Library::new(LIBRARY).ok()?;
            let init = *library.get::<Init>(b"nvmlInit_v2\0").ok()?;
            let handle = *library.get::<HandleByBus>(b"nvmlDeviceGetHandleByPciBusId_v2\0").ok()?;
            let memory = *library.get::<MemoryInfo>(b"nvmlDeviceGetMemoryInfo\0").ok()?;
            let processes = library.get(b"nvmlDeviceGetComputeRunningProcesses_v3\0");
            let processes = processes.ok().map(|symbol| *symbol);
            let shutdown = *library.get::<Init>(b"nvmlShutdown\0").ok()?;
            if init() != 0 {
                return None;
            }
            let mut device = ptr::null_mut();
            let found = handle(bus.as_ptr(), &mut device) == 0;
            let monitor = Self { device, memory, processes, shutdown, _library: library };
            found.then_some(monitor)
        }
    }

    /// The memory now.
    pub fn read(&self) -> Option<DeviceReading> {
        let mut memory = Memory::default();
        // SAFETY: the device is open and the place is a whole `nvmlMemory_t`.
        let read = unsafe { (self.memory)(self.device, &mut memory) };
        let (used, total) = (memory.used as usize, memory.total as usize);
        (read == 0).then(|| DeviceReading { used, total, process: self.process() })
    }

    /// Of this process. In a container NVML may not know it by the number it has here.
    fn process(&self) -> Option<usize> {
        let processes = self.processes?;
        let mut found = [Process::default(); PROCESSES];
        let mut count = PROCESSES as c_uint;
        // SAFETY: the device is open, and there is room for `count` entries.
        let read = unsafe { processes(self.device, &mut count, found.as_mut_ptr()) };
        let mut ours =
            found[..PROCESSES.min(count as usize)].iter().filter(|p| p.pid == process::id());
        let used = ours.next().filter(|_| read == 0)?.used;
        // All ones is NVML's "not available".
        (used != u64::MAX).then_some(used as usize)
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        // SAFETY: initialised in `open`. There is nobody to tell of a failure.
        let _ = unsafe { (self.shutdown)() };
    }
}

/// How CUDA and NVML both name a GPU, whatever CUDA_VISIBLE_DEVICES numbers.
fn bus_id(ordinal: usize) -> Option<CString> {
    let device = result::device::get(c_int::try_from(ordinal).ok()?).ok()?;
    let mut name: [c_char; BUS_ID] = [0; BUS_ID];
    // SAFETY: there is room for that many characters, the last of which ends the name.
    let named = unsafe { sys::cuDeviceGetPCIBusId(name.as_mut_ptr(), BUS_ID as c_int, device) };
    named.result().ok()?;
    // SAFETY: the driver ended the name.
    Some(unsafe { CStr::from_ptr(name.as_ptr()) }.to_owned())
}
