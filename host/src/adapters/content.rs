//! What stays in memory of an adapter's content, wherever its weights are.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use super::{host_tier::HostTier, receipt::Receipt};
use crate::model::{AdapterId, AdapterImage};

/// The nearest place that holds an adapter's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Residency {
    /// The engine's pool.
    Pool,
    /// Host memory.
    Host,
    /// Files alone.
    Disk,
}

/// A content that a name stands for. Names with the same content share it; when the last of them
/// and the last request are gone, its image leaves host memory.
pub struct AdapterContent {
    /// Names the content.
    pub id: AdapterId,
    /// Largest rank of any linear.
    pub rank: u32,
    /// Slabs of its image.
    pub slabs: u32,
    /// Shared with every image of it.
    resident: Arc<AtomicBool>,
    tier: Arc<HostTier>,
}

impl AdapterContent {
    pub(super) fn new(receipt: Receipt, tier: &Arc<HostTier>) -> Self {
        let Receipt { id, rank, slabs } = receipt;
        Self { id, rank, slabs, resident: Arc::default(), tier: Arc::clone(tier) }
    }

    /// The image as this content's own, so that what the engine notes on it shows here.
    pub(super) fn adopt(&self, image: AdapterImage) -> AdapterImage {
        assert_eq!(image.id, self.id, "an image of this content");
        AdapterImage { resident: Arc::clone(&self.resident), ..image }
    }

    /// Where the weights are now, and how many sequences use them.
    pub fn standing(&self) -> (Residency, usize) {
        let pool = self.resident.load(Ordering::Relaxed);
        let holders = self.tier.holders(self.id);
        let residency = match (pool, holders) {
            (true, _) => Residency::Pool,
            (false, Some(_)) => Residency::Host,
            (false, None) => Residency::Disk,
        };
        (residency, holders.unwrap_or(0).saturating_sub(usize::from(pool)))
    }
}

impl Drop for AdapterContent {
    fn drop(&mut self) {
        self.tier.forget(self.id);
    }
}
