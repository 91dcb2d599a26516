//! Times by events on the stream.

use std::{ffi::c_void, ptr, thread, time::Duration};

use cudarc::driver::{CudaEvent, sys};

use super::{Cuda, Tensor};
use crate::Timed;

/// Longer than it takes to queue a step, launch by launch.
const HOLD_BACK: Duration = Duration::from_millis(5);

/// Runs on a thread of the driver while the stream waits.
unsafe extern "C" fn sleep(_: *mut c_void) {
    thread::sleep(HOLD_BACK);
}

impl Timed for Cuda {
    type Mark = CudaEvent;

    fn mark(&mut self) -> CudaEvent {
        let timing = sys::CUevent_flags::CU_EVENT_DEFAULT;
        let event = self.cx.device.context.new_event(Some(timing)).expect("the context is alive");
        event.record(self.cx.device.stream()).expect("a mark on the stream");
        event
    }

    fn seconds(&mut self, from: &CudaEvent, to: &CudaEvent) -> f64 {
        f64::from(from.elapsed_ms(to).expect("marks of one stream")) * 1e-3
    }

    fn hold_back(&mut self) {
        let stream = self.cx.device.stream().cu_stream();
        // SAFETY: the function takes no data and calls nothing of CUDA.
        let queued = unsafe { sys::cuLaunchHostFunc(stream, Some(sleep), ptr::null_mut()) };
        queued.result().expect("a pause on the stream");
    }

    fn is_deferred(&self, tensor: &Tensor) -> bool {
        tensor.deferred.product().is_some() || tensor.deferred.shrink().is_some()
    }
}
