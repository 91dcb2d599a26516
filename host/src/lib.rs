//! Switchyard: one process that serves a language model over HTTP, many LoRA adapters in one
//! batch, with policy in sandboxed WebAssembly plugins.
//!
//! Layers, top to bottom; a module uses only what stands below it (see `ARCHITECTURE.md`):
//!
//! ```text
//! 7 cli, serve, bench, compare, reload, config   read -> check -> wire
//! 6 http                                     routes, wire types, SSE, status codes
//! 5 generation              route -> render -> encode -> image -> submit -> decode -> parse
//! 4 plugins, adapters, tokenizer, template, checkpoint, kernel_cache, chat, watch
//! ---------------------------------------- below: no async, no file IO, no serde, no text
//! 3 engine, device                           its own thread: schedule, assemble, forward, sample
//! 2 model, startup                           configuration, weights, forward over a Backend
//! 1 switchyard-kernels                       the Backend trait and its implementations
//! ```
#![forbid(unsafe_code)]

pub mod adapters;
pub mod bench;
pub mod chat;
pub mod checkpoint;
pub mod cli;
pub mod compare;
pub mod config;
pub mod device;
pub mod engine;
pub mod generation;
pub mod http;
pub mod kernel_cache;
pub mod model;
pub mod plugins;
pub mod reload;
pub mod serve;
pub mod startup;
pub mod template;
pub mod tokenizer;
pub mod watch;
