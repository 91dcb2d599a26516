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
pub(crate) mod units;

use std::{collections::BTreeMap, net::SocketAddr, path::Path, path::PathBuf, time::Duration};

use switchyard_kernels::Dtype;

use crate::{
    adapters::AdapterOptions, device::DeviceOptions, engine::EngineLimits,
    generation::RequestLimits, plugins::PluginSpec,
};

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

/// What the command line gave; read again at every reload, so that overrides stay in force.
#[derive(Clone, Debug, Default)]
pub struct Given {
    /// The file; without one the built-in defaults stand.
    pub file: Option<PathBuf>,
    /// Laid on the file, in order.
    pub overrides: Vec<Override>,
    /// Where this user's caches lie, for a default of `adapters.cache`.
    pub cache_home: Option<PathBuf>,
}

impl Given {
    /// Reads and checks.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut config = Config::load(self.file.as_deref(), &self.overrides)?;
        let default = || self.cache_home.as_ref().map(|home| home.join("switchyard"));
        config.fixed.adapter_cache = config.fixed.adapter_cache.or_else(default);
        Ok(config)
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
    /// Directory for packed adapters; `None` keeps none on disk.
    pub adapter_cache: Option<PathBuf>,
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
    /// What runs the kernels, and how.
    pub device: DeviceOptions,
    /// How much it may take on.
    pub limits: EngineLimits,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Where adapters come from and how many stay at hand.
#[derive(Clone, Debug)]
pub struct AdapterConfig {
    /// Directories that hold one directory per adapter.
    pub dirs: Vec<PathBuf>,
    /// Bytes of host memory for adapters that are not in use.
    pub host_memory: usize,
    /// Exceptions and tags, by adapter name.
    pub options: BTreeMap<String, AdapterOptions>,
}

/// What a change of the file changes at once.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    /// Bounds on requests.
    pub limits: RequestLimits,
    /// The adapters.
    pub adapters: AdapterConfig,
    /// In the order in which routers are asked.
    pub plugins: Vec<PluginSpec>,
    /// Filter of log lines, as `tracing` writes it.
    pub log_level: String,
}
