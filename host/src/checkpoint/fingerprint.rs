//! A name for a base's weights that is cheap to compute and stays when files are re-sharded.
//!
//! The hash runs over one line that states the shape, then over every tensor by name: its name,
//! element type and shape as text, and its first, middle and last 4 KiB. Fine-tuning touches every
//! matrix nearly everywhere, so samples tell models apart that differ at all.

use super::{CheckpointError, shards::Shards};
use crate::model::ModelConfig;

/// Bytes of each sample.
const SAMPLE_BYTES: usize = 4096;

/// `b3:` and the hash in hexadecimal.
pub(super) fn of(config: &ModelConfig, shards: &Shards) -> Result<String, CheckpointError> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(
        format!(
            "layers {} hidden {} intermediate {} heads {} kv_heads {} head_dim {} vocabulary {}\n",
            config.layers,
            config.hidden,
            config.intermediate,
            config.heads,
            config.kv_heads,
            config.head_dim,
            config.vocabulary
        )
        .as_bytes(),
    );
    let mut sample = vec![0; SAMPLE_BYTES];
    for name in shards.names() {
        let (file, entry) = shards.checked(name);
        let line = format!("{name} {} {:?}\n", entry.dtype.name(), entry.shape);
        hasher.update(line.as_bytes());
        let bytes = entry.bytes();
        let sample = &mut sample[..SAMPLE_BYTES.min(bytes)];
        let last = bytes - sample.len();
        for offset in [0, last / 2, last] {
            file.read_bytes(entry, offset, sample)?;
            hasher.update(sample);
        }
    }
    Ok(format!("b3:{}", hasher.finalize().to_hex()))
}
