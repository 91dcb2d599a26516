//! Where the bytes that a device loads from are kept: page-locked for a GPU, plain for the CPU.
//!
//! Fresh pages take tens of milliseconds for an adapter, to touch and to lock. A buffer that is
//! dropped therefore leaves its memory here for the next of its size class. What is held, in use
//! and spare, is at most a budget; only what is in use may exceed it. Memory is allocated by
//! whoever asks for it and freed by a thread of this object's own, neither under its lock: a
//! buffer may be dropped on a thread that must not wait.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

use crate::{
    DeviceError, HostBuffer,
    cuda::{Device, PinnedBuffer},
    host_buffer::Block,
};

/// A class is at most one part in so many larger than what it is asked for, give or take.
const CLASS_PARTS: usize = 32;

/// Host memory of one kind. Clones share it.
#[derive(Clone)]
pub struct HostMemory {
    home: Arc<Home>,
}

/// What the memory of one kind holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostMemoryStatus {
    /// Bytes, in use and spare.
    pub held: usize,
    /// Bytes that wait for their next use.
    pub spare: usize,
    /// Whether all of it is page-locked.
    pub pinned: bool,
}

/// What buffers go back to.
pub(crate) struct Home {
    /// The GPU to lock pages for.
    device: Option<Arc<Device>>,
    state: Mutex<State>,
    /// To the thread that frees.
    freed: Sender<Block>,
}

struct State {
    /// With their sizes, the one given back last at the end.
    spare: Vec<(Block, usize)>,
    /// Bytes, in use and spare.
    held: usize,
    budget: usize,
    /// Why pages could not be locked, until it is told.
    refusal: Option<DeviceError>,
    /// Whether pages could not be locked once.
    refused: bool,
}

impl HostMemory {
    /// Memory that the system may page out.
    pub fn pageable() -> Self {
        Self::of(None)
    }

    /// Memory that a GPU copies straight from.
    pub(crate) fn pinned(device: &Arc<Device>) -> Self {
        Self::of(Some(device.clone()))
    }

    fn of(device: Option<Arc<Device>>) -> Self {
        let (freed, blocks) = channel::<Block>();
        let free = move || blocks.into_iter().for_each(drop);
        // Without the thread a block is freed where it is sent.
        drop(thread::Builder::new().name("host-memory".into()).spawn(free));
        let (spare, held, budget) = (Vec::new(), 0, usize::MAX);
        let state = Mutex::new(State { spare, held, budget, refusal: None, refused: false });
        Self { home: Arc::new(Home { device, state, freed }) }
    }

    /// `len` bytes of unspecified contents. Pageable where pages cannot be locked.
    pub fn buffer(&self, len: usize) -> HostBuffer {
        let home = &self.home;
        let class = size_class(len);
        let (block, freed) = home.lock().find(class);
        // Freed first, so that the budget holds.
        drop(freed);
        let block = block.unwrap_or_else(|| home.allocate(class));
        HostBuffer::lent(block, len, (class, home.clone()))
    }

    /// Bytes of memory that a buffer of `len` bytes takes.
    pub fn capacity(&self, len: usize) -> usize {
        size_class(len)
    }

    /// Changes the bytes that may be held.
    pub fn set_budget(&self, bytes: usize) {
        let freed = {
            let mut state = self.home.lock();
            state.budget = bytes;
            state.fit(0)
        };
        self.home.free(freed);
    }

    /// Why pages could not be locked, told once.
    pub fn refusal(&self) -> Option<DeviceError> {
        self.home.lock().refusal.take()
    }

    /// What is held now.
    pub fn status(&self) -> HostMemoryStatus {
        let state = self.home.lock();
        let spare = state.spare.iter().map(|(_, size)| size).sum();
        let pinned = self.home.device.is_some() && !state.refused;
        HostMemoryStatus { held: state.held, spare, pinned }
    }
}

impl Home {
    /// Takes a dropped buffer's memory back. Never waits for the system.
    pub(crate) fn give_back(&self, block: Block, size: usize) {
        let freed = {
            let mut state = self.lock();
            state.spare.push((block, size));
            state.fit(0)
        };
        self.free(freed);
    }

