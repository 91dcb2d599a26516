//! What the operator says about one plugin: where it is, how it is configured, what it may use.

use std::{path::PathBuf, time::Duration};

/// One plugin of the configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSpec {
    /// The operator's name for it; every fault and log line carries it.
    pub name: String,
    /// The component's file.
    pub path: PathBuf,
    /// Given to the plugin as it is; an object, or null for none.
    pub config: serde_json::Value,
    /// What one instance may use.
    pub limits: PluginLimits,
    /// Whether a router may read what people wrote.
    pub grant_prompt: bool,
}

/// What one instance of a plugin may use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PluginLimits {
    /// Linear memory of one instance, all its memories together. Costs address space only until
    /// the guest touches it. At most [`PluginLimits::MEMORY_MAX`].
    pub memory_bytes: usize,
    /// CPU time of one call, host functions included; waiting for a core does not count.
    pub deadline: Duration,
    /// What one call may return, and what one stream's events may sum to. Also bounds the
    /// arguments of one host call.
    pub output_bytes: usize,
}

impl PluginLimits {
    /// The most memory an instance can be granted.
    pub const MEMORY_MAX: usize = 1 << 30;
}

impl Default for PluginLimits {
    fn default() -> Self {
        Self { memory_bytes: 64 << 20, deadline: Duration::from_millis(50), output_bytes: 4 << 20 }
    }
}
