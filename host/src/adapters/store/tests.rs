//! The store over real directories and files.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;
use tokio::runtime::Runtime;

use super::*;
use crate::adapters::{
    AdapterLease, Catalogue, Registry, Residency,
    tests::{base, copy, read as pack},
};

const ADAPTERS: [&str; 3] = ["r3", "r8", "r64"];

/// Adapter directories and a cache.
struct Site(tempfile::TempDir);

/// A process's view of them.
struct Started {
    store: Arc<AdapterStore>,
    registry: Registry,
    catalogue: Arc<Catalogue>,
    runtime: Runtime,
}

impl Site {
    fn new() -> Self {
        let site = Self(tempfile::tempdir().unwrap());
        for adapter in ADAPTERS {
            copy(adapter, &site.adapters(), adapter);
        }
        site
    }

    fn adapters(&self) -> PathBuf {
        self.0.path().join("adapters")
    }

    fn cache(&self) -> PathBuf {
        self.0.path().join("cache")
    }

    fn start(&self, budget: usize) -> Started {
        self.start_with(Some(self.cache()), budget)
    }

    fn start_with(&self, cache: Option<PathBuf>, budget: usize) -> Started {
        let store = AdapterStore::new(base(), cache, (HostMemory::pageable(), budget));
        let mut registry = Registry::new(Arc::clone(&store));
        let refresh = registry.refresh(&[self.adapters()], &BTreeMap::new());
        assert!(refresh.problems.is_empty(), "{:?}", refresh.problems);
        let (catalogue, runtime) = (refresh.catalogue, Runtime::new().unwrap());
        Started { store, registry, catalogue, runtime }
    }

    /// The file of its image.
    fn cached(&self, lease: &AdapterLease) -> PathBuf {
        let cache = DiskCache::new(self.cache());
        cache.image_path(lease.content.id, &base())
    }

    /// What its directory holds, packed anew.
    fn expected(&self, name: &str) -> AdapterImage {
        pack(&self.adapters().join(name)).unwrap()
    }
}

impl Started {
    fn lease(&self, name: &str) -> AdapterLease {
        self.catalogue.get(name).unwrap()
    }

    fn image(&self, name: &str) -> Option<Arc<AdapterImage>> {
        let image = self.runtime.block_on(self.store.image(&self.lease(name)));
        // From here on nobody but the caller and the tier holds it.
        drop(self.runtime.block_on(self.store.loaders.acquire_many(loaders() as u32)));
        image
    }

    #[track_caller]
    fn serves(&self, site: &Site, name: &str) {
        let (found, expected) = (self.image(name).expect("an image"), site.expected(name));
        assert_eq!((found.id, found.rank, &found.map), (expected.id, expected.rank, &expected.map));
        assert!(found.bytes.bytes() == expected.bytes.bytes(), "the bytes of {name}");
    }
}

#[test]
fn what_is_packed_once_is_not_packed_again() {
    let site = Site::new();
    let first = site.start(usize::MAX);
    assert_eq!(first.store.status().packs, 3);
    assert_eq!((first.store.status().images, first.store.status().misses), (3, 0));
    first.serves(&site, "r8");
    assert_eq!((first.store.status().hits, first.store.status().loads), (1, 0));

    let second = site.start(usize::MAX);
    assert_eq!((second.store.status().packs, second.store.status().images), (0, 0));
    let rank = |started: &Started| started.lease("r64").content.rank;
    assert_eq!((rank(&second), rank(&first)), (64, 64));
    ADAPTERS.iter().for_each(|name| second.serves(&site, name));
    let status = second.store.status();
    assert_eq!((status.packs, status.loads, status.misses, status.hits), (0, 3, 3, 0));

    // The same files written again are read again, and are the same content.
    copy("r8", &site.adapters(), "r8");
    let third = site.start(usize::MAX);
    assert_eq!((third.store.status().packs, third.lease("r8").number), (1, 1));
    assert_eq!(third.lease("r8").content.id, first.lease("r8").content.id);
}

#[test]
fn without_room_in_memory_every_request_reads() {
    let site = Site::new();
    let started = site.start(0);
    assert_eq!(started.store.status().images, 0);
    started.serves(&site, "r3");
    started.serves(&site, "r3");
    let held = started.image("r3").unwrap();
    assert_eq!(started.lease("r3").content.standing(), (Residency::Host, 1));
    assert!(Arc::ptr_eq(&held, &started.image("r3").unwrap()), "while it is in use it is found");
    drop(held);
    assert_eq!(started.lease("r3").content.standing(), (Residency::Disk, 0));
    let status = started.store.status();
    assert_eq!((status.loads, status.hits, status.images, status.bytes), (3, 1, 0, 0));
}

