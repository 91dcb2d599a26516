//! Registered adapters that are drawn when they are asked for: what a file on disk is to a server.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{adapters::HostTier, bench::adapters::AdapterSource, model::AdapterImage};

/// Names of adapters over the server's own tier of host memory.
pub(super) struct SyntheticCatalogue<'a> {
    source: &'a AdapterSource,
    /// Number of the first adapter at the source.
    first: usize,
    tier: HostTier,
    /// Whether the pool holds each. As long as a name stands for an adapter, the pool has a reason
    /// to keep it.
    resident: Vec<Arc<AtomicBool>>,
    loads: AtomicU64,
    load_micros: AtomicU64,
}

impl<'a> SyntheticCatalogue<'a> {
    /// These adapters of the source, and `budget` bytes of host memory.
    pub(super) fn new(source: &'a AdapterSource, numbers: Range<usize>, budget: usize) -> Self {
        Self {
            source,
            first: numbers.start,
            tier: HostTier::new(budget),
            resident: numbers.map(|_| Arc::default()).collect(),
            loads: AtomicU64::new(0),
            load_micros: AtomicU64::new(0),
        }
    }

    /// An adapter's image, if it is in host memory.
    pub(super) fn held(&self, adapter: usize) -> Option<Arc<AdapterImage>> {
        self.tier.get(AdapterSource::id(self.first + adapter))
    }

    /// Draws an adapter's image and takes it into host memory.
    pub(super) fn load(&self, adapter: usize) -> Arc<AdapterImage> {
        let start = Instant::now();
        let resident = Arc::clone(&self.resident[adapter]);
        let image = self.tier.put(self.source.image(self.first + adapter, resident));
        self.loads.fetch_add(1, Ordering::Relaxed);
        self.load_micros.fetch_add(start.elapsed().as_micros() as u64, Ordering::Relaxed);
        image
    }

    /// Loads so far, and the time they took, summed up.
    pub(super) fn loads(&self) -> (u64, Duration) {
        let time = Duration::from_micros(self.load_micros.load(Ordering::Relaxed));
        (self.loads.load(Ordering::Relaxed), time)
    }
}
