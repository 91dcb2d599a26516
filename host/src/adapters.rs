//! LoRA adapters: PEFT directories read strictly, and the registry that names them.
//!
//! A directory is taken whole or refused: every tensor must map to a linear of the base, every
//! linear that the configuration declares must have tensors, and no setting that would change the
//! result is passed over. Identity is the content's hash; a name in the registry resolves to a
//! generation, which a lease keeps alive for as long as a request runs. Weights are packed once and
//! kept by the store, in host memory as long as its budget lasts and on disk. Adapters are
//! untrusted input: sizes are checked against the base's shapes before weights are read.

mod compatibility;
mod content;
mod directory;
mod disk_cache;
mod host_tier;
mod image_file;
mod peft_config;
mod receipt;
mod registry;
mod scan;
mod sealed;
mod store;
mod targets;
mod tensor_key;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use switchyard_kernels::Dtype;

pub use content::{AdapterContent, Residency};
pub(crate) use host_tier::HostTier;
pub use registry::{AdapterGeneration, AdapterLease, Catalogue, Refresh, Registry};
pub(crate) use store::loaders;
pub use store::{AdapterStore, AdapterStoreStatus};

use crate::{
    checkpoint::FileError,
    model::{ModelConfig, PackError},
};

/// The model that adapters are checked against.
#[derive(Clone, Debug)]
pub struct BaseIdentity {
    /// The name it is served under.
    pub id: String,
    /// Other names it goes by.
    pub aliases: Vec<String>,
    /// The commit of its checkpoint, if known.
    pub revision: Option<String>,
    /// [`crate::checkpoint::Checkpoint::fingerprint`] of its checkpoint.
    pub fingerprint: String,
    /// Its shape.
    pub config: ModelConfig,
    /// Its element type as served; adapters are converted to it.
    pub dtype: Dtype,
}

impl BaseIdentity {
    /// Bytes of one slab of its pool.
    fn slab_bytes(&self) -> usize {
        self.config.attention_shape(self.dtype).slab_bytes()
    }
}

/// What the operator says about an adapter, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AdapterOptions {
    /// Serve it although it names another base. Shapes must fit all the same.
    pub allow_base_mismatch: bool,
    /// Free-form facts for routers.
    pub tags: Vec<(String, String)>,
}

/// Why an adapter was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is missing, unreadable, malformed or holds a value of the wrong kind.
    #[error(transparent)]
    File(#[from] FileError),
    /// A setting that is not supported.
    #[error("{path}: `{key}` is {found}: {reason}; {remedy}")]
    Setting {
        /// `adapter_config.json`.
        path: PathBuf,
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// Why it is refused.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A tensor that has no place in the base, or not in that shape.
    #[error("{path}: tensor `{key}`: {reason}; {remedy}")]
    Tensor {
        /// The safetensors file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// Why it is refused.
        reason: String,
        /// What to do.
        remedy: String,
    },
    /// A linear that is declared as adapted has no tensors.
    #[error(
        "{path}: module `{module}` is declared by target_modules but `{missing}` is not there; \
         save the adapter again, or correct target_modules in adapter_config.json"
    )]
    MissingTensor {
        /// The safetensors file.
        path: PathBuf,
        /// The linear.
        module: String,
        /// Which of its tensors is not there.
        missing: &'static str,
    },
    /// Trained on another base.
    #[error(
        "{path}: trained on {trained}, but the base served here is {served}; serve the right \
         base, add an alias to model.aliases, or set allow_base_mismatch for this adapter"
    )]
    BaseMismatch {
        /// `adapter_config.json`.
        path: PathBuf,
        /// What the adapter says.
        trained: String,
        /// What is served.
        served: String,
    },
    /// A directory whose name cannot be an adapter's.
    #[error("{path}: {reason}; rename the directory")]
    Name {
        /// The directory.
        path: PathBuf,
        /// What is wrong with its name.
        reason: String,
    },
    /// Weights in Python's pickle format, which can run code when it is read.
    #[error(
        "{path}: pickled weights are not read; save the adapter as safetensors \
         (PEFT: save_pretrained(.., safe_serialization=True))"
    )]
    Pickled {
        /// The file.
        path: PathBuf,
    },
    /// Not what it was when it was registered.
    #[error(
        "{path}: the weights are others than those that a request asked for, and the cache does \
         not hold the old ones; put them back, or ask again once the change is registered"
    )]
    Replaced {
        /// The directory.
        path: PathBuf,
    },
    /// The weights cannot be laid out for the pool.
    #[error("{path}: {source}")]
    Pack {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: PackError,
    },
}
