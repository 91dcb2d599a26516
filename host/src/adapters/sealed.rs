//! Files that are whole or not there: written beside their place and renamed, with a hash of all
//! that is in them at their end.

use std::{
    fs::{self, File},
    io::{self, Error, ErrorKind, Read, Write},
    path::Path,
};

/// Bytes of the hash.
const SEAL: usize = 32;
/// Bytes that are read and hashed at a time, so that they are hashed while in cache.
const CHUNK: usize = 1 << 20;
/// Ends the names of files that are being written.
pub(super) const PART: &str = "part";

/// Writes `parts` one after the other, sealed. Readers see all of it or what was there before.
pub(super) fn write(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    // Other threads and other processes may write the same file.
    let aside = path.with_added_extension(format!("{:016x}.{PART}", fastrand::u64(..)));
    let write = || {
        let mut file = File::create(&aside)?;
        let mut hasher = blake3::Hasher::new();
        for part in parts.iter().flat_map(|part| part.chunks(CHUNK)) {
            hasher.update(part);
            file.write_all(part)?;
        }
        file.write_all(hasher.finalize().as_bytes())?;
        fs::rename(&aside, path)
    };
    // What is left of a failed write is of no use; its removal may fail for the same reason.
    write().inspect_err(|_| drop(fs::remove_file(&aside)))
}

/// Reads a sealed file; nothing read is to be trusted before [`Sealed::finish`].
pub(super) struct Sealed {
    file: File,
    hasher: blake3::Hasher,
    /// Bytes before the seal that have not been read.
    left: u64,
}

impl Sealed {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let left = file.metadata()?.len().checked_sub(SEAL as u64);
        let left = left.ok_or_else(|| damaged("it is too short"))?;
        Ok(Self { file, hasher: blake3::Hasher::new(), left })
    }

    /// Bytes that are left to read.
    pub(super) fn left(&self) -> u64 {
        self.left
    }

    /// Fills `out`.
    pub(super) fn read(&mut self, out: &mut [u8]) -> io::Result<()> {
        let left = self.left.checked_sub(out.len() as u64);
        self.left = left.ok_or_else(|| damaged("it is too short"))?;
        for chunk in out.chunks_mut(CHUNK) {
            self.file.read_exact(chunk)?;
            self.hasher.update(chunk);
        }
        Ok(())
    }

    /// Whether all has been read and is as it was written.
    pub(super) fn finish(mut self) -> io::Result<()> {
        let mut seal = [0; SEAL];
        self.file.read_exact(&mut seal)?;
        if self.left != 0 || self.hasher.finalize() != blake3::Hash::from_bytes(seal) {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(())
    }
}

/// The file is not as it was written.
pub(super) fn damaged(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}
