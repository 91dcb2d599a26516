//! Where adapters' weights are kept: host memory, under a budget, over files on disk.
//!
//! The engine is handed whole images and never waits for one: whoever wants to submit a sequence
//! awaits [`AdapterStore::image`] first. What is not in host memory is read by a few blocking
//! threads, once for all that wait for it, from the cache or, where that does not hold it, from
//! the adapter's own directory. Giving up the wait cancels a read that has not begun.

use std::{
    collections::BTreeMap,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::available_parallelism,
    time::{Duration, Instant},
};

use switchyard_kernels::{HostMemory, HostMemoryStatus};
use tokio::{
    sync::{Semaphore, oneshot},
    task::spawn_blocking,
};

use super::{
    AdapterContent, AdapterError, AdapterLease, BaseIdentity, directory::AdapterDirectory,
    disk_cache::DiskCache, host_tier::HostTier, receipt::Receipt, scan::Stamp,
};
use crate::model::{AdapterId, AdapterImage, ImageMemory};

/// Most images that are read at once. Each is hashed by its thread at about the speed of a fast
/// disk, once its memory is there.
const LOADERS_MAX: usize = 8;

/// Waits for an image; `None` if it cannot be had.
type Waiter = oneshot::Sender<Option<Arc<AdapterImage>>>;

/// The images of one base's adapters.
pub struct AdapterStore {
    base: BaseIdentity,
    cache: Option<DiskCache>,
    memory: ImageMemory,
    tier: Arc<HostTier>,
    /// Who waits for images that are being read. Locked before the tier.
    loads: Mutex<BTreeMap<AdapterId, Vec<Waiter>>>,
    loaders: Semaphore,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    hits: AtomicU64,
    misses: AtomicU64,
    loads: AtomicU64,
    packs: AtomicU64,
    load_micros: AtomicU64,
}

/// The store at one time; counts are since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdapterStoreStatus {
    /// Images in host memory, those of running requests and of the pool included.
    pub images: usize,
    /// Bytes of memory that they take.
    pub bytes: usize,
    /// Memory that images have come from and the next will be read into, and its kind.
    pub memory: HostMemoryStatus,
    /// Bytes they may have while not in use.
    pub budget: usize,
    /// Requests whose adapter was in host memory.
    pub hits: u64,
    /// Requests that had to wait for theirs.
    pub misses: u64,
    /// Images read for them, from the cache or from directories.
    pub loads: u64,
    /// The time that took, summed over images.
    pub load_time: Duration,
    /// Images packed from directories, when registered or because the cache did not hold them.
    pub packs: u64,
}

impl AdapterStore {
    /// An empty store with `budget` bytes of `memory`; without a `cache` directory adapters are
    /// packed again whenever they have left host memory.
    pub fn new(
        base: BaseIdentity,
        cache: Option<PathBuf>,
        (memory, budget): (HostMemory, usize),
    ) -> Arc<Self> {
        memory.set_budget(budget);
        Arc::new(Self {
            memory: ImageMemory::new(memory, base.slab_bytes()),
            base,
            cache: cache.map(DiskCache::new),
            tier: Arc::new(HostTier::new(budget)),
            loads: Mutex::default(),
            loaders: Semaphore::new(loaders()),
            counts: Counts::default(),
        })
    }

    /// The base that its adapters are for.
    pub fn base(&self) -> &BaseIdentity {
        &self.base
    }

    /// Changes the bytes of host memory.
    pub fn set_budget(&self, bytes: usize) {
        self.tier.set_budget(bytes);
        self.memory.host().set_budget(bytes);
    }

    /// The counters.
    pub fn status(&self) -> AdapterStoreStatus {
        let [images, bytes, budget] = self.tier.sizes();
        let memory = self.memory.host().status();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counts { hits, misses, loads, packs, load_micros } = &self.counts;
        let load_time = Duration::from_micros(count(load_micros));
        let [hits, misses, loads, packs] = [hits, misses, loads, packs].map(count);
        AdapterStoreStatus { images, bytes, memory, budget, hits, misses, loads, load_time, packs }
    }

    /// Checks a directory and says what it holds. The weights are read only if its files are not
    /// those that were last packed; then the image is there too.
    pub(super) fn examine(
        &self,
        dir: &Path,
        stamp: &Stamp,
        allow_base_mismatch: bool,
    ) -> Result<(Receipt, Option<AdapterImage>), AdapterError> {
        let directory = AdapterDirectory::open(dir, &self.base, allow_base_mismatch)?;
        let known = self.cache.as_ref().and_then(|cache| cache.receipt(dir, stamp, &self.base));
        if let Some(receipt) = known {
            return Ok((receipt, None));
        }
        let image = self.pack(&directory)?;
        let receipt = Receipt { id: image.id, rank: image.rank, slabs: image.map.slabs };
        Ok((receipt, Some(image)))
    }

    /// Remembers what [`AdapterStore::examine`] found in files of this stamp.
    pub(super) fn remember(&self, place: (&Path, &Stamp), receipt: &Receipt) {
        if let Some(cache) = &self.cache {
            cache.keep_receipt(place, receipt, &self.base);
        }
    }

