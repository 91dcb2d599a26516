//! Everything that is tested through the real binary and real files.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "tests")]

mod adapters;
mod cuda;
mod faults;
mod golden;
mod harness;
mod lifecycle;
mod reload;
mod serve;
mod tidy;
mod tiers;
