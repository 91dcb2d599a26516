//! All tensors of a checkpoint, in one safetensors file or in several with an index.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use switchyard_kernels::Dtype;

use super::{
    CheckpointError, FileError, JsonObject,
    tensor_file::{TensorEntry, TensorFile},
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
/// Most shards that an index may name.
const MAX_SHARDS: usize = 1024;

/// The open files of a checkpoint and where each tensor lies.
pub(super) struct Shards {
    /// The checkpoint's directory.
    pub(super) dir: PathBuf,
    files: Vec<Arc<TensorFile>>,
    /// Tensor name to index into `files`.
    homes: BTreeMap<String, usize>,
}

impl Shards {
    /// Opens the index if there is one, the single file otherwise.
    pub(super) fn open(dir: &Path) -> Result<Self, CheckpointError> {
        let index = dir.join(INDEX);
        let files = match JsonObject::read_optional(&index)? {
            None => vec![TensorFile::open(&dir.join(SINGLE))?],
            Some(index) => shards_of(dir, &index)?,
        };
        let mut homes = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            for name in file.tensors().keys() {
                if let Some(other) = homes.insert(name.clone(), i) {
                    return Err(CheckpointError::Index {
                        path: file.path().to_owned(),
                        tensor: name.clone(),
                        reason: format!("also held by {}", files[other].path().display()),
                    });
                }
            }
        }
        let files = files.into_iter().map(Arc::new).collect();
        Ok(Self { dir: dir.to_owned(), files, homes })
    }

    /// Names in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.homes.keys().map(String::as_str)
    }

    /// A tensor with the file that holds it.
    pub(super) fn find(&self, name: &str) -> Option<(&Arc<TensorFile>, &TensorEntry)> {
        let file = &self.files[*self.homes.get(name)?];
        Some((file, &file.tensors()[name]))
    }

    /// As [`Shards::find`], for a tensor that was checked to be there.
    pub(super) fn checked(&self, name: &str) -> (&Arc<TensorFile>, &TensorEntry) {
        self.find(name).expect("the layout was checked when the checkpoint was opened")
    }

    /// Bytes of all tensors.
    pub(super) fn bytes(&self) -> u64 {
        let tensors = self.files.iter().flat_map(|file| file.tensors().values());
        tensors.map(|entry| entry.bytes() as u64).sum()
    }

    /// The element type that holds every value of the named tensors.
    pub(super) fn widest<'a>(&self, names: impl Iterator<Item = &'a str>) -> Dtype {
        let types: BTreeSet<_> =
            names.filter_map(|name| self.find(name)).map(|(_, entry)| entry.dtype.name()).collect();
        match types.into_iter().collect::<Vec<_>>()[..] {
            ["bf16"] => Dtype::Bf16,
            ["f16"] => Dtype::F16,
            _ => Dtype::F32,
        }
    }
}

/// Opens every shard that the index names and checks that each holds what the index says.
fn shards_of(dir: &Path, index: &JsonObject) -> Result<Vec<TensorFile>, CheckpointError> {
    let map = index.object("weight_map")?;
    let map = map.ok_or_else(|| index.wrong("weight_map", "an object of tensor to file"))?;
    let mut names: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for tensor in map.keys() {
        let file = map.text(tensor)?.unwrap_or_default();
        let mut parts = Path::new(file).components();
        if !matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) {
            return Err(map.wrong(tensor, "the name of a file in this directory").into());
        }
        names.entry(file.to_owned()).or_default().push(tensor.to_owned());
    }
    if names.is_empty() || names.len() > MAX_SHARDS {
        return Err(index.wrong("weight_map", format!("1 to {MAX_SHARDS} files")).into());
    }
    let mut files = Vec::new();
    for (name, tensors) in names {
        let file = TensorFile::open(&dir.join(&name)).map_err(|error| named_by(index, error))?;
        for tensor in tensors {
            if !file.tensors().contains_key(&tensor) {
                return Err(CheckpointError::Index {
                    path: index.path().to_owned(),
                    tensor,
                    reason: format!("said to be in {name}, which does not hold it"),
                });
            }
        }
        files.push(file);
    }
    Ok(files)
}

/// A shard that is not there is the index's business too.
fn named_by(index: &JsonObject, error: FileError) -> FileError {
    if !error.is_not_found() {
        return error;
    }
    FileError::Header {
        path: index.path().to_owned(),
        reason: format!("it names a shard that is missing ({error})"),
    }
}
