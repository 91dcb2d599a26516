//! The `switchyard` command.
#![forbid(unsafe_code)]

use std::{env, path::PathBuf, process::ExitCode};

fn main() -> ExitCode {
    switchyard::cli::run(cache_home())
}

/// Where this user's caches lie, by the XDG Base Directory Specification.
fn cache_home() -> Option<PathBuf> {
    let stated = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let usual = || env::home_dir().map(|home| home.join(".cache"));
    stated.filter(|dir| dir.is_absolute()).or_else(usual).filter(|dir| dir.is_absolute())
}
