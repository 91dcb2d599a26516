//! The kernels of this backend, loaded on the device.

use std::{collections::HashMap, sync::Arc};

use cudarc::{
    driver::{CudaFunction, CudaModule, sys::CUfunction_attribute},
    nvrtc::Ptx,
};

use super::{
    compiler::{Source, compile},
    device::Device,
};
use crate::{BlobCache, DeviceError};

/// Loaded modules by the name of their source.
pub(super) struct Modules {
    modules: HashMap<&'static str, Arc<CudaModule>>,
    functions: HashMap<String, CudaFunction>,
}

impl Modules {
    /// Compiles every source, several at a time, and loads what came of it.
    pub(super) fn load(
        device: &Device,
        sources: &[Source],
        cache: &dyn BlobCache,
    ) -> Result<Self, DeviceError> {
        let compiled: Vec<Result<Vec<u8>, DeviceError>> = std::thread::scope(|scope| {
            let compile = |&source| scope.spawn(move || compile(source, &device.arch, cache));
            let threads: Vec<_> = sources.iter().map(compile).collect();
            threads.into_iter().map(|t| t.join().expect("the compiler does not panic")).collect()
        });
        let mut modules = HashMap::new();
        for (source, cubin) in sources.iter().zip(compiled) {
            let module = device.context.load_module(Ptx::from_binary(cubin?));
            let module = module.map_err(|error| {
                DeviceError::Kernel(format!("loading {}.cu: {error}", source.name))
            })?;
            modules.insert(source.name, module);
        }
        Ok(Self { modules, functions: HashMap::new() })
    }

    /// A kernel of a module, with room for `shared` bytes of dynamic shared memory.
    pub(super) fn function(&mut self, module: &str, name: &str, shared: u32) -> &CudaFunction {
        let key = format!("{module}/{name}/{shared}");
        let modules = &self.modules;
        self.functions.entry(key).or_insert_with(|| {
            let function = modules[module].load_function(name).expect("a kernel of the module");
            if shared > 48 << 10 {
                let most = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
                function.set_attribute(most, shared as i32).expect("within the device's limit");
            }
            function
        })
    }
}
