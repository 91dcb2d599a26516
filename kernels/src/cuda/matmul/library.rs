//! Products of many rows, by cuBLASLt.

mod descriptors;
mod plan;

use std::{collections::HashMap, sync::Arc};

use cudarc::cublaslt::{result, sys};

use super::{
    super::{Matrix, Tensor, device::Device, memory::DeviceBuffer},
    decode,
};
use crate::{DeviceError, Dtype};
use plan::{Plan, Shape};

/// What cuBLASLt may use between the kernels of a product; NVIDIA's advice for Hopper.
const WORKSPACE_BYTES: usize = 32 << 20;

/// cuBLASLt, and how it computes the shapes that have come up.
pub(in crate::cuda) struct Library {
    /// `None` where it has no algorithm.
    plans: HashMap<Shape, Option<Plan>>,
    engine: Engine,
}

// SAFETY: a handle is good on every thread, descriptors are plain memory, and one owner uses them.
unsafe impl Send for Library {}

/// The library's handle and the room that its products share.
struct Engine {
    device: Arc<Device>,
    handle: sys::cublasLtHandle_t,
    workspace: DeviceBuffer,
}

impl Library {
    /// Loads the library, or says that it is missing.
    pub(in crate::cuda) fn open(device: &Arc<Device>) -> Result<Self, DeviceError> {
        // SAFETY: looks a library up by name.
        if !unsafe { sys::is_culib_present() } {
            return Err(DeviceError::Unavailable(
                "cuBLASLt, the matrix library of CUDA, was not found (libcublasLt.so): `apt-get \
                 install cuda-libraries-13-0` from NVIDIA's repository installs it; so does `pip \
                 install nvidia-cublas` with its `lib` folder on LD_LIBRARY_PATH"
                    .to_owned(),
            ));
        }
        let workspace = DeviceBuffer::new(device, WORKSPACE_BYTES, "the workspace of cuBLASLt")?;
        let handle = result::create_handle().map_err(|error| {
            DeviceError::Unavailable(format!("cuBLASLt did not start on {}: {error}", device.name))
        })?;
        let engine = Engine { device: device.clone(), handle, workspace };
        Ok(Self { plans: HashMap::new(), engine })
    }

    /// `y = x w^T` in bf16: `x` `[rows, in]` and `w` `[out, in]` bf16. False, and nothing done, if
    /// cuBLASLt has no algorithm for it.
    ///
    /// All numbers of rows up to a power of two share an algorithm, so that few are asked for; all
    /// that count as few share one, so that a row of a decoding step does not depend on them.
    /// Should it refuse a number of rows, that number gets its own.
    pub(super) fn multiply(&mut self, x: &Tensor, w: &Matrix, y: &mut Tensor) -> bool {
        assert_eq!((x.dtype, w.dtype), (Dtype::Bf16, Dtype::Bf16));
        y.become_rows(x.rows, Dtype::Bf16);
        let Self { engine, plans } = self;
        engine.device.context.bind_to_thread().expect("the context is alive");
        let rows = x.rows.bound;
        let shared = rows.next_power_of_two().max(decode::ROWS_MAX);
        [shared, rows].into_iter().any(|rows| {
            let shape = Shape { rows, inputs: w.cols, outputs: w.rows };
            let plan = plans.entry(shape).or_insert_with(|| Plan::new(engine, shape));
            plan.as_mut().is_some_and(|plan| plan.run(engine, [x, y], w).is_ok())
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        // Products may still run; the device may already be lost, and there is nobody to tell.
        let _ = self.device.context.bind_to_thread();
        let _ = self.device.stream().synchronize();
        // SAFETY: made in `open`, destroyed here alone.
        let _ = unsafe { result::destroy_handle(self.handle) };
    }
}
