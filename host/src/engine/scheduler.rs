//! Decides what each step computes, and who holds which slabs to do it.
//!
//! Continuous batching with chunked prefill over one queue: running sequences in order of arrival,
//! those that decode first, then prompts in chunks, then new sequences while budget, slots and
//! memory last. Of these, such whose adapter is in use already go ahead of others, a bounded number
//! of times: a step reads each of its adapters once (adapter clustering, S-LoRA). A running
//! sequence that needs a page and finds none preempts the newest one, which is recomputed later;
//! the oldest can always go on, so that whatever fits an empty pool finishes.
//! The scheduler is plain data: it knows slabs by number and touches no device.
//!
//! A sequence whose adapter is not in the pool starts like any other, with slabs for both, and has
//! no rows until the adapter has been copied; what others do meanwhile costs it nothing. For those
//! that cannot start yet adapters are prefetched, with slabs that nobody needs. So pressure is felt
//! in order: prefetching stops, sequences with new adapters are overtaken (a bounded number of
//! times), and only then is anybody preempted.
//!
//! A step may be planned while the one before is in flight: launched and not committed. Its tokens
//! are then counted but not known. A sequence that turns out to have ended may have a row in the
//! newer step already; what that row draws is dropped. Invariant *one writer* holds without help
//! from the device's order: slabs and leases that a step in flight uses are given up only after
//! its commit.

use std::{collections::VecDeque, mem};

use switchyard_kernels::Sampled;

use super::{
    EngineStatus,
    pool::{Owner, SlabPool},
    residency::{AdapterLoad, AdapterResidency},
    sequence::{Arrival, Sequence, SequenceId},
};
use crate::model::AdapterId;

/// Later sequences that may start before one.
const MAX_OVERTAKEN: u32 = 64;
/// Waiting sequences that are looked at in a step.
const LOOK_AHEAD: usize = 128;

/// Copies of adapters under way at once: their order is fixed when they begin.
const MAX_LOADS: usize = 8;
/// Of those, as many may be ahead of need: one that is needed waits for them.
const MAX_PREFETCHES: usize = 2;

/// Rows of one running sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Index among the running sequences.
    pub(super) index: usize,
    /// Tokens to compute, from `computed` on; at least 1.
    pub(super) rows: usize,
}

/// The queue, the running batch and the memory they share.
pub(super) struct Scheduler {
    /// Preempted sequences first, then in order of arrival.
    waiting: VecDeque<Sequence>,
    /// In order of arrival.
    running: Vec<Sequence>,
    /// No longer running, but the step in flight still uses their slabs.
    leaving: Vec<Sequence>,
    /// Steps launched and steps committed since the start.
    launched: u64,
    committed: u64,
    pool: SlabPool,
    residency: AdapterResidency,
    max_running: usize,
    max_step_tokens: usize,
    arrivals: u64,
    preemptions: u64,
    prefetches: u64,
}

impl Scheduler {
    pub(super) fn new(slabs: usize, max_running: usize, max_step_tokens: usize) -> Self {
        Self {
            waiting: VecDeque::new(),
            running: Vec::new(),
            leaving: Vec::new(),
            launched: 0,
            committed: 0,
            pool: SlabPool::new(slabs),
            residency: AdapterResidency::default(),
            max_running,
            max_step_tokens,
            arrivals: 0,
            preemptions: 0,
            prefetches: 0,
        }
    }

    pub(super) fn running(&self) -> &[Sequence] {
        &self.running
    }

    /// Whether there is nothing to do until something arrives.
    pub(super) fn is_idle(&self) -> bool {
        self.running.is_empty() && self.waiting.is_empty() && self.leaving.is_empty()
    }

    pub(super) fn enqueue(&mut self, arrival: Arrival) {
        self.arrivals += 1;
        self.waiting.push_back(Sequence::new(SequenceId(self.arrivals), arrival));
    }

    /// Gives everything that runs its memory and starts what fits beside it; the loads to begin
    /// before [`Self::plan`]. `None` if no step can be planned before the step in flight is
    /// committed or a load is complete.
    pub(super) fn prepare(&mut self) -> Option<Vec<AdapterLoad>> {
        self.reap();
        let ahead = self.waiting.iter().take(LOOK_AHEAD).filter_map(Sequence::adapter);
        let wanted = ahead.map(|image| image.id).collect();
        self.residency.want(wanted);
        if !self.grow() {
            return None;
        }
        let mut loads = self.admit();
        self.prefetch(&mut loads);
        Some(loads)
    }

    /// Takes note that an adapter has been copied and can be used by the next step.
    pub(super) fn loaded(&mut self, id: AdapterId) {
        self.residency.loaded(id);
        for sequence in &mut self.running {
            if sequence.adapter().is_some_and(|image| image.id == id) {
                sequence.loading = false;
            }
        }
    }

