//! A run of launches that the driver has prepared, and that the device starts as one.

use std::{mem::MaybeUninit, ptr, sync::Arc};

use cudarc::driver::{CudaContext, sys};

use super::launch::Launch;

/// Kernels in order, each of which may start before its predecessor has ended, as when they were
/// launched one by one.
pub(super) struct Graph {
    context: Arc<CudaContext>,
    executable: sys::CUgraphExec,
}

// SAFETY: the driver takes the handle on any thread; one owner uses it.
unsafe impl Send for Graph {}

impl Graph {
    /// Prepares the launches; `stream` has no part in it but that it notes them down.
    pub(super) fn capture(
        context: &Arc<CudaContext>,
        stream: sys::CUstream,
        launches: &[Launch],
    ) -> Self {
        // Relaxed: what other threads allocate meanwhile is no part of the graph.
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: a live stream that captures nothing yet.
        let begun = unsafe { sys::cuStreamBeginCapture_v2(stream, mode) };
        begun.result().expect("a stream that can be captured");
        launches.iter().for_each(|launch| launch.issue(stream));
        let mut graph = ptr::null_mut();
        let mut executable = MaybeUninit::uninit();
        // SAFETY: the stream has been capturing since above; both places are writable; the graph is
        // destroyed once, when the driver has made its executable of it.
        unsafe {
            let ended = sys::cuStreamEndCapture(stream, &mut graph).result();
            ended.expect("launches that can be captured");
            let made = sys::cuGraphInstantiateWithFlags(executable.as_mut_ptr(), graph, 0).result();
            made.expect("memory for a graph of launches");
            let destroyed = sys::cuGraphDestroy(graph).result();
            destroyed.expect("a graph of our own");
            Self { context: context.clone(), executable: executable.assume_init() }
        }
    }

    /// Queues all of it.
    pub(super) fn launch(&self, stream: sys::CUstream) {
        // SAFETY: a live graph, whose launches were good for what they do when they were captured
        // and are launched again only when they would be the same (`Replay`).
        let launched = unsafe { sys::cuGraphLaunch(self.executable, stream) };
        launched.result().expect("launch of a graph");
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        // The device may already be lost; there is nobody to tell.
        let _ = self.context.bind_to_thread();
        // SAFETY: made in `capture`, destroyed here alone; the driver waits for a run to end.
        let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
    }
}
