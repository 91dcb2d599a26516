//! Decides what each step computes, and who holds which slabs to do it.
//!
//! Continuous batching with chunked prefill over one queue: running sequences in order of arrival,
//! those that decode first, then prompts in chunks, then new sequences while budget, slots and
//! memory last. A running sequence that needs a page and finds none preempts the newest one, which
//! is recomputed later; the oldest can always go on, so that whatever fits an empty pool finishes.
//! The scheduler is plain data: it knows slabs by number and touches no device.
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

/// Later sequences that may start before one that does not fit yet.
const MAX_OVERTAKEN: u32 = 32;
/// Waiting sequences that are looked at in a step.
const LOOK_AHEAD: usize = 64;

/// Rows of one running sequence in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Work {
    /// Index among the running sequences.
    pub(super) index: usize,
    /// Tokens to compute, from `computed` on; at least 1.
    pub(super) rows: usize,
}

/// One step: adapters to copy first, then rows to compute.
#[derive(Default)]
pub(super) struct Plan {
    pub(super) loads: Vec<AdapterLoad>,
    pub(super) work: Vec<Work>,
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

    /// Plans a step; an empty plan means that nothing is left to do before the step in flight is
    /// committed, or at all.
    pub(super) fn schedule(&mut self) -> Plan {
        self.reap();
        let mut plan = Plan::default();
        if !self.grow() {
            return plan;
        }
        let mut budget = self.max_step_tokens;
        for decode in [true, false] {
            for (index, sequence) in self.running.iter().enumerate() {
                let rows = sequence.remaining().min(budget);
                if rows > 0 && (sequence.remaining() == 1) == decode {
                    plan.work.push(Work { index, rows });
                    budget -= rows;
                }
            }
        }
        self.admit(&mut plan, budget);
        let stuck = plan.work.is_empty() && !self.in_flight() && !self.is_idle();
        assert!(!stuck, "no step makes progress");
        let rows: usize = plan.work.iter().map(|work| work.rows).sum();
        assert!(rows <= self.max_step_tokens, "step budget: {rows} rows");
        plan
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
    /// that takes a preemption, but not before the step in flight is committed: the victim's slabs
    /// are in use and its last token is not known.
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
                if self.in_flight() {
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

    /// Starts waiting sequences while the budget lasts. One that does not fit may be overtaken,
    /// but only so often: then nobody starts until it does.
    fn admit(&mut self, plan: &mut Plan, mut budget: usize) {
        let mut at = 0;
        while budget > 0 && self.running.len() < self.max_running {
            let Some(sequence) = self.waiting.get(at) else { return };
            if self.fits(sequence) {
                let sequence = self.waiting.remove(at).expect("just seen");
                self.waiting.range_mut(..at).for_each(|passed| passed.overtaken += 1);
                let rows = sequence.remaining().min(budget);
                budget -= rows;
                let index = self.start(sequence, &mut plan.loads);
                plan.work.iter_mut().filter(|w| w.index >= index).for_each(|w| w.index += 1);
                plan.work.push(Work { index, rows });
            } else if sequence.overtaken >= MAX_OVERTAKEN || at >= LOOK_AHEAD {
                return;
            } else {
                at += 1;
            }
        }
    }

    /// Whether a waiting sequence's tokens and adapter can be held, with a page to spare for each
    /// running sequence.
    fn fits(&self, sequence: &Sequence) -> bool {
        let adapter = sequence.adapter().map(AsRef::as_ref);
        let missing = adapter.map_or(0, |image| self.residency.slabs_missing(image));
        let wanted = sequence.pages_needed() + missing + self.running.len();
        wanted <= self.pool.free() + self.residency.evictable(adapter)
    }

    /// Takes slabs for a sequence that fits and adds it to the running ones; returns its index.
    fn start(&mut self, mut sequence: Sequence, loads: &mut Vec<AdapterLoad>) -> usize {
        if let Some(image) = sequence.adapter().cloned() {
            let slot = self.residency.lease(image.id).unwrap_or_else(|| {
                self.make_room(image.map.slabs as usize);
                let load = self.residency.load(&image, &mut self.pool);
                let slot = load.slot;
                loads.push(load);
                slot
            });
            sequence.slot = Some(slot);
        }
        self.make_room(sequence.pages_needed());
        let pages = sequence.pages_needed();
        sequence.pages = (0..pages).map(|_| self.pool.take(Owner::Kv(sequence.id))).collect();
        sequence.start();
        let index = self.running.partition_point(|running| running.id < sequence.id);
        self.running.insert(index, sequence);
        index
    }

    fn make_room(&mut self, slabs: usize) {
        while self.pool.free() < slabs {
            let evicted = self.residency.evict_one(&mut self.pool);
            assert!(evicted, "the caller checked that {slabs} slabs can be had");
        }
    }

    /// Fills in what the scheduler counts.
    pub(super) fn report(&self, status: &mut EngineStatus) {
        status.running = self.running.len();
        status.preemptions = self.preemptions;
        status.adapter_loads = self.residency.loads();
        status.slabs = self.pool.counts();
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
