//! Everything that is tested through the real binary and real files.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod adapters;
mod golden;
mod harness;
mod lifecycle;
mod serve;
mod tidy;
