//! Packed images and receipts on disk, kept between runs and shared by processes.
//!
//! The cache may lose anything at any time and may be deleted while in use: what it does not hold
//! is made again from the adapter's directory. A file's name says all that its content depends on,
//! so that bases, element types and versions live side by side.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use super::{BaseIdentity, image_file, receipt::Receipt, scan::Stamp, sealed};
use crate::model::{AdapterId, AdapterImage, ImageMemory};

/// A file that has been under way for longer was left by a process that died.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

/// A directory of files for one base.
pub(super) struct DiskCache {
    dir: PathBuf,
    /// Whether the last write failed; said once for as long as it lasts.
    broken: AtomicBool,
}

impl DiskCache {
    /// Uses `dir`, which is made when something is written.
    pub(super) fn new(dir: PathBuf) -> Self {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
            let part = entry.path().extension().is_some_and(|end| end == sealed::PART);
            if part && age().is_some_and(|age| age > ABANDONED) {
                // Another process may have removed it already.
                drop(fs::remove_file(entry.path()));
            }
        }
        Self { dir, broken: AtomicBool::new(false) }
    }

    /// An adapter's image in `memory`, if it is there and whole; a damaged file is removed.
    pub(super) fn image(
        &self,
        id: AdapterId,
        (base, memory): (&BaseIdentity, &ImageMemory),
    ) -> Option<AdapterImage> {
        let path = self.image_path(id, base);
        found(&path, image_file::read(&path, id, (base, memory)))
    }

    /// Keeps an image, unless one is there already.
    pub(super) fn keep_image(&self, image: &AdapterImage, base: &BaseIdentity) {
        let path = self.image_path(image.id, base);
        if !path.exists() {
            self.write(|| image_file::write(&path, image, base));
        }
    }

    /// What is remembered of a directory, if its files are still the same.
    pub(super) fn receipt(
        &self,
        dir: &Path,
        stamp: &Stamp,
        base: &BaseIdentity,
    ) -> Option<Receipt> {
        let path = self.receipt_path(dir, base);
        found(&path, Receipt::read(&path, stamp)).flatten()
    }

    /// Remembers what a directory's files came to.
    pub(super) fn keep_receipt(
        &self,
        (dir, stamp): (&Path, &Stamp),
        receipt: &Receipt,
        base: &BaseIdentity,
    ) {
        let path = self.receipt_path(dir, base);
        self.write(|| receipt.write(&path, stamp));
    }

    pub(super) fn image_path(&self, id: AdapterId, base: &BaseIdentity) -> PathBuf {
        self.path(blake3::Hash::from_bytes(id.0), base, "image")
    }

    /// What is taken from a directory may change with the program, not only with its formats.
    pub(super) fn receipt_path(&self, dir: &Path, base: &BaseIdentity) -> PathBuf {
        let mut hasher = blake3::Hasher::new();
        hasher.update(env!("CARGO_PKG_VERSION").as_bytes());
        hasher.update(dir.as_os_str().as_encoded_bytes());
        self.path(hasher.finalize(), base, "receipt")
    }

    fn path(&self, key: blake3::Hash, base: &BaseIdentity, kind: &str) -> PathBuf {
        let (dtype, slab_bytes) = (base.dtype.name(), base.slab_bytes());
        let version = image_file::VERSION;
        self.dir.join(format!("{}-{dtype}-{slab_bytes}-v{version}.{kind}", key.to_hex()))
    }

    /// A failure costs packing again, so that it is only said.
    fn write(&self, write: impl FnOnce() -> io::Result<()>) {
        let written = fs::create_dir_all(&self.dir).and_then(|()| write());
        let was_broken = self.broken.swap(written.is_err(), Ordering::Relaxed);
        if let (Err(error), false) = (written, was_broken) {
            tracing::warn!(
                "{}: cannot be written: {error}; adapters are packed again whenever they are \
                 needed; make room there, or set adapters.cache to another directory",
                self.dir.display()
            );
        }
    }
}

/// What was read; a file that cannot be used is reported and removed.
fn found<T>(path: &Path, read: io::Result<T>) -> Option<T> {
    let error = match read {
        Ok(read) => return Some(read),
        Err(error) => error,
    };
    if error.kind() != io::ErrorKind::NotFound {
        tracing::warn!("{}: {error}; the file is removed and made again", path.display());
        if let Err(error) = fs::remove_file(path) {
            tracing::warn!("{}: cannot be removed: {error}; remove it by hand", path.display());
        }
    }
    None
}
