//! The kernels of this backend, compiled and loaded while weights are read.

use std::{
    collections::HashMap,
    iter, panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

use cudarc::{
    driver::{CudaFunction, CudaModule, sys::CUfunction_attribute},
    nvrtc::Ptx,
};

use super::{
    compiler::{self, Source, compile},
    device::Device,
    launch::Grid,
};
use crate::{BlobCache, DeviceError};

/// Modules by the name of their source.
type Loaded = HashMap<&'static str, Arc<CudaModule>>;

/// What has been loaded, or will be.
pub(super) struct Modules {
    /// Compiles and loads, until somebody waits for it.
    coming: Option<JoinHandle<Result<Loaded, DeviceError>>>,
    modules: Loaded,
    functions: HashMap<String, CudaFunction>,
    /// Blocks of a function that the device holds at a time.
    resident: HashMap<String, u32>,
}

impl Modules {
    /// Begins to compile and load every source.
    pub(super) fn begin(
        device: &Arc<Device>,
        sources: Vec<Source>,
        cache: impl BlobCache + 'static,
    ) -> Result<Self, DeviceError> {
        compiler::find()?;
        let device = device.clone();
        let thread = thread::Builder::new().name("kernels".into());
        let coming = thread.spawn(move || load(&device, &sources, &cache)).map_err(|error| {
            DeviceError::Unavailable(format!("a thread that compiles kernels: {error}"))
        })?;
        Ok(Self {
            coming: Some(coming),
            modules: HashMap::new(),
            functions: HashMap::new(),
            resident: HashMap::new(),
        })
    }

    /// Waits until all is loaded.
    pub(super) fn wait(&mut self) -> Result<(), DeviceError> {
        if let Some(coming) = self.coming.take() {
            self.modules = coming.join().unwrap_or_else(|cause| panic::resume_unwind(cause))?;
        }
        Ok(())
    }

    /// A kernel of a module, with room for `shared` bytes of dynamic shared memory.
    pub(super) fn function(&mut self, module: &str, name: &str, shared: u32) -> &CudaFunction {
        self.wait().expect("kernels that compile and load");
        let key = format!("{module}/{name}/{shared}");
        let modules = &self.modules;
        self.functions.entry(key).or_insert_with(|| {
            let function = modules[module].load_function(name).expect("a kernel of the module");
            // All alike: a multiprocessor that has to be set up anew runs nothing meanwhile, and so
            // nothing ahead of time.
            let carveout = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
            function.set_attribute(carveout, 100).expect("a share of it, in percent");
            // A block has 48 KiB for both, the fixed and the dynamic part, unless it asks for more.
            let fixed = function.shared_size_bytes().expect("a loaded kernel");
            if fixed.unsigned_abs() + shared > 48 << 10 {
                let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, shared as i32).expect("within the device's limit");
            }
            function
        })
    }

    /// Blocks of a kernel, launched like those of `grid`, that a device of so many multiprocessors
    /// holds at a time.
    pub(super) fn resident(
        &mut self,
        (module, name): (&str, &str),
        grid: Grid,
        processors: u32,
    ) -> u32 {
        let key = format!("{module}/{name}");
        if let Some(&blocks) = self.resident.get(&key) {
            return blocks;
        }
        let blocks = grid.resident(self.function(module, name, grid.shared), processors);
        self.resident.insert(key, blocks);
        blocks
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        // The compiler must not outlive the process's other threads; what it says comes too late.
        if let Some(coming) = self.coming.take() {
            drop(coming.join());
        }
    }
}

/// Compiles every source, as many at a time as the machine has processors, and loads what came of
/// it.
fn load(device: &Device, sources: &[Source], cache: &dyn BlobCache) -> Result<Loaded, DeviceError> {
    let workers = thread::available_parallelism().map_or(1, usize::from).min(sources.len());
    let next = AtomicUsize::new(0);
    let work = || {
        let sources = iter::from_fn(|| sources.get(next.fetch_add(1, Ordering::Relaxed)));
        sources.map(|&source| (source, compile(source, &device.arch, cache))).collect::<Vec<_>>()
    };
    let compiled: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().expect("the compiler does not panic")).collect()
    });
    let mut modules = HashMap::new();
    for (source, cubin) in compiled {
        let module = device.context.load_module(Ptx::from_binary(cubin?));
        let module = module
            .map_err(|error| DeviceError::Kernel(format!("loading {}: {error}", source.name)))?;
        modules.insert(source.name, module);
    }
    Ok(modules)
}
