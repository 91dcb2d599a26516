//! Which adapters the pool holds.
//!
//! An adapter is *loading* from the moment that it takes slabs and a slot until its image has been
//! copied, then resident until it is evicted. Running sequences lease it, from before its copy is
//! complete (invariant *lease pins*: a leased adapter is never evicted; nor is one that is still
//! being written, by *one writer*). Idle ones stay until their slabs are wanted, and go by
//! GreedyDual-Size-Frequency (Cherkasova 1998): value = clock + uses * restore cost / size, where
//! the clock is the value of the last one evicted. Restoring costs one copy per slab, so that cost
//! / size is 1. Those that a waiting sequence wants go after all others, one that nobody outside
//! can ask for any more goes first.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use switchyard_kernels::AdapterSlot;

use super::pool::{Owner, SlabPool};
use crate::model::{AdapterId, AdapterImage};

/// An adapter to be copied into pool slabs.
pub(super) struct AdapterLoad {
    pub(super) slot: AdapterSlot,
    pub(super) image: Arc<AdapterImage>,
    pub(super) slabs: Vec<u32>,
}

struct Resident {
    image: Arc<AdapterImage>,
    slot: AdapterSlot,
    slabs: Vec<u32>,
    /// Whether its image is still being copied.
    loading: bool,
    /// Running sequences that use it.
    leases: usize,
    /// Leases since it was loaded.
    uses: u64,
    /// Clock at the last lease, plus uses.
    value: u64,
    /// Whether a sequence near the head of the queue waits for it.
    wanted: bool,
}

impl Resident {
    fn is_idle(&self) -> bool {
        self.leases == 0 && !self.loading
    }
}

/// The adapters in the pool, by identity of their content.
#[derive(Default)]
pub(super) struct AdapterResidency {
    resident: BTreeMap<AdapterId, Resident>,
    free_slots: Vec<AdapterSlot>,
    /// Slots made so far.
    slots: u32,
    /// Those that are marked as wanted, resident or not.
    wanted: Vec<AdapterId>,
    /// Slabs of adapters without a lease.
    idle_slabs: usize,
    /// Slabs of adapters whose image is being copied.
    loading_slabs: usize,
    /// Adapters whose image is being copied.
    loading: usize,
    clock: u64,
    loads: u64,
    evictions: u64,
}

impl AdapterResidency {
    /// Loads begun and adapters evicted since the start.
    pub(super) fn turnover(&self) -> [u64; 2] {
        [self.loads, self.evictions]
    }

    /// Slabs of adapters that are `[idle, loading]`.
    pub(super) fn slabs(&self) -> [usize; 2] {
        [self.idle_slabs, self.loading_slabs]
    }

    /// Adapters whose image is being copied.
    pub(super) fn loading(&self) -> usize {
        self.loading
    }

    /// Whether any of those has no lease and can be evicted once it is there.
    pub(super) fn prefetching(&self) -> bool {
        self.loading > 0 && self.resident.values().any(|r| r.loading && r.leases == 0)
    }

    /// Whether an adapter has slabs, its image in them or on the way.
    pub(super) fn has(&self, id: AdapterId) -> bool {
        self.resident.contains_key(&id)
    }

    /// Whether running sequences use an adapter.
    pub(super) fn in_use(&self, id: AdapterId) -> bool {
        self.resident.get(&id).is_some_and(|resident| resident.leases > 0)
    }

    /// Slabs to be found before `image` can be leased.
    pub(super) fn slabs_missing(&self, image: &AdapterImage) -> usize {
        if self.has(image.id) { 0 } else { image.map.slabs as usize }
    }

    /// Slabs that evictions could free, sparing `spared`.
    pub(super) fn evictable(&self, spared: Option<&AdapterImage>) -> usize {
        let spared = spared.and_then(|image| self.resident.get(&image.id));
        let idle = spared.filter(|resident| resident.is_idle());
        self.idle_slabs - idle.map_or(0, |resident| resident.slabs.len())
    }

    /// Says which adapters waiting sequences want, and no others.
    pub(super) fn want(&mut self, ids: Vec<AdapterId>) {
        for (id, wanted) in std::mem::take(&mut self.wanted)
            .iter()
            .map(|id| (id, false))
            .chain(ids.iter().map(|id| (id, true)))
        {
            if let Some(resident) = self.resident.get_mut(id) {
                resident.wanted = wanted;
            }
        }
        self.wanted = ids;
    }

    /// Pins an adapter that has slabs; its slot, and whether its image is still on the way.
    pub(super) fn lease(&mut self, id: AdapterId) -> Option<(AdapterSlot, bool)> {
        let resident = self.resident.get_mut(&id)?;
        if resident.is_idle() {
            self.idle_slabs -= resident.slabs.len();
        }
        resident.leases += 1;
        resident.uses += 1;
        resident.value = self.clock + resident.uses;
        Some((resident.slot, resident.loading))
    }