    /// Plans a step, decodes first; an empty plan means that nothing can be computed before the
    /// step in flight is committed or a load is complete, or at all.
    pub(super) fn plan(&self) -> Vec<Work> {
        let mut work = Vec::new();
        let mut budget = self.max_step_tokens;
        for decode in [true, false] {
            for (index, sequence) in self.running.iter().enumerate() {
                let rows = sequence.remaining().min(budget);
                if rows > 0 && (sequence.remaining() == 1) == decode {
                    work.push(Work { index, rows });
                    budget -= rows;
                }
            }
        }
        let pending = self.in_flight() || self.residency.loading() > 0 || self.is_idle();
        assert!(!work.is_empty() || pending, "no step makes progress");
        let rows: usize = work.iter().map(|work| work.rows).sum();
        assert!(rows <= self.max_step_tokens, "step budget: {rows} rows");
        work
    }

    /// Whether a step has been launched and not committed.
    fn in_flight(&self) -> bool {
        self.launched > self.committed
    }

    /// Counts the rows of the plan just made as computed and one token more for each sequence of
    /// `order`, by row of the draw.
    pub(super) fn launch(&mut self, work: &[Work], order: &[SequenceId]) {
        self.launched += 1;
        for work in work {
            self.running[work.index].advance(work.rows, self.launched);
        }
        for (row, &id) in order.iter().enumerate() {
            let index = self.index_of(id).expect("only running sequences are planned");
            self.running[index].expect_token(row as u32);
        }
    }

    /// Hands each token of the oldest step in flight to its sequence, as in `order`, unless that
    /// has left; counts those handed out.
    pub(super) fn commit(&mut self, order: &[SequenceId], drawn: Vec<Sampled>) -> u64 {
        assert!(self.in_flight(), "a step is committed once");
        assert_eq!(order.len(), drawn.len(), "one token per row of logits");
        self.committed += 1;
        let mut ended = vec![None; self.running.len()];
        for (row, (&id, drawn)) in order.iter().zip(drawn).enumerate() {
            if let Some(index) = self.index_of(id) {
                ended[index] = Some(self.running[index].push(row as u32, drawn));
            }
        }
        let handed_out = ended.iter().flatten().count() as u64;
        let mut ended = ended.into_iter();
        self.retire(|_| ended.next() == Some(Some(true)));
        for sequence in mem::take(&mut self.leaving) {
            self.dismiss(sequence);
        }
        handed_out
    }

    /// Index of a running sequence.
    fn index_of(&self, id: SequenceId) -> Option<usize> {
        self.running.binary_search_by_key(&id, |sequence| sequence.id).ok()
    }

    /// Forgets sequences that nobody listens to and adapters that nobody can ask for.
    fn reap(&mut self) {
        self.waiting.retain(|sequence| !sequence.is_cancelled());
        self.retire(Sequence::is_cancelled);
        self.residency.evict_retired(&mut self.pool);
    }

    /// Removes running sequences, each asked once in order.
    fn retire(&mut self, mut gone: impl FnMut(&Sequence) -> bool) {
        for sequence in mem::take(&mut self.running) {
            if gone(&sequence) {
                self.dismiss(sequence);
            } else {
                self.running.push(sequence);
            }
        }
    }

    /// Frees what a sequence held, now or when the step in flight is committed.
    fn dismiss(&mut self, mut sequence: Sequence) {
        if sequence.last_step > self.committed {
            self.leaving.push(sequence);
        } else {
            self.release(&mut sequence);
        }
    }

    fn release(&mut self, sequence: &mut Sequence) {
        assert!(
            sequence.last_step <= self.committed,
            "one writer: a step in flight uses its slabs"
        );
        for page in sequence.pages.drain(..) {
            self.pool.give(page, Owner::Kv(sequence.id));
        }
        if sequence.slot.take().is_some() {
            let adapter = sequence.adapter().expect("a slot belongs to an adapter");
            self.residency.release(adapter.id);
        }
    }

    /// Gives every running sequence the page its newest token needs, oldest first. `false` where
    /// that takes slabs of an adapter that was fetched ahead and is still being copied, or a
    /// preemption before the step in flight is committed: the victim's slabs are in use and its
    /// last token is not known.
    fn grow(&mut self) -> bool {
        let mut index = 0;
        while index < self.running.len() {
            let sequence = &self.running[index];
            if sequence.pages.len() >= sequence.pages_needed() {
                index += 1;
            } else if self.pool.free() > 0 {
                let page = self.pool.take(Owner::Kv(sequence.id));
                self.running[index].pages.push(page);
            } else if !self.residency.evict_one(&mut self.pool) {
                if self.in_flight() || self.residency.prefetching() {
                    return false;
                }
                self.preempt_newest();
            }
        }
        true
    }

    /// Puts the newest running sequence back to the head of the queue.
    fn preempt_newest(&mut self) {
        assert!(self.running.len() > 1, "a sequence that fits an empty pool finishes");
        let mut victim = self.running.pop().expect("asserted above");
        self.release(&mut victim);
        victim.restart();
        self.waiting.push_front(victim);
        self.preemptions += 1;
    }

