//! What the engine tells about itself, and the limits it is given.

use std::{ops::AddAssign, time::Duration};

use switchyard_kernels::DeviceMemory;

use crate::model::ModelLimits;

/// How much the engine may take on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineLimits {
    /// Memory of the pool that holds KV pages and adapters; `None` is what the device can spare.
    pub pool_bytes: Option<usize>,
    /// Sequences that run at once; more cost activations and KV.
    pub max_running: usize,
    /// Token rows of one step; a larger step prefills faster and delays running answers more.
    pub max_step_tokens: usize,
    /// Sequences accepted and not yet started.
    pub max_waiting: usize,
}

impl EngineLimits {
    /// The steps a model must make room for.
    pub fn model(&self) -> ModelLimits {
        let logits = self.max_running.min(self.max_step_tokens);
        ModelLimits { rows: self.max_step_tokens, logits }
    }
}

/// Slabs of the pool by what they hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SlabCounts {
    /// Nothing.
    pub free: usize,
    /// KV pages of running sequences.
    pub kv: usize,
    /// Adapters that running sequences use.
    pub adapter_in_use: usize,
    /// Adapters that nobody uses and that stay until their slabs are wanted.
    pub adapter_idle: usize,
    /// Adapters whose weights are still being copied.
    pub adapter_loading: usize,
    /// All of them.
    pub total: usize,
}

/// What steps read from the pool: with the weights, the least that memory has to deliver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Tokens whose keys and values were read, once a step for each of its sequences.
    pub kv_tokens: u64,
    /// Slabs of adapters, once a step however many rows use one.
    pub adapter_slabs: u64,
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, more: Self) {
        self.kv_tokens += more.kv_tokens;
        self.adapter_slabs += more.adapter_slabs;
    }
}

/// What went between host memory and the pool since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AdapterTraffic {
    /// Loads begun.
    pub loads: u64,
    /// Of those, ahead of a sequence that could not start yet.
    pub prefetches: u64,
    /// Loads completed.
    pub loaded: u64,
    /// Their bytes.
    pub load_bytes: u64,
    /// The time of their copies, summed.
    pub load_time: Duration,
    /// Steps that waited for a load because nothing else could run.
    pub load_waits: u64,
    /// Adapters whose slabs were taken for something else, or whose generation was retired.
    pub evictions: u64,
}

/// The engine after its latest step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Sequences in the running batch.
    pub running: usize,
    /// Sequences that have their memory and wait for their adapter's weights to be copied.
    pub loading: usize,
    /// Sequences accepted and not yet started.
    pub waiting: usize,
    /// Steps run since the start.
    pub steps: u64,
    /// Token rows computed since the start.
    pub rows: u64,
    /// Tokens produced since the start.
    pub tokens: u64,
    /// Reads from the pool since the start.
    pub traffic: Traffic,
    /// Sequences put back to the queue for memory since the start.
    pub preemptions: u64,
    /// Copies of adapters into the pool, and adapters that left it.
    pub adapters: AdapterTraffic,
    /// The pool.
    pub slabs: SlabCounts,
    /// The device's memory by owner, as counted by the backend.
    pub memory: DeviceMemory,
    /// Why the engine died, if it did.
    pub failed: Option<String>,
}
