//! A base model's directory: `config.json`, `generation_config.json` and safetensors files.
//!
//! [`Checkpoint::open`] reads small files and headers only and refuses whatever it does not
//! understand: an unknown architecture, a missing, misshapen or unexpected tensor.
//! [`Checkpoint::weights`] then gives the weights, stacked as the model wants them: vectors at
//! once, matrices as sources that a backend reads piece by piece, by several threads, to where it
//! keeps them. Files are read plainly, never mapped. Invariant: what `open` accepted asks for no
//! more memory than the files on disk justify.

mod file;
mod fingerprint;
mod hugging_face;
mod json_object;
mod layout;
mod shards;
mod stack;
mod tensor_file;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use switchyard_kernels::Dtype;

pub use file::FileError;
pub(crate) use file::read_text;
pub(crate) use json_object::JsonObject;
pub use stack::TensorStack;
pub(crate) use tensor_file::{TensorEntry, TensorFile};

use crate::model::{HostWeights, ModelConfig};
use layout::Layout;
use shards::Shards;
use stack::Meter;

/// Why a checkpoint was refused.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file is missing, unreadable, malformed or holds a value of the wrong kind.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model is of a kind that is not served.
    #[error("{path}: `{key}` is {found}, which is not supported; supported: {supported}")]
    Unsupported {
        /// The file that says so.
        path: PathBuf,
        /// The key in it.
        key: String,
        /// Its value.
        found: String,
        /// What would be accepted.
        supported: &'static str,
    },
    /// A tensor that the configuration calls for is in none of the files.
    #[error(
        "{dir}: tensor `{tensor}` {expected:?} is in none of the safetensors files; \
         complete the download, or correct config.json"
    )]
    MissingTensor {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// Its name.
        tensor: String,
        /// The shape that was looked for.
        expected: Vec<usize>,
    },
    /// A tensor does not have the shape that the configuration calls for.
    #[error(
        "{path}: tensor `{tensor}` has shape {found:?}, config.json calls for {expected:?}; \
         the two belong to different models"
    )]
    Shape {
        /// The file that holds it.
        path: PathBuf,
        /// Its name.
        tensor: String,
        /// By the configuration.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// Tensors that nothing would use: the model is not what its configuration says.
    #[error(
        "{dir}: {count} tensor(s) have no place in a {architecture}, the first is `{first}`; \
         merge adapters and convert quantised weights first, or correct config.json"
    )]
    UnknownTensors {
        /// The checkpoint's directory.
        dir: PathBuf,
        /// What the configuration says the model is.
        architecture: &'static str,
        /// How many there are.
        count: usize,
        /// The first of them by name.
        first: String,
    },
    /// A tensor could not be read.
    #[error("{why} (tensor `{tensor}`)")]
    Tensor {
        /// Its name.
        tensor: String,
        /// Names the file.
        why: FileError,
    },
    /// The index names a tensor that its shard does not hold, or two shards hold it.
    #[error("{path}: tensor `{tensor}`: {reason}; download the checkpoint again")]
    Index {
        /// The index, or a shard that contradicts it.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// What is wrong.
        reason: String,
    },
}

/// A checked checkpoint, not yet loaded.
pub struct Checkpoint {
    /// Where it lies.
    pub dir: PathBuf,
    /// The model's shape.
    pub config: ModelConfig,
    /// Element type of its matrices on disk; `F32` where they differ.
    pub dtype: Dtype,
    /// Tokens that end an answer, from `generation_config.json` and `config.json`.
    pub eos: Vec<u32>,
    /// What the checkpoint says it was loaded from.
    pub name_or_path: Option<String>,
    /// The commit it says it is of.
    pub revision: Option<String>,
    layout: Layout,
    shards: Shards,
}

impl Checkpoint {
    /// Reads configuration and headers and checks that every tensor is there in the right shape.
    pub fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let description = hugging_face::read(dir)?;
        let shards = Shards::open(dir)?;
        description.layout.check(&description.config, &shards)?;
        let dtype = description.layout.dtype(&description.config, &shards);
        Ok(Self {
            dir: dir.to_owned(),
            config: description.config,
            dtype,
            eos: description.eos,
            name_or_path: description.name_or_path,
            revision: description.revision,
            layout: description.layout,
            shards,
        })
    }

    /// The weights, converted to `dtype` if one is given. The matrices are read by who takes them;
    /// `progress` is told bytes read and bytes in all after every piece, by the thread that read
    /// it.
    pub fn weights(
        &self,
        dtype: Option<Dtype>,
        progress: impl Fn(u64, u64) + Send + Sync + 'static,
    ) -> Result<HostWeights<TensorStack>, CheckpointError> {
        let meter = Meter::new(self.shards.bytes(), progress);
        self.layout.weights(&self.config, &self.shards, dtype.unwrap_or(self.dtype), meter)
    }

    /// Names the weights: `b3:` and a BLAKE3 hash over shape and sampled weights, the same however
    /// the files are sharded. Adapters may carry it to say which base they were trained on.
    pub fn fingerprint(&self) -> Result<String, CheckpointError> {
        fingerprint::of(&self.config, &self.shards)
    }
}
