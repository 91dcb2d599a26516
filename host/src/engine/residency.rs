//! Which adapters the pool holds.
//!
//! An adapter is resident from its load until it is evicted. Running sequences lease it
//! (invariant *lease pins*: a leased adapter is never evicted); idle ones stay until their slabs
//! are wanted, and go by GreedyDual-Size-Frequency (Cherkasova 1998): value = clock + uses *
//! restore cost / size, where the clock is the value of the last one evicted. Restoring costs one
//! copy per slab, so that cost / size is 1. An adapter that nobody outside can ask for any more
//! goes first.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
};

use switchyard_kernels::AdapterSlot;

use super::pool::{Owner, SlabPool};
use crate::model::{AdapterId, AdapterImage};

/// An adapter to be copied into pool slabs before the next forward pass.
pub(super) struct AdapterLoad {
    pub(super) slot: AdapterSlot,
    pub(super) image: Arc<AdapterImage>,
    pub(super) slabs: Vec<u32>,
}

struct Resident {
    image: Arc<AdapterImage>,
    slot: AdapterSlot,
    slabs: Vec<u32>,
    /// Running sequences that use it.
    leases: usize,
    /// Leases since it was loaded.
    uses: u64,
    /// Clock at the last lease, plus uses.
    value: u64,
}

/// The adapters in the pool, by identity of their content.
#[derive(Default)]
pub(super) struct AdapterResidency {
    resident: BTreeMap<AdapterId, Resident>,
    free_slots: Vec<AdapterSlot>,
    /// Slots made so far.
    slots: u32,
    /// Slabs of adapters without a lease.
    idle_slabs: usize,
    clock: u64,
    loads: u64,
}

impl AdapterResidency {
    /// Adapters loaded since the start.
    pub(super) fn loads(&self) -> u64 {
        self.loads
    }

    /// Slabs to be found before `image` can be leased.
    pub(super) fn slabs_missing(&self, image: &AdapterImage) -> usize {
        if self.resident.contains_key(&image.id) { 0 } else { image.map.slabs as usize }
    }

    /// Slabs that evictions could free, sparing `spared`.
    pub(super) fn evictable(&self, spared: Option<&AdapterImage>) -> usize {
        let spared = spared.and_then(|image| self.resident.get(&image.id));
        let idle = spared.filter(|resident| resident.leases == 0);
        self.idle_slabs - idle.map_or(0, |resident| resident.slabs.len())
    }

    /// Pins a resident adapter.
    pub(super) fn lease(&mut self, id: AdapterId) -> Option<AdapterSlot> {
        let resident = self.resident.get_mut(&id)?;
        if resident.leases == 0 {
            self.idle_slabs -= resident.slabs.len();
        }
        resident.leases += 1;
        resident.uses += 1;
        resident.value = self.clock + resident.uses;
        Some(resident.slot)
    }

    /// Takes slabs and a slot for an adapter that is not resident, and pins it. The caller has made
    /// room and carries the load out.
    pub(super) fn load(&mut self, image: &Arc<AdapterImage>, pool: &mut SlabPool) -> AdapterLoad {
        let slot = self.free_slots.pop().unwrap_or(AdapterSlot(self.slots));
        self.slots = self.slots.max(slot.0 + 1);
        let take = |_| pool.take(Owner::Adapter(image.id));
        let slabs: Vec<u32> = (0..image.map.slabs).map(take).collect();
        let value = self.clock + 1;
        let resident = Resident {
            image: image.clone(),
            slot,
            slabs: slabs.clone(),
            leases: 1,
            uses: 1,
            value,
        };
        let before = self.resident.insert(image.id, resident);
        assert!(before.is_none(), "adapter {} is loaded twice", image.id);
        image.resident.store(true, Ordering::Relaxed);
        self.loads += 1;
        AdapterLoad { slot, image: image.clone(), slabs }
    }

    /// Ends one lease.
    pub(super) fn release(&mut self, id: AdapterId) {
        let resident =
            self.resident.get_mut(&id).expect("lease pins: a leased adapter is resident");
        resident.leases = resident.leases.checked_sub(1).expect("lease pins: one release a lease");
        if resident.leases == 0 {
            self.idle_slabs += resident.slabs.len();
        }
    }

    /// Frees the slabs of the idle adapter that is worth least; `false` if none is idle.
    pub(super) fn evict_one(&mut self, pool: &mut SlabPool) -> bool {
        let idle = self.resident.values().filter(|resident| resident.leases == 0);
        let Some(least) = idle.min_by_key(|resident| (resident.value, resident.slot)) else {
            return false;
        };
        self.clock = least.value;
        let id = least.image.id;
        self.evict(id, pool);
        true
    }

    /// Frees idle adapters of which only residency still knows: their generation is retired.
    pub(super) fn evict_retired(&mut self, pool: &mut SlabPool) {
        let retired = |resident: &&Resident| resident.leases == 0 && resident.image.is_forgotten();
        let ids: Vec<_> = self.resident.values().filter(retired).map(|r| r.image.id).collect();
        for id in ids {
            self.evict(id, pool);
        }
    }

    fn evict(&mut self, id: AdapterId, pool: &mut SlabPool) {
        let resident = self.resident.remove(&id).expect("only residents are evicted");
        assert_eq!(resident.leases, 0, "lease pins: adapter {id} is in use");
        self.idle_slabs -= resident.slabs.len();
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

    /// Asserts *lease pins* against the adapters of the running sequences.
    pub(super) fn assert_leased(&self, running: impl Iterator<Item = AdapterId>) {
        let mut leases: BTreeMap<AdapterId, usize> = BTreeMap::new();
        running.for_each(|id| *leases.entry(id).or_default() += 1);
        for (id, resident) in &self.resident {
            let expected = leases.remove(id).unwrap_or(0);
            assert_eq!(resident.leases, expected, "lease pins: adapter {id}");
        }
        assert!(leases.is_empty(), "lease pins: a running sequence's adapter is not resident");
    }
}