    /// What is kept of a content that is new.
    pub(super) fn content(&self, receipt: Receipt) -> AdapterContent {
        AdapterContent::new(receipt, &self.tier)
    }

    /// Puts an image on disk, and into host memory while there is room.
    pub(super) fn keep(&self, content: &AdapterContent, image: AdapterImage) {
        if let Some(cache) = &self.cache {
            cache.keep_image(&image, &self.base);
        }
        self.tier.offer(content.adopt(image));
    }

    /// An adapter's image, once it is in host memory; it stays there while the result is held.
    /// `None` if it can be had no more, for a reason that has been logged.
    pub async fn image(self: &Arc<Self>, lease: &AdapterLease) -> Option<Arc<AdapterImage>> {
        let (waiter, loaded) = oneshot::channel();
        {
            let mut loads = self.waiters();
            if let Some(image) = self.tier.get(lease.content.id) {
                self.counts.hits.fetch_add(1, Ordering::Relaxed);
                return Some(image);
            }
            self.counts.misses.fetch_add(1, Ordering::Relaxed);
            let waiting = loads.entry(lease.content.id).or_default();
            waiting.push(waiter);
            if waiting.len() == 1 {
                tokio::spawn(Arc::clone(self).load(Arc::clone(lease)));
            }
        }
        loaded.await.ok().flatten()
    }

    /// Reads an image for all that wait for it.
    async fn load(self: Arc<Self>, lease: AdapterLease) {
        let id = lease.content.id;
        // The semaphore is never closed.
        let Ok(_loader) = self.loaders.acquire().await else { return };
        if !self.is_awaited(id) {
            return;
        }
        let store = Arc::clone(&self);
        let read = spawn_blocking(move || {
            let read = store.read(&lease).map(|image| store.tier.put(image));
            read.inspect_err(|error| tracing::error!(adapter = lease.name, "{error}"))
        });
        // A panic has been reported where it happened.
        let image = read.await.ok().and_then(Result::ok);
        let mut waiters = self.waiters().remove(&id).unwrap_or_default();
        // The last gets this hold on the image, so that who has been answered and lets go is the
        // last to do so. One that has gone away needs no answer.
        let last = waiters.pop();
        waiters.into_iter().for_each(|waiter| drop(waiter.send(image.clone())));
        drop(last.map(|waiter| waiter.send(image)));
    }

    /// Whether anybody still waits; if not, the read is as good as never asked for.
    fn is_awaited(&self, id: AdapterId) -> bool {
        let mut loads = self.waiters();
        let Some(waiting) = loads.get_mut(&id) else { return false };
        waiting.retain(|waiter| !waiter.is_closed());
        let awaited = !waiting.is_empty();
        if !awaited {
            loads.remove(&id);
        }
        awaited
    }

    /// From the cache, else from the directory, if that still holds what was registered.
    fn read(&self, lease: &AdapterLease) -> Result<AdapterImage, AdapterError> {
        let start = Instant::now();
        let content = &lease.content;
        self.tier.make_room(self.memory.capacity(content.slabs));
        let place = (&self.base, &self.memory);
        let cached = self.cache.as_ref().and_then(|cache| cache.image(content.id, place));
        self.report_refusal();
        let image = match cached {
            Some(image) => image,
            None => self.pack_again(lease)?,
        };
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.counts.loads.fetch_add(1, Ordering::Relaxed);
        self.counts.load_micros.fetch_add(micros, Ordering::Relaxed);
        Ok(content.adopt(image))
    }

    fn pack_again(&self, lease: &AdapterLease) -> Result<AdapterImage, AdapterError> {
        // What an adapter was trained on has been settled when it was registered.
        let directory = AdapterDirectory::open(&lease.path, &self.base, true)?;
        let image = self.pack(&directory)?;
        if image.id != lease.content.id {
            return Err(AdapterError::Replaced { path: lease.path.clone() });
        }
        if let Some(cache) = &self.cache {
            cache.keep_image(&image, &self.base);
        }
        Ok(image)
    }

    fn pack(&self, directory: &AdapterDirectory<'_>) -> Result<AdapterImage, AdapterError> {
        self.counts.packs.fetch_add(1, Ordering::Relaxed);
        let image = directory.pack(&self.memory);
        self.report_refusal();
        image
    }

    /// Says once that loads will be slower.
    fn report_refusal(&self) {
        if let Some(why) = self.memory.host().refusal() {
            tracing::warn!(
                "adapters are kept in memory that is not pinned, and loads from it hold up steps: \
                 {why}; lower adapters.host_memory, or raise the memory limit of this process"
            );
        }
    }

    fn waiters(&self) -> MutexGuard<'_, BTreeMap<AdapterId, Vec<Waiter>>> {
        self.loads.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Images that are read at once: on half the processors, so that the others go on with requests.
pub(crate) fn loaders() -> usize {
    available_parallelism().map_or(1, NonZero::get).div_ceil(2).clamp(2, LOADERS_MAX)
}

#[cfg(test)]
mod tests;
