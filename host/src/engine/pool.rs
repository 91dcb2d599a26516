//! The unified pool: slabs of one size that hold either a KV page or a piece of an adapter.
//!
//! Only the scheduler takes and gives slabs. Invariant *slab conservation*: every slab is on the
//! free stack or held by exactly one owner; invariant *one writer*: no slab is handed out twice.

use super::{SlabCounts, sequence::SequenceId};
use crate::model::AdapterId;

/// Who holds a slab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Free,
    Kv(SequenceId),
    Adapter(AdapterId),
}

/// Which slab belongs to whom.
pub(super) struct SlabPool {
    /// Slabs that nobody holds; the last is handed out next.
    free: Vec<u32>,
    /// `[slabs]`
    owners: Vec<Owner>,
    /// Slabs held by adapters.
    adapter: usize,
}

impl SlabPool {
    pub(super) fn new(slabs: usize) -> Self {
        let free = (0..slabs as u32).rev().collect();
        Self { free, owners: vec![Owner::Free; slabs], adapter: 0 }
    }

    pub(super) fn slabs(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn free(&self) -> usize {
        self.free.len()
    }

    /// By owner, of adapters' slabs those that are `[idle, loading]`.
    pub(super) fn counts(&self, [adapter_idle, adapter_loading]: [usize; 2]) -> SlabCounts {
        let (free, total) = (self.free(), self.slabs());
        SlabCounts {
            free,
            kv: total - free - self.adapter,
            adapter_in_use: self.adapter - adapter_idle - adapter_loading,
            adapter_idle,
            adapter_loading,
            total,
        }
    }

    /// Hands out a slab. The caller has made sure that one is free.
    pub(super) fn take(&mut self, owner: Owner) -> u32 {
        let slab = self.free.pop().expect("the caller made room");
        let before = std::mem::replace(&mut self.owners[slab as usize], owner);
        assert_eq!(before, Owner::Free, "one writer: slab {slab}");
        self.adapter += usize::from(matches!(owner, Owner::Adapter(_)));
        slab
    }

    /// Takes a slab back from its owner.
    pub(super) fn give(&mut self, slab: u32, owner: Owner) {
        let before = std::mem::replace(&mut self.owners[slab as usize], Owner::Free);
        assert_eq!(before, owner, "one writer: slab {slab}");
        self.adapter -= usize::from(matches!(owner, Owner::Adapter(_)));
        self.free.push(slab);
    }

    /// Asserts *slab conservation* against what the owners say they hold.
    pub(super) fn assert_conserved(&self, held: impl Iterator<Item = (u32, Owner)>) {
        let mut seen = vec![false; self.slabs()];
        let free = self.free.iter().map(|&slab| (slab, Owner::Free));
        for (slab, owner) in free.chain(held) {
            assert_eq!(self.owners[slab as usize], owner, "slab conservation: owner of {slab}");
            assert!(!seen[slab as usize], "slab conservation: {slab} is held twice");
            seen[slab as usize] = true;
        }
        assert!(seen.iter().all(|&seen| seen), "slab conservation: a slab is lost");
    }
}
