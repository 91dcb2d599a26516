//! What the engine tells about itself, and the limits it is given.

use std::ops::AddAssign;

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
    /// Adapters, in use or idle.
    pub adapter: usize,
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

/// The engine after its latest step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EngineStatus {
    /// Sequences in the running batch.
    pub running: usize,
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
    /// Adapters copied into the pool since the start.
    pub adapter_loads: u64,
    /// The pool.
    pub slabs: SlabCounts,
    /// Why the engine died, if it did.
    pub failed: Option<String>,
}
