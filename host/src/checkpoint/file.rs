//! Reading whole small files, with a limit, and what can go wrong with any file.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

/// A file that could not be used. Every text names the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Larger than anything such a file should be.
    #[error("{path}: larger than the limit of {limit} bytes for such a file")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// Not JSON, or not of the form expected.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Says what and where.
        source: serde_json::Error,
    },
    /// A key is missing or holds a value of the wrong kind.
    #[error("{path}: `{key}` must be {expected}, found {found}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key, dotted where objects nest.
        key: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Not a well-formed safetensors file.
    #[error("{path}: {reason}; the file is damaged or incomplete, download it again")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A tensor's element type is not a float type that is served.
    #[error("{path}: tensor `{tensor}` is of type {found}; supported: F32, F16, BF16")]
    ElementType {
        /// The file.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// Its element type.
        found: String,
    },
}

impl FileError {
    /// An error of the operating system at `path`.
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    /// Whether the file is simply not there.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The text of a file of at most `limit` bytes.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String, FileError> {
    let file = File::open(path).map_err(FileError::io(path))?;
    let mut text = String::new();
    file.take(limit + 1).read_to_string(&mut text).map_err(FileError::io(path))?;
    if text.len() as u64 > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(text)
}
