//! The seam between a model and the hardware that runs it.
//!
//! [`Backend`] is cut at fused-kernel altitude: about a dozen methods, one per kernel. Above it
//! nothing knows about threads, instruction sets or devices; below it nothing knows about
//! requests, files or text. This crate does no IO and is the only one that holds `unsafe` code.

mod backend;
mod batch;
mod blob_cache;
pub mod cpu;
pub mod cuda;
mod device_memory;
mod dtype;
mod host_buffer;
mod host_memory;
mod lora;
mod matrix_source;
mod pending;
mod profiled;
mod sampling;
mod timed;

pub use backend::{AttentionShape, Backend, DeviceError, PAGE_TOKENS};
pub use batch::{AdapterSlot, Batch, RowToken, Segment};
pub use blob_cache::BlobCache;
pub use device_memory::{DeviceMemory, DeviceReading};
pub use dtype::Dtype;
pub use host_buffer::{HostBuffer, HostMatrix};
pub use host_memory::{HostMemory, HostMemoryStatus};
pub use lora::{
    A_TILE_INPUTS, Linear, LinearTiles, MAX_RANK, RANK_CHUNK, ResidentAdapter, Site, TILE_ALIGN,
    Tile, TileMap,
};
pub use matrix_source::{MatrixSource, SourceError};
pub use pending::{Delta, Pending};
pub use profiled::{ProductStage, Profile, Profiled, ProfiledDraw, Stage, StepTimes};
pub use sampling::{MaskRow, SampleRow, Sampled, TokenLogprob};
pub use timed::Timed;
