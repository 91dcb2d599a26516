//! Machine code kept between test processes.

use std::{
    fs,
    hash::{DefaultHasher, Hash, Hasher},
    path::PathBuf,
};

use switchyard_kernels::BlobCache;

/// A folder of files that begin with their key.
pub(crate) struct Cubins {
    folder: PathBuf,
}

impl Cubins {
    pub(crate) fn new() -> Self {
        let folder = std::env::temp_dir().join("switchyard-cubins");
        fs::create_dir_all(&folder).unwrap();
        Self { folder }
    }

    fn path(&self, key: &str) -> PathBuf {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        self.folder.join(format!("{:016x}", hasher.finish()))
    }
}

impl BlobCache for Cubins {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        let file = fs::read(self.path(key)).ok()?;
        file.strip_prefix(key.as_bytes()).map(<[u8]>::to_vec)
    }

    fn put(&self, key: &str, blob: &[u8]) {
        let path = self.path(key);
        // Another thread may write the same.
        let thread = std::thread::current().id();
        let unfinished = path.with_extension(format!("{}-{thread:?}", std::process::id()));
        fs::write(&unfinished, [key.as_bytes(), blob].concat()).unwrap();
        fs::rename(unfinished, path).unwrap();
    }
}
