//! One kernel launch: its grid, its parameters and the attributes that cudarc's builder lacks.

use std::{ffi::c_void, mem::zeroed, ptr};

use cudarc::driver::{CudaFunction, sys};

/// How a kernel is spread over the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Grid {
    /// Blocks.
    pub(super) blocks: [u32; 3],
    /// Threads of a block.
    pub(super) threads: u32,
    /// Dynamic shared memory of a block, bytes.
    pub(super) shared: u32,
    /// Blocks of a cluster, along x; 1 is none.
    pub(super) cluster: u32,
}

impl Grid {
    /// Blocks of one dimension, no dynamic shared memory, no clusters.
    pub(super) const fn flat(blocks: u32, threads: u32) -> Self {
        Self { blocks: [blocks, 1, 1], threads, shared: 0, cluster: 1 }
    }

    /// Blocks of such a kernel that a device of so many multiprocessors holds at a time. Those of a
    /// cluster need places close to each other, so that some stay empty.
    pub(super) fn resident(&self, function: &CudaFunction, processors: u32) -> u32 {
        if self.cluster == 1 {
            let shared = self.shared as usize;
            let blocks =
                function.occupancy_max_active_blocks_per_multiprocessor(self.threads, shared, None);
            return processors * blocks.expect("a loaded kernel");
        }
        let mut clusters = 0;
        let function = function.cu_function();
        self.with_config(ptr::null_mut(), |config| {
            // SAFETY: a loaded kernel and a description of its launch, which the driver reads.
            let counted =
                unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, function, config) };
            counted.result().expect("room for a block");
        });
        clusters.unsigned_abs() * self.cluster
    }

    /// Calls `f` with the driver's description of a launch, which may start before its predecessor
    /// has ended.
    fn with_config<R>(
        &self,
        stream: sys::CUstream,
        f: impl FnOnce(&sys::CUlaunchConfig) -> R,
    ) -> R {
        use sys::CUlaunchAttributeID as Id;
        // SAFETY: plain numbers, valid as zeros.
        let mut attributes: [sys::CUlaunchAttribute; 2] = unsafe { zeroed() };
        attributes[0].id = Id::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION;
        attributes[0].value.programmaticStreamSerializationAllowed = 1;
        attributes[1].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[1].value.clusterDim.x = self.cluster;
        attributes[1].value.clusterDim.y = 1;
        attributes[1].value.clusterDim.z = 1;
        f(&sys::CUlaunchConfig {
            gridDimX: self.blocks[0],
            gridDimY: self.blocks[1],
            gridDimZ: self.blocks[2],
            blockDimX: self.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: self.shared,
            hStream: stream,
            attrs: attributes.as_mut_ptr(),
            numAttrs: if self.cluster > 1 { 2 } else { 1 },
        })
    }
}

/// A kernel's parameters in order, by value.
#[derive(Default, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Each parameter at a multiple of 64 bytes, the strictest alignment a kernel asks for.
    bytes: Vec<Cell>,
    starts: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C, align(64))]
struct Cell([u8; 64]);

/// A type that means the same to Rust and to the kernels.
///
/// # Safety
/// `repr(C)` or primitive, without padding, with the layout that the kernels' headers have.
pub(super) unsafe trait Parameter: Copy {}

// SAFETY: primitives.
unsafe impl Parameter for u32 {}
// SAFETY: as above.
unsafe impl Parameter for i32 {}
// SAFETY: as above.
unsafe impl Parameter for u64 {}
// SAFETY: as above.
unsafe impl Parameter for f32 {}

impl Parameters {
    /// Appends a parameter.
    pub(super) fn with<T: Parameter>(mut self, value: T) -> Self {
        let start = self.bytes.len();
        let cells = size_of::<T>().div_ceil(64).max(1);
        self.bytes.resize(start + cells, Cell([0; 64]));
        // SAFETY: the cells have room for a `T` and are aligned to 64 bytes, more than any
        // `Parameter` asks for.
        unsafe { self.bytes.as_mut_ptr().add(start).cast::<T>().write(value) };
        self.starts.push(start);
        self
    }
}

/// A kernel to be queued, with all it takes.
#[derive(PartialEq, Eq)]
pub(super) struct Launch {
    function: sys::CUfunction,
    grid: Grid,
    parameters: Parameters,
}

// SAFETY: the driver takes the handle on any thread.
unsafe impl Send for Launch {}

impl Launch {
    /// # Safety
    /// The function outlives the launch, the parameters are those of the kernel, and every address
    /// in them is good for what it does whenever the launch is issued.
    pub(super) unsafe fn new(function: &CudaFunction, grid: Grid, parameters: Parameters) -> Self {
        Self { function: function.cu_function(), grid, parameters }
    }

    /// Queues the kernel behind everything on the stream. It may start before its predecessor has
    /// ended and waits for it with `wait_for_predecessor()` (programmatic dependent launch).
    pub(super) fn issue(&self, stream: sys::CUstream) {
        let Self { function, grid, parameters: Parameters { bytes, starts } } = self;
        let pointer = |&start: &usize| ptr::from_ref(&bytes[start]).cast_mut().cast();
        let mut pointers: Vec<*mut c_void> = starts.iter().map(pointer).collect();
        grid.with_config(stream, |config| {
            // SAFETY: `new`'s caller answers for function and parameters; all that is pointed to
            // lives until the call returns, and the driver only reads parameters, before it does.
            let launched = unsafe {
                sys::cuLaunchKernelEx(config, *function, pointers.as_mut_ptr(), ptr::null_mut())
            };
            launched.result().expect("launch of a kernel");
        });
    }
}
