//! What the host keeps inside one guest's store: its limits, its budget for the running call and
//! what the host functions answer from.

use std::sync::Arc;

use serde_json::Value;

use super::{
    FaultKind, PluginSpec, deadline::Deadline, limiter::Limiter, log_budget::LogBudget,
    router::RouteScope,
};
use crate::tokenizer::Tokenizer;

/// Host functions one call may call. Each costs the host a few microseconds at most, apart from
/// the tokenizer, whose time counts as the guest's.
const HOST_CALLS_MAX: u32 = 10_000;

/// What host functions answer from; the same for every instance of a plugin generation.
pub(super) struct Grant {
    /// The operator's name of the plugin.
    pub(super) plugin: String,
    /// The configuration as JSON text.
    pub(super) config_json: String,
    /// The configuration.
    pub(super) config: Value,
    /// The base model's.
    pub(super) tokenizer: Tokenizer,
    /// Shared by all instances, so that many instances log no more than one.
    pub(super) log: LogBudget,
}

impl Grant {
    pub(super) fn new(spec: &PluginSpec, tokenizer: Tokenizer) -> Self {
        Self {
            plugin: spec.name.clone(),
            config_json: spec.config.to_string(),
            config: spec.config.clone(),
            tokenizer,
            log: LogBudget::default(),
        }
    }
}

/// The data of one store.
pub(super) struct Sandbox {
    /// Memory of this store.
    pub(super) limiter: Limiter,
    /// Shared with the plugin's other instances.
    pub(super) grant: Arc<Grant>,
    /// What a router may ask about while it routes; empty in every other call.
    pub(super) scope: Option<RouteScope>,
    /// Set by [`Sandbox::begin`].
    deadline: Option<Deadline>,
    host_calls: u32,
}

impl Sandbox {
    pub(super) fn new(grant: Arc<Grant>, memory_bytes: usize) -> Self {
        let limiter = Limiter::new(memory_bytes);
        Self { limiter, grant, scope: None, deadline: None, host_calls: 0 }
    }

    /// A call starts now, on this thread.
    pub(super) fn begin(&mut self, deadline: Deadline) {
        self.deadline = Some(deadline);
        self.host_calls = 0;
    }

    /// Whether the call may go on.
    pub(super) fn check_deadline(&self) -> Result<(), FaultKind> {
        self.deadline.as_ref().map_or(Ok(()), Deadline::check)
    }

    /// Counts one host call. Every host function starts with it.
    pub(super) fn host_call(&mut self) -> Result<(), FaultKind> {
        self.host_calls += 1;
        if HOST_CALLS_MAX < self.host_calls {
            return Err(FaultKind::HostCalls(HOST_CALLS_MAX));
        }
        Ok(())
    }
}
