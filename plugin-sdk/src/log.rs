//! The host's log. The host caps the number of lines and their length per call.

pub use crate::bindings::base::switchyard::plugin::log::{Level, log};

/// Logs what helps to find a fault in the plugin.
pub fn debug(message: &str) {
    log(Level::Debug, message);
}

/// Logs what the operator may want to know.
pub fn info(message: &str) {
    log(Level::Info, message);
}

/// Logs what the operator should look at.
pub fn warn(message: &str) {
    log(Level::Warn, message);
}

/// Logs a failure.
pub fn error(message: &str) {
    log(Level::Error, message);
}
