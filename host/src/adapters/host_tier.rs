//! Adapter images in host memory, under a budget of bytes.
//!
//! An image is *in use* while a request or the pool holds it; its memory is theirs then. Of all
//! others the tier keeps those that were used last. Invariant *host budget*: what the tier keeps
//! is never more than the budget. Only images in use may exceed it: those beyond are remembered
//! without being kept, so that others find them and they go with their last user.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::model::{AdapterId, AdapterImage};

/// The images in host memory.
pub(crate) struct HostTier {
    state: Mutex<State>,
}

struct State {
    entries: BTreeMap<AdapterId, Entry>,
    /// Bytes.
    budget: usize,
    /// Counts uses.
    clock: u64,
}

struct Entry {
    image: Weak<AdapterImage>,
    /// `None` while only its users keep it.
    kept: Option<Arc<AdapterImage>>,
    /// Memory that it takes.
    bytes: usize,
    /// Clock at the last use.
    used: u64,
}

impl Entry {
    /// Whether anybody but the tier keeps the image. Nobody can begin to without the tier's lock.
    fn is_in_use(&self) -> bool {
        self.image.strong_count() > usize::from(self.kept.is_some())
    }
}

/// Images that were given up, to be freed where no lock is held.
type Freed = Vec<Arc<AdapterImage>>;

impl HostTier {
    pub(crate) fn new(budget: usize) -> Self {
        let state = State { entries: BTreeMap::new(), budget, clock: 0 };
        Self { state: Mutex::new(state) }
    }

    /// The image, if it is in memory.
    pub(crate) fn get(&self, id: AdapterId) -> Option<Arc<AdapterImage>> {
        let mut state = self.lock();
        state.clock += 1;
        let clock = state.clock;
        let entry = state.entries.get_mut(&id)?;
        let image = entry.image.upgrade()?;
        entry.used = clock;
        // One that was beyond the budget may have room by now.
        entry.kept.get_or_insert_with(|| Arc::clone(&image));
        let freed = state.fit(0);
        drop(state);
        drop(freed);
        Some(image)
    }

    /// Takes in an image that is about to be used. Where there already is one, that is the image.
    pub(crate) fn put(&self, image: AdapterImage) -> Arc<AdapterImage> {
        let mut state = self.lock();
        let present = state.entries.get(&image.id).and_then(|entry| entry.image.upgrade());
        let held = present.unwrap_or_else(|| Arc::new(image));
        state.insert(&held);
        let freed = state.fit(0);
        drop(state);
        drop(freed);
        held
    }

    /// Takes in an image that nobody waits for, if that costs no other its place.
    pub(super) fn offer(&self, image: AdapterImage) {
        let mut state = self.lock();
        let known = state.entries.get(&image.id).is_some_and(|e| e.image.strong_count() > 0);
        let [_, live] = state.bytes();
        let fits = live + image.bytes.capacity() <= state.budget;
        if !known && fits {
            state.insert(&Arc::new(image));
        }
    }

    /// Gives up images that nobody uses until `bytes` more fit, so that what is read next finds
    /// their memory.
    pub(super) fn make_room(&self, bytes: usize) {
        let freed = self.lock().fit(bytes);
        drop(freed);
    }

    /// Gives up an image that nobody can ask for any more.
    pub(super) fn forget(&self, id: AdapterId) {
        let gone = self.lock().entries.remove(&id);
        drop(gone);
    }

    pub(super) fn set_budget(&self, bytes: usize) {
        let mut state = self.lock();
        state.budget = bytes;
        let freed = state.fit(0);
        drop(state);
        drop(freed);
    }

    /// How many hold the image beside the tier; `None` if it is not in memory.
    pub(super) fn holders(&self, id: AdapterId) -> Option<usize> {
        let state = self.lock();
        let entry = state.entries.get(&id)?;
        let all = entry.image.strong_count();
        (all > 0).then(|| all - usize::from(entry.kept.is_some()))
    }

    /// `[images, bytes, budget]`, images in use included.
    pub(super) fn sizes(&self) -> [usize; 3] {
        let state = self.lock();
        let [_, live] = state.bytes();
        let images = state.entries.values().filter(|entry| entry.image.strong_count() > 0);
        [images.count(), live, state.budget]
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn insert(&mut self, image: &Arc<AdapterImage>) {
        self.clock += 1;
        let (kept, used, bytes) = (Some(Arc::clone(image)), self.clock, image.bytes.capacity());
        let entry = Entry { image: Arc::downgrade(image), kept, bytes, used };
        self.entries.insert(image.id, entry);
    }

    /// `[kept, alive]`
    fn bytes(&self) -> [usize; 2] {
        let sum = |counts: fn(&&Entry) -> bool| {
            self.entries.values().filter(counts).map(|entry| entry.bytes).sum()
        };
        [sum(|entry| entry.kept.is_some()), sum(|entry| entry.image.strong_count() > 0)]
    }

    /// Gives up what is beyond the budget: first images that nobody uses, the one used longest ago
    /// first, until all that are alive fit beside `more`; then the tier's own hold on images in
    /// use, until what it keeps fits.
    fn fit(&mut self, more: usize) -> Freed {
        let [mut kept, mut live] = self.bytes();
        let mut freed = Vec::new();
        let most = self.budget.saturating_sub(more);
        if live > most {
            self.entries.retain(|_, entry| entry.image.strong_count() > 0);
            let mut order: Vec<_> =
                self.entries.values_mut().filter(|entry| entry.kept.is_some()).collect();
            order.sort_by_key(|entry| (entry.is_in_use(), entry.used));
            for entry in order {
                let in_use = entry.is_in_use();
                if kept <= self.budget && (in_use || live <= most) {
                    break;
                }
                kept -= entry.bytes;
                live -= if in_use { 0 } else { entry.bytes };
                freed.extend(entry.kept.take());
            }
        }
        assert!(kept <= self.budget, "host budget: {kept} bytes of {}", self.budget);
        freed
    }
}

#[cfg(test)]
mod tests;
