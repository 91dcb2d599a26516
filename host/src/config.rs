//! The one configuration: read from `config.toml` and the command line, checked, then frozen.
//!
//! Raw text becomes a tree that remembers its places (`source`, `node`), the tree is read with
//! every complaint gathered (`reader`, `convert`, `check`), and what comes out is plain data that
//! nobody changes. [`FixedConfig`] holds for the process; [`LiveConfig`] is replaced as a whole
//! when the file changes, and [`Plan`] says what such a change would touch.

mod check;
mod convert;
mod diagnostic;
mod node;
mod plan;
mod reader;
mod schema;
mod source;
#[cfg(test)]
mod tests;
mod units;

use std::{
    collections::BTreeMap, net::SocketAddr, num::NonZeroUsize, path::Path, path::PathBuf,
    time::Duration,
};

use switchyard_kernels::Dtype;

pub use diagnostic::ConfigError;
pub use plan::Plan;
pub use reader::Setting;
pub use schema::Applies;
pub use source::Override;

/// A whole, checked configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// Holds for the process.
    pub fixed: FixedConfig,
    /// May be replaced while requests run.
    pub live: LiveConfig,
    /// Every key's effective value, by its dotted name.
    pub settings: BTreeMap<String, Setting>,
}

impl Config {
    /// Reads and checks; without a file the built-in defaults and the overrides are all there is.
    pub fn load(file: Option<&Path>, overrides: &[Override]) -> Result<Self, ConfigError> {
        check::check(source::Sources::read(file, overrides))
    }

    /// Where the operator set a key, as `file:line:column: key`, else the key alone; for errors
    /// that show only when the value is used.
    pub fn place(&self, key: &str) -> String {
        match self.settings.get(key).and_then(|setting| setting.place.as_ref()) {
            Some(place) => format!("{place}: {key}"),
            None => key.to_owned(),
        }
    }
}

/// What only a restart changes.
#[derive(Clone, Debug)]
pub struct FixedConfig {
    /// Address of the HTTP server.
    pub listen: SocketAddr,
    /// How long running requests may go on after a signal to stop.
    pub drain_timeout: Duration,
    /// The base model.
    pub model: ModelSource,
    /// The engine and its device.
    pub engine: EngineConfig,
    /// How log lines are written.
    pub log_format: LogFormat,
}

/// Which model is served, and under which names.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// A Hugging Face directory.
    pub path: PathBuf,
    /// Name in the API.
    pub id: String,
    /// Other names that adapters may call their base by.
    pub aliases: Vec<String>,
    /// Element type to serve in; `None` keeps the checkpoint's.
    pub dtype: Option<Dtype>,
}

/// The engine and its device.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What runs the kernels.
    pub device: Device,
    /// Name of the instruction set to use; `None` is the best one there is.
    pub isa: Option<String>,
    /// `None` is one per core.
    pub threads: Option<NonZeroUsize>,
    /// Bytes of the pool that holds KV pages and adapters.
    pub memory: usize,
    /// Sequences in one batch.
    pub max_running: usize,
    /// Tokens in one step.
    pub max_step_tokens: usize,
    /// Sequences waiting for the batch.
    pub max_waiting: usize,
}

/// What runs the kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The best one there is.
    Auto,
    /// The processor.
    Cpu,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// What a change of the file changes at once.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Bounds on requests.
    pub limits: Limits,
    /// Directories that hold one directory per adapter.
    pub adapter_dirs: Vec<PathBuf>,
    /// Exceptions and tags, by adapter name.
    pub adapters: BTreeMap<String, AdapterSettings>,
    /// In the order in which routers are asked.
    pub plugins: Vec<PluginSettings>,
    /// Filter of log lines, as `tracing` writes it.
    pub log_level: String,
}

/// Bounds on requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Longest time a request may take, first byte to last.
    pub request_timeout: Duration,
    /// Bytes of a request's body.
    pub body: usize,
    /// Requests in progress, queued ones included.
    pub queue: usize,
    /// Bytes of a prompt's text, all messages together.
    pub prompt: usize,
    /// `n` of a request.
    pub choices: usize,
    /// Tools of a request.
    pub tools: usize,
    /// Stop strings of a request.
    pub stop: usize,
    /// Alternatives per token.
    pub logprobs: usize,
}

/// What the operator says about one adapter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterSettings {
    /// Load it although it names another base.
    pub allow_base_mismatch: bool,
    /// For routers to choose by.
    pub tags: Vec<(String, String)>,
}

/// One plugin.
#[derive(Clone, Debug, PartialEq)]
pub struct PluginSettings {
    /// Unique.
    pub name: String,
    /// The component.
    pub path: PathBuf,
    /// Handed to the plugin; always an object.
    pub config: serde_json::Value,
    /// Bytes of one instance's memory.
    pub memory: usize,
    /// Processor time of one call.
    pub deadline: Duration,
    /// Bytes of what one call returns.
    pub output: usize,
    /// Whether it may read prompts.
    pub grant_prompt: bool,
}
