//! One safetensors file: its header checked, its tensors read on demand.
//!
//! The header comes from outside: its length is capped before it is read, offsets must tile the
//! data without gap or overlap and end where the file ends, so that no tensor can ask for more
//! memory than its file has bytes.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::Read,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use half::{bf16, f16};
use safetensors::tensor::Metadata;
use switchyard_kernels::Dtype;

use super::FileError;

/// Largest header that is read; a large model's has a few hundred KiB.
const MAX_HEADER_BYTES: u64 = 16 << 20;
/// Bytes that are converted at a time.
const CONVERT_BYTES: usize = 1 << 18;

/// Where one tensor lies and what it holds.
#[derive(Clone, Debug)]
pub(crate) struct TensorEntry {
    /// Element type.
    pub(crate) dtype: Dtype,
    /// Row-major shape.
    pub(crate) shape: Vec<usize>,
    /// Bytes from the start of the file.
    start: u64,
}

impl TensorEntry {
    /// Number of elements.
    pub(crate) fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

/// An open safetensors file.
#[derive(Debug)]
pub(crate) struct TensorFile {
    path: PathBuf,
    file: File,
    tensors: BTreeMap<String, TensorEntry>,
    metadata: HashMap<String, String>,
}

impl TensorFile {
    /// Opens a file and checks its header against its length.
    pub(crate) fn open(path: &Path) -> Result<Self, FileError> {
        let damaged = |reason: String| FileError::Header { path: path.to_owned(), reason };
        let mut file = File::open(path).map_err(FileError::io(path))?;
        let file_bytes = file.metadata().map_err(FileError::io(path))?.len();
        if file_bytes < 8 {
            return Err(damaged(format!("{file_bytes} bytes are too few for a header")));
        }
        let mut length = [0; 8];
        file.read_exact(&mut length).map_err(FileError::io(path))?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER_BYTES.min(file_bytes - 8) {
            return Err(damaged(format!(
                "a header of {length} bytes in a file of {file_bytes} (limit {MAX_HEADER_BYTES})"
            )));
        }
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(FileError::io(path))?;
        let header: Metadata = serde_json::from_slice(&header)
            .map_err(|error| damaged(format!("the header is not valid: {error}")))?;
        let data_start = 8 + length;
        let expected = data_start.saturating_add(header.data_len() as u64);
        if expected != file_bytes {
            return Err(damaged(format!(
                "the header calls for {expected} bytes, the file has {file_bytes}"
            )));
        }
        let tensors = entries(path, &header, data_start)?;
        let metadata = header.metadata().clone().unwrap_or_default();
        Ok(Self { path: path.to_owned(), file, tensors, metadata })
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its tensors by name.
    pub(crate) fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// An entry of the header's free-form metadata.
    pub(crate) fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Reads `out.len()` bytes of a tensor from `offset` on, as they are on disk.
    pub(crate) fn read_bytes(
        &self,
        entry: &TensorEntry,
        offset: usize,
        out: &mut [u8],
    ) -> Result<(), FileError> {
        assert!(offset + out.len() <= entry.bytes(), "a read stays within its tensor");
        let read = self.file.read_exact_at(out, entry.start + offset as u64);
        read.map_err(FileError::io(&self.path))
    }

    /// Reads a tensor's elements from `first` on into `out`, converted to `dtype`.
    pub(crate) fn read(
        &self,
        (entry, first): (&TensorEntry, usize),
        dtype: Dtype,
        out: &mut [u8],
    ) -> Result<(), FileError> {
        assert!(out.len().is_multiple_of(dtype.size()), "whole elements");
        let stored = entry.dtype.size();
        if dtype == entry.dtype {
            return self.read_bytes(entry, first * stored, out);
        }
        let step = CONVERT_BYTES / stored;
        let mut scratch = vec![0; step.min(out.len() / dtype.size()) * stored];
        for (i, out) in out.chunks_mut(step * dtype.size()).enumerate() {
            let bytes = out.len() / dtype.size() * stored;
            self.read_bytes(entry, (first + i * step) * stored, &mut scratch[..bytes])?;
            convert((&scratch[..bytes], entry.dtype), (out, dtype));
        }
        Ok(())
    }

    /// Reads a whole tensor as `f32`.
    pub(crate) fn read_f32(&self, entry: &TensorEntry) -> Result<Vec<f32>, FileError> {
        let mut bytes = vec![0; entry.elements() * 4];
        self.read((entry, 0), Dtype::F32, &mut bytes)?;
        Ok(bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect())
    }
}

fn entries(
    path: &Path,
    header: &Metadata,
    data_start: u64,
) -> Result<BTreeMap<String, TensorEntry>, FileError> {
    let mut entries = BTreeMap::new();
    for (name, info) in header.tensors() {
        let dtype = match info.dtype {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::Bf16,
            other => {
                let (path, found) = (path.to_owned(), other.to_string());
                return Err(FileError::ElementType { path, tensor: name, found });
            }
        };
        let start = data_start + info.data_offsets.0 as u64;
        entries.insert(name, TensorEntry { dtype, shape: info.shape.clone(), start });
    }
    Ok(entries)
}

/// Converts little-endian elements; each pair is bytes and their type.
pub(crate) fn convert((from, from_type): (&[u8], Dtype), (to, to_type): (&mut [u8], Dtype)) {
    let from = from.chunks_exact(from_type.size());
    let to = to.chunks_exact_mut(to_type.size());
    assert_eq!(from.len(), to.len(), "as many elements out as in");
    for (from, to) in from.zip(to) {
        let value = match from_type {
            Dtype::F32 => f32::from_le_bytes([from[0], from[1], from[2], from[3]]),
            Dtype::F16 => f16::from_le_bytes([from[0], from[1]]).to_f32(),
            Dtype::Bf16 => bf16::from_le_bytes([from[0], from[1]]).to_f32(),
        };
        match to_type {
            Dtype::F32 => to.copy_from_slice(&value.to_le_bytes()),
            Dtype::F16 => to.copy_from_slice(&f16::from_f32(value).to_le_bytes()),
            Dtype::Bf16 => to.copy_from_slice(&bf16::from_f32(value).to_le_bytes()),
        }
    }
}
