//! A plugin's part of the operator's `config.toml`, as JSON. It never changes while a plugin lives:
//! a changed configuration makes a new generation of the plugin.

use serde::de::DeserializeOwned;

use crate::bindings::base::switchyard::plugin::config;

/// The plugin's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    json: String,
}

impl Config {
    /// A configuration from JSON text, for tests outside of the host.
    pub fn new(json: impl Into<String>) -> Self {
        Self { json: json.into() }
    }

    /// What the operator wrote.
    pub fn from_host() -> Self {
        Self { json: config::json() }
    }

    /// The JSON text of the whole table.
    pub fn json(&self) -> &str {
        &self.json
    }

    /// Reads the table into `T`; the error names the key.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_json::from_str(&self.json).map_err(|error| format!("config: {error}"))
    }
}