    /// Starts waiting sequences while a step has rows left; the loads that they need.
    fn admit(&mut self) -> Vec<AdapterLoad> {
        let mut loads = Vec::new();
        let taken: usize = self.running.iter().map(Sequence::remaining).sum();
        let mut budget = self.max_step_tokens.saturating_sub(taken);
        while budget > 0 && self.running.len() < self.max_running {
            let Some(next) = self.next() else { break };
            let sequence = self.waiting.remove(next).expect("just seen");
            self.waiting.range_mut(..next).for_each(|passed| passed.overtaken += 1);
            let started = self.start(sequence, &mut loads);
            budget = budget.saturating_sub(self.running[started].remaining());
        }
        loads
    }

    /// Who of the waiting starts next: one that fits and whose adapter is in use, which the step
    /// then reads anyway, else the first that fits. Nobody passes one that has been overtaken too
    /// often, nor, for its adapter, one that has been preempted.
    fn next(&self) -> Option<usize> {
        let ahead = || self.waiting.iter().take(LOOK_AHEAD);
        let last = ahead().position(|sequence| sequence.overtaken >= MAX_OVERTAKEN);
        let reach = last.map_or(LOOK_AHEAD, |last| last + 1);
        let in_use = |sequence: &Sequence| {
            sequence.adapter().is_some_and(|image| self.residency.in_use(image.id))
        };
        let companion = ahead()
            .take(reach)
            .take_while(|sequence| !sequence.has_run())
            .position(|sequence| in_use(sequence) && self.fits(sequence));
        companion.or_else(|| ahead().take(reach).position(|sequence| self.fits(sequence)))
    }

    /// Whether a waiting sequence's tokens and adapter can be held, with a page to spare for each
    /// running sequence, and its adapter need not queue for its copy.
    fn fits(&self, sequence: &Sequence) -> bool {
        let adapter = sequence.adapter().map(AsRef::as_ref);
        let missing = adapter.map_or(0, |image| self.residency.slabs_missing(image));
        let queues = missing > 0 && self.residency.loading() >= MAX_LOADS;
        let wanted = sequence.pages_needed() + missing + self.running.len();
        !queues && wanted <= self.pool.free() + self.residency.evictable(adapter)
    }

    /// Takes slabs for a sequence that fits and adds it to the running ones; returns its index.
    fn start(&mut self, mut sequence: Sequence, loads: &mut Vec<AdapterLoad>) -> usize {
        let pages = sequence.pages_needed();
        if let Some(image) = sequence.adapter().cloned() {
            if !self.residency.has(image.id) {
                self.make_room(image.map.slabs as usize);
                loads.push(self.residency.load(&image, 0, &mut self.pool));
            }
            let (slot, loading) = self.residency.lease(image.id).expect("it has slabs");
            (sequence.slot, sequence.loading) = (Some(slot), loading);
        }
        self.make_room(pages);
        sequence.pages = (0..pages).map(|_| self.pool.take(Owner::Kv(sequence.id))).collect();
        sequence.start();
        let index = self.running.partition_point(|running| running.id < sequence.id);
        self.running.insert(index, sequence);
        index
    }

    /// Begins loads for sequences near the head of the queue, in their order, while few are under
    /// way and there are slabs that nobody needs: each running sequence keeps a free page, and no
    /// adapter goes that is worth more or that another of those sequences wants.
    fn prefetch(&mut self, loads: &mut Vec<AdapterLoad>) {
        while self.residency.loading() < MAX_PREFETCHES {
            let ahead = || self.waiting.iter().take(LOOK_AHEAD).filter_map(Sequence::adapter);
            let missing = ahead().find(|image| !self.residency.has(image.id));
            let Some(image) = missing.cloned() else { return };
            let waiting = ahead().filter(|other| other.id == image.id).count() as u64;
            let room = image.map.slabs as usize + self.running.len();
            if !self.residency.make_room(room, waiting, &mut self.pool) {
                return;
            }
            loads.push(self.residency.load(&image, waiting, &mut self.pool));
            self.prefetches += 1;
        }
    }

    fn make_room(&mut self, slabs: usize) {
        while self.pool.free() < slabs {
            let evicted = self.residency.evict_one(&mut self.pool);
            assert!(evicted, "the caller checked that {slabs} slabs can be had");
        }
    }

    /// Fills in what the scheduler counts.
    pub(super) fn report(&self, status: &mut EngineStatus) {
        status.loading = self.running.iter().filter(|sequence| sequence.loading).count();
        status.running = self.running.len() - status.loading;
        status.preemptions = self.preemptions;
        [status.adapters.loads, status.adapters.evictions] = self.residency.turnover();
        status.adapters.prefetches = self.prefetches;
        status.slabs = self.pool.counts(self.residency.slabs());
    }

    /// Asserts *slab conservation* and *lease pins* over everything held.
    pub(super) fn assert_conserved(&self) {
        let holders = || self.running.iter().chain(&self.leaving);
        let pages = holders()
            .flat_map(|sequence| sequence.pages.iter().map(|&page| (page, Owner::Kv(sequence.id))));
        self.pool.assert_conserved(pages.chain(self.residency.held()));
        let adapters = holders().filter_map(|sequence| sequence.adapter());
        self.residency.assert_leased(adapters.map(|image| image.id));
    }
}

#[cfg(test)]
mod tests;