    /// Takes slabs and a slot for an adapter that has none, for so many sequences that wait. The
    /// caller has made room and carries the load out.
    pub(super) fn load(
        &mut self,
        image: &Arc<AdapterImage>,
        waiting: u64,
        pool: &mut SlabPool,
    ) -> AdapterLoad {
        let slot = self.free_slots.pop().unwrap_or(AdapterSlot(self.slots));
        self.slots = self.slots.max(slot.0 + 1);
        let take = |_| pool.take(Owner::Adapter(image.id));
        let slabs: Vec<u32> = (0..image.map.slabs).map(take).collect();
        let resident = Resident {
            image: image.clone(),
            slot,
            slabs: slabs.clone(),
            loading: true,
            leases: 0,
            uses: 0,
            value: self.clock + waiting,
            wanted: waiting > 0,
        };
        let before = self.resident.insert(image.id, resident);
        assert!(before.is_none(), "adapter {} is loaded twice", image.id);
        self.loading += 1;
        self.loading_slabs += slabs.len();
        self.loads += 1;
        image.resident.store(true, Ordering::Relaxed);
        AdapterLoad { slot, image: image.clone(), slabs }
    }

    /// Takes note that an adapter's image has been copied.
    pub(super) fn loaded(&mut self, id: AdapterId) {
        let resident = self.resident.get_mut(&id).expect("one writer: a loading adapter stays");
        assert!(resident.loading, "adapter {id} is loaded once");
        resident.loading = false;
        self.loading -= 1;
        self.loading_slabs -= resident.slabs.len();
        if resident.is_idle() {
            self.idle_slabs += resident.slabs.len();
        }
    }

    /// Ends one lease.
    pub(super) fn release(&mut self, id: AdapterId) {
        let resident =
            self.resident.get_mut(&id).expect("lease pins: a leased adapter is resident");
        resident.leases = resident.leases.checked_sub(1).expect("lease pins: one release a lease");
        if resident.is_idle() {
            self.idle_slabs += resident.slabs.len();
        }
    }

    /// Frees the slabs of the idle adapter that is worth least; `false` if none is idle.
    pub(super) fn evict_one(&mut self, pool: &mut SlabPool) -> bool {
        let idle = self.resident.values().filter(|resident| resident.is_idle());
        let Some(least) = idle.min_by_key(|r| (r.wanted, r.value, r.slot)) else {
            return false;
        };
        let (id, value) = (least.image.id, least.value);
        self.clock = value.max(self.clock);
        self.evict(id, pool);
        true
    }

    /// Frees slabs until `slabs` are free, at the cost of idle adapters that are worth no more than
    /// one for which so many sequences wait, and that none waits for; `false`, and nothing freed,
    /// if that is not enough.
    pub(super) fn make_room(&mut self, slabs: usize, waiting: u64, pool: &mut SlabPool) -> bool {
        let most = self.clock + waiting;
        let cheap = |r: &&Resident| r.is_idle() && !r.wanted && r.value <= most;
        let mut cheap: Vec<_> = self.resident.values().filter(cheap).collect();
        if pool.free() + cheap.iter().map(|r| r.slabs.len()).sum::<usize>() < slabs {
            return false;
        }
        cheap.sort_by_key(|r| (r.value, r.slot));
        let cheap: Vec<_> = cheap.iter().map(|r| (r.image.id, r.value)).collect();
        for (id, value) in cheap {
            if pool.free() >= slabs {
                break;
            }
            self.clock = value.max(self.clock);
            self.evict(id, pool);
        }
        true
    }

    /// Frees idle adapters of which only residency still knows: their generation is retired.
    pub(super) fn evict_retired(&mut self, pool: &mut SlabPool) {
        let retired = |resident: &&Resident| resident.is_idle() && resident.image.is_forgotten();
        let ids: Vec<_> = self.resident.values().filter(retired).map(|r| r.image.id).collect();
        for id in ids {
            self.evict(id, pool);
        }
    }

    fn evict(&mut self, id: AdapterId, pool: &mut SlabPool) {
        let resident = self.resident.remove(&id).expect("only residents are evicted");
        assert_eq!(resident.leases, 0, "lease pins: adapter {id} is in use");
        assert!(!resident.loading, "one writer: adapter {id} is being written");
        self.idle_slabs -= resident.slabs.len();
        self.evictions += 1;
        for slab in resident.slabs {
            pool.give(slab, Owner::Adapter(id));
        }
        self.free_slots.push(resident.slot);
        resident.image.resident.store(false, Ordering::Relaxed);
    }

    /// Every slab held, for *slab conservation*.
    pub(super) fn held(&self) -> impl Iterator<Item = (u32, Owner)> {
        self.resident.values().flat_map(|resident| {
            resident.slabs.iter().map(|&slab| (slab, Owner::Adapter(resident.image.id)))
        })
    }

    /// Asserts *lease pins* against the adapters of the running sequences, and the counts.
    pub(super) fn assert_leased(&self, running: impl Iterator<Item = AdapterId>) {
        let mut leases: BTreeMap<AdapterId, usize> = BTreeMap::new();
        running.for_each(|id| *leases.entry(id).or_default() += 1);
        for (id, resident) in &self.resident {
            let expected = leases.remove(id).unwrap_or(0);
            assert_eq!(resident.leases, expected, "lease pins: adapter {id}");
        }
        assert!(leases.is_empty(), "lease pins: a running sequence's adapter is not resident");
        let slabs = |counts: fn(&&Resident) -> bool| -> usize {
            self.resident.values().filter(counts).map(|r| r.slabs.len()).sum()
        };
        assert_eq!(self.slabs(), [slabs(|r| r.is_idle()), slabs(|r| r.loading)], "slab counts");
    }
}
