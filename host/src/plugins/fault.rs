//! What can go wrong: with a call ([`PluginFault`]) and with a load ([`PluginError`]).
//!
//! Both name the plugin. Text that comes from a guest is cut to [`GUEST_TEXT_MAX`] bytes.

use std::{io, path::PathBuf, time::Duration};

use super::PluginRole;

/// Bytes of guest text that an error, a reason or a log line may carry.
pub(super) const GUEST_TEXT_MAX: usize = 2048;

/// A call that did not give an answer. It costs its own request only; the next call gets an
/// instance of its own.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("plugin `{plugin}` ({role}) failed in `{hook}`: {kind}")]
pub struct PluginFault {
    /// The operator's name of the plugin.
    pub plugin: String,
    /// Its role.
    pub role: PluginRole,
    /// The exported function that was called.
    pub hook: &'static str,
    /// What happened.
    pub kind: FaultKind,
}

/// What happened in a failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// The guest was never started: try again later.
    #[error("all plugin threads and the queue before them are taken")]
    Busy,
    /// Too much CPU time.
    #[error("it used more than {0:?} of CPU time")]
    Deadline(Duration),
    /// Too much time by the clock on the wall.
    #[error("it did not return within {0:?}")]
    Stalled(Duration),
    /// Too much memory.
    #[error("it needed more than {0} bytes of memory")]
    Memory(usize),
    /// Too much returned, or passed to a host function.
    #[error("it handed over more than {0} bytes")]
    Output(usize),
    /// Too many calls of host functions.
    #[error("it made more than {0} host calls")]
    HostCalls(u32),
    /// The guest aborted.
    #[error("it trapped: {0}")]
    Trap(String),
    /// The guest returned what the ABI does not allow.
    #[error("it broke the protocol: {0}")]
    Protocol(String),
    /// The guest said no.
    #[error("{0}")]
    Refused(Refusal),
}

/// The error a plugin returned on purpose.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request is wrong: a client error.
    #[error("the input is invalid: {0}")]
    InvalidInput(String),
    /// The plugin cannot do this: a client error.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// Not now.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The plugin's own failure.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a plugin was not taken into service. What served before keeps serving.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// The file can't be read.
    #[error("plugin `{plugin}`: cannot read {path}: {source}")]
    Read {
        /// Name in the configuration.
        plugin: String,
        /// The component's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not a component this host can run.
    #[error("plugin `{plugin}`: {path} {why}")]
    Unfit {
        /// Name in the configuration.
        plugin: String,
        /// The component's file.
        path: PathBuf,
        /// What is wrong, and the remedy.
        why: String,
    },
    /// The plugin failed in `describe`, `configure` or `self-test`.
    #[error(transparent)]
    Canary(#[from] PluginFault),
    /// The plugins do not go together.
    #[error("plugins `{first}` and `{second}` are both a {role}; only one can serve")]
    Rivals {
        /// The one that stands first.
        first: String,
        /// The one that is too many.
        second: String,
        /// The role of both.
        role: PluginRole,
    },
    /// The host could not be set up.
    #[error("cannot start the plugin host: {0}")]
    Host(String),
}

/// `text` cut to [`GUEST_TEXT_MAX`] bytes at a character, control characters made harmless.
pub(super) fn guest_text(text: &str) -> String {
    let cut = &text[..text.floor_char_boundary(GUEST_TEXT_MAX)];
    cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
