//! A Llama-family decoder over any [`switchyard_kernels::Backend`].

mod config;
mod lora;
mod weights;

pub use config::{ModelConfig, RopeScaling};
pub use lora::{AdapterId, AdapterImage, LoraLinear, LoraWeights};
pub use weights::{HostLayer, HostWeights};