#[test]
fn a_cache_that_cannot_be_written_costs_packing() {
    let site = Site::new();
    fs::write(site.cache(), "in the way").unwrap();
    for cache in [Some(site.cache()), None] {
        let started = site.start_with(cache, 0);
        started.serves(&site, "r3");
        started.serves(&site, "r64");
        assert_eq!(started.store.status().packs, 3 + 2);
    }
}

#[test]
fn a_lease_means_what_was_registered() {
    let site = Site::new();
    let mut started = site.start(0);
    let old = started.lease("r8");
    copy("r3", &site.adapters(), "r8");
    let refresh = started.registry.refresh(&[site.adapters()], &BTreeMap::new());
    assert_eq!(refresh.catalogue.get("r8").unwrap().number, 2);
    let image = |lease| started.runtime.block_on(started.store.image(lease));
    assert_eq!(image(&old).map(|image| image.rank), Some(8), "from the cache");
    fs::remove_file(site.cached(&old)).unwrap();
    assert!(image(&old).is_none(), "its directory holds another now");
    assert!(image(&refresh.catalogue.get("r8").unwrap()).is_some());
}

#[test]
fn what_nobody_can_ask_for_leaves_memory() {
    let site = Site::new();
    copy("r8", &site.adapters(), "twin");
    let mut started = site.start(usize::MAX);
    assert_eq!(started.store.status().images, 3, "names of one content share its image");
    for (gone, left) in [("r8", 3), ("twin", 2)] {
        fs::remove_dir_all(site.adapters().join(gone)).unwrap();
        started.catalogue =
            started.registry.refresh(&[site.adapters()], &BTreeMap::new()).catalogue;
        assert_eq!(started.store.status().images, left);
    }
}

#[test]
fn all_that_wait_share_one_read_and_who_leaves_costs_none() {
    let site = Site::new();
    let started = site.start(0);
    let Started { store, runtime, .. } = &started;
    let ask = |name| {
        let (store, lease) = (Arc::clone(store), started.lease(name));
        runtime.spawn(async move { store.image(&lease).await.is_some() })
    };
    runtime.block_on(async {
        let in_memory = store.image(&started.lease("r64")).await;
        let held = store.loaders.acquire_many(loaders() as u32).await.unwrap();
        let together: Vec<_> = (0..8).map(|_| ask("r8")).collect();
        let gone = ask("r3");
        while store.status().misses < 1 + 8 + 1 {
            tokio::task::yield_now().await;
        }
        assert!(store.image(&started.lease("r64")).await.is_some(), "others overtake");
        gone.abort();
        assert!(gone.await.is_err_and(|error| error.is_cancelled()));
        drop((held, in_memory));
        for waiter in together {
            assert!(waiter.await.unwrap());
        }
        // The queue is fair: whatever was before this has been dealt with.
        drop(store.loaders.acquire_many(loaders() as u32).await.unwrap());
        assert_eq!(store.status().loads, 1 + 1, "r64 and one for all of r8");
        assert!(store.waiters().is_empty());
        assert!(ask("r3").await.unwrap(), "asked for again, it is read");
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn damaged_files_are_made_again(
        image in any::<bool>(),
        at in any::<prop::sample::Index>(),
        bit in prop::option::of(0u8..8),
    ) {
        let site = Site::new();
        let lease = site.start(0).lease("r3");
        let cache = DiskCache::new(site.cache());
        let path = match image {
            true => cache.image_path(lease.content.id, &base()),
            false => cache.receipt_path(&lease.path, &base()),
        };
        let mut bytes = fs::read(&path).unwrap();
        let whole = bytes.clone();
        let at = at.index(bytes.len());
        match bit {
            Some(bit) => bytes[at] ^= 1 << bit,
            None => bytes.truncate(at),
        }
        fs::write(&path, bytes).unwrap();
        let started = site.start(0);
        started.serves(&site, "r3");
        prop_assert_eq!(started.store.status().packs, 1);
        prop_assert_eq!(fs::read(&path).unwrap(), whole, "mended");
    }
}