    fn allocate(&self, size: usize) -> Block {
        let Some(device) = &self.device else { return Block::pageable(size) };
        match PinnedBuffer::new(device, size, "adapters in host memory") {
            Ok(buffer) => Block::Pinned(buffer),
            Err(error) => {
                let mut state = self.lock();
                if !state.refused {
                    (state.refused, state.refusal) = (true, Some(error));
                }
                drop(state);
                Block::pageable(size)
            }
        }
    }

    fn free(&self, blocks: Vec<Block>) {
        // What cannot be sent comes back in the error and is freed with it.
        blocks.into_iter().for_each(|block| drop(self.freed.send(block)));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// A spare block of that size, used last; else what to free so that a new one fits.
    fn find(&mut self, size: usize) -> (Option<Block>, Vec<Block>) {
        let found = self.spare.iter().rposition(|(_, spare)| *spare == size);
        if let Some(index) = found {
            return (Some(self.spare.remove(index).0), Vec::new());
        }
        let freed = self.fit(size);
        self.held += size;
        (None, freed)
    }

    /// Gives up spare blocks, the one used longest ago first, until `more` bytes fit.
    fn fit(&mut self, more: usize) -> Vec<Block> {
        let mut count = 0;
        for (_, size) in &self.spare {
            if self.held.saturating_add(more) <= self.budget {
                break;
            }
            self.held -= size;
            count += 1;
        }
        self.spare.drain(..count).map(|(block, _)| block).collect()
    }
}

/// What is allocated for `len` bytes: few sizes, so that blocks find new users.
fn size_class(len: usize) -> usize {
    len.next_multiple_of((len.next_power_of_two() / CLASS_PARTS).max(64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: usize = 1 << 20;

    fn status(memory: &HostMemory) -> (usize, usize) {
        let HostMemoryStatus { held, spare, .. } = memory.status();
        (held, spare)
    }

    #[test]
    fn a_dropped_buffer_serves_the_next_of_its_size() {
        let memory = HostMemory::pageable();
        let mut first = memory.buffer(LEN - 5);
        assert_eq!((first.len(), first.capacity()), (LEN - 5, LEN));
        first.bytes_mut().fill(7);
        let address = first.bytes().as_ptr();
        drop(first);
        assert_eq!(status(&memory), (LEN, LEN));
        let other = memory.buffer(2 * LEN);
        let second = memory.buffer(LEN);
        assert_eq!(second.bytes().as_ptr(), address);
        assert_eq!(status(&memory), (3 * LEN, 0));
        drop((other, second));
        assert_eq!(status(&memory), (3 * LEN, 3 * LEN));
    }

    #[test]
    fn spare_memory_makes_room_for_what_is_asked_for_and_for_a_smaller_budget() {
        let memory = HostMemory::pageable();
        memory.set_budget(4 * LEN);
        drop([LEN, 2 * LEN].map(|len| memory.buffer(len)));
        assert_eq!(status(&memory), (3 * LEN, 3 * LEN));
        let large = memory.buffer(3 * LEN);
        assert_eq!(status(&memory), (3 * LEN, 0), "neither of the two fits beside it");
        let beyond = memory.buffer(2 * LEN);
        assert_eq!(status(&memory), (5 * LEN, 0), "what is in use may exceed the budget");
        drop(large);
        assert_eq!(status(&memory), (2 * LEN, 0), "and goes with its user");
        drop(beyond);
        memory.set_budget(LEN);
        assert_eq!(status(&memory), (0, 0));
    }

    #[test]
    fn classes_are_few_and_close() {
        for len in [0, 1, 63, 64, 65, 1000, 4096, 100_000, 84_000_000, 84_000_001] {
            let class = size_class(len);
            assert!(class >= len && class <= len + len / (CLASS_PARTS / 2) + 64, "{len}: {class}");
            assert_eq!(size_class(class), class, "{len}");
        }
    }

    #[test]
    fn plain_memory_is_not_pinned_and_refuses_nothing() {
        let memory = HostMemory::pageable();
        drop(memory.buffer(10));
        assert!(!memory.status().pinned);
        assert!(memory.refusal().is_none());
    }
}
