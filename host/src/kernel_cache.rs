//! Compiled kernels and tuning results on disk, so that only the first start pays for them.
//!
//! One file per blob, named by the hash of its key, with a checksum ahead of the bytes. What is
//! damaged counts as absent; what cannot be written is said once in the log.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicBool, Ordering},
};

use switchyard_kernels::BlobCache;

/// A directory of blobs. Processes may share it.
pub struct KernelCache {
    dir: PathBuf,
    complained: AtomicBool,
}

impl KernelCache {
    /// A cache in `dir`, which is made when the first blob is kept.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, complained: AtomicBool::new(false) }
    }

    fn file(&self, key: &str) -> PathBuf {
        self.dir.join(blake3::hash(key.as_bytes()).to_hex().as_str())
    }

    /// Under a name of this process first, so that others see a whole file or none.
    fn write(&self, file: &Path, blob: &[u8]) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let unfinished = file.with_extension(process::id().to_string());
        let content = [blake3::hash(blob).as_bytes(), blob].concat();
        fs::write(&unfinished, content).and_then(|()| fs::rename(&unfinished, file))
    }
}

/// Keeps nothing.
pub struct NoCache;

impl BlobCache for NoCache {
    fn get(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn put(&self, _: &str, _: &[u8]) {}
}

impl BlobCache for KernelCache {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let content = fs::read(self.file(key)).ok()?;
        let (checksum, blob) = content.split_at_checked(blake3::OUT_LEN)?;
        (blake3::hash(blob).as_bytes() == checksum).then(|| blob.to_vec())
    }

    fn put(&self, key: &str, blob: &[u8]) {
        let written = self.write(&self.file(key), blob);
        if let Err(why) = written
            && !self.complained.swap(true, Ordering::Relaxed)
        {
            let dir = self.dir.display();
            tracing::warn!(
                "{dir}: compiled kernels cannot be kept there ({why}); every start compiles them"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_whole_blobs_under_their_keys() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(dir.path().join("made/when/needed"));
        assert_eq!(cache.get("a"), None);
        cache.put("a", b"first");
        cache.put("b", b"");
        cache.put("a", b"second");
        let later = KernelCache::new(dir.path().join("made/when/needed"));
        assert_eq!(later.get("a").as_deref(), Some(&b"second"[..]));
        assert_eq!(later.get("b").as_deref(), Some(&b""[..]));
        assert_eq!(later.get("c"), None);
    }

    #[test]
    fn damage_counts_as_absence() {
        let dir = tempfile::tempdir().unwrap();
        let cache = KernelCache::new(dir.path().to_owned());
        cache.put("key", b"machine code");
        let file = cache.file("key");
        let whole = fs::read(&file).unwrap();
        for end in 0..whole.len() {
            fs::write(&file, &whole[..end]).unwrap();
            assert_eq!(cache.get("key"), None, "cut at {end}");
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 0x10;
            fs::write(&file, damaged).unwrap();
            assert_eq!(cache.get("key"), None, "byte {at}");
        }
        cache.put("key", b"machine code");
        assert!(cache.get("key").is_some());
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_failure() {
        let dir = tempfile::tempdir().unwrap();
        let taken = dir.path().join("a file");
        fs::write(&taken, "").unwrap();
        let cache = KernelCache::new(taken);
        cache.put("key", b"blob");
        assert_eq!(cache.get("key"), None);
    }
}
