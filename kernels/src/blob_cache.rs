//! Where compiled kernels and tuning results are kept between runs; the host decides how.

/// A store of blobs by name. It may forget anything at any time.
pub trait BlobCache: Send + Sync {
    /// What was last put under a key, whole, or nothing.
    fn get(&self, key: &str) -> Option<Vec<u8>>;
    /// Keeps a blob. A failure to keep it costs the next start time and nothing else.
    fn put(&self, key: &str, blob: &[u8]);
}
