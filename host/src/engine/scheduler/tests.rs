mod pressure;

use std::{mem, sync::Arc};

use proptest::prelude::*;
use switchyard_kernels::{Dtype, HostBuffer, PAGE_TOKENS, TileMap};

use super::*;
use crate::{
    engine::{FinishReason, NewSequence, Sampling, SlabCounts, TokenStream, sequence::Place},
    model::{AdapterId, AdapterImage},
};

/// A pool of this many slabs is shared by every case.
const SLABS: usize = 24;

fn adapter(id: u8, slabs: u32) -> Arc<AdapterImage> {
    let map = Arc::new(TileMap { dtype: Dtype::F32, slabs, linears: Vec::new() });
    let (bytes, resident) = (Arc::new(HostBuffer::zeroed(0)), Arc::default());
    Arc::new(AdapterImage { id: AdapterId([id; 32]), rank: 8, map, bytes, resident })
}

/// A scheduler driven without a model: every row that ends its sequence draws token 0.
struct Drive {
    scheduler: Scheduler,
    runs_behind: bool,
    /// What the step in flight draws, if one is.
    in_flight: Option<Vec<SequenceId>>,
    /// Steps that each load takes, in turn; none is complete at once.
    delays: Vec<usize>,
    /// Loads under way, oldest first, and the steps that each still takes.
    loads: VecDeque<(AdapterId, usize)>,
    /// Adapters of the loads begun, in order.
    begun: Vec<AdapterId>,
}

impl Drive {
    fn new(scheduler: Scheduler) -> Self {
        Self {
            scheduler,
            runs_behind: false,
            in_flight: None,
            delays: Vec::new(),
            loads: VecDeque::new(),
            begun: Vec::new(),
        }
    }

    fn behind(scheduler: Scheduler) -> Self {
        Self { runs_behind: true, ..Self::new(scheduler) }
    }

    fn submit(
        &mut self,
        (prompt, max_tokens): (usize, u32),
        adapter: Option<Arc<AdapterImage>>,
    ) -> TokenStream {
        let request = NewSequence {
            prompt: vec![1; prompt],
            adapter,
            sampling: Sampling::greedy(),
            max_tokens,
            stop_tokens: Vec::new(),
        };
        let (output, stream) = TokenStream::with_room(max_tokens as usize);
        let place = Place::take(&Arc::default(), 1).expect("free");
        self.scheduler.enqueue(Arrival { request, output, place });
        stream
    }

    /// Gives every load under way a step and hands over those that are complete, oldest first; the
    /// oldest whatever it still takes, if the caller waits.
    fn take_up(&mut self, wait: bool) {
        let mut first = wait;
        while let Some(&(id, left)) = self.loads.front() {
            if left > 0 && !first {
                return;
            }
            first = false;
            self.loads.pop_front();
            self.scheduler.loaded(id);
            self.scheduler.assert_conserved();
        }
    }

    fn plan(&mut self) -> Vec<Work> {
        self.loads.iter_mut().for_each(|(_, left)| *left = left.saturating_sub(1));
        self.take_up(false);
        let Some(begun) = self.scheduler.prepare() else { return Vec::new() };
        self.scheduler.assert_conserved();
        for AdapterLoad { image, slabs, .. } in begun {
            assert_eq!(slabs.len(), image.map.slabs as usize);
            assert!(self.loads.iter().all(|(id, _)| *id != image.id), "no load twice at once");
            let turn = self.begun.len();
            let delay = self.delays.get(turn % self.delays.len().max(1)).copied().unwrap_or(0);
            self.loads.push_back((image.id, delay));
            self.begun.push(image.id);
        }
        assert!(self.loads.len() <= MAX_LOADS);
        self.take_up(false);
        self.scheduler.plan()
    }

    fn step(&mut self) -> Vec<Work> {
        let plan = self.plan();
        self.scheduler.assert_conserved();
        let order = self.check(&plan);
        let launched = (!plan.is_empty()).then_some(order);
        if let Some(order) = &launched {
            self.scheduler.launch(&plan, order);
            self.scheduler.assert_conserved();
        } else if self.in_flight.is_none() {
            self.take_up(true);
        }
        let late = self.runs_behind;
        let due = if late { mem::replace(&mut self.in_flight, launched) } else { launched };
        if let Some(order) = due {
            let token = |_| Sampled { token: 0, logprob: None, top: Vec::new() };
            self.scheduler.commit(&order, order.iter().map(token).collect());
            self.scheduler.assert_conserved();
        }
        plan
    }

    /// Asserts what holds of every plan; the sequences that it draws for.
    fn check(&self, plan: &[Work]) -> Vec<SequenceId> {
        let scheduler = &self.scheduler;
        let mut order = Vec::new();
        let mut seen = vec![false; scheduler.running.len()];
        for work in plan {
            let sequence = &scheduler.running[work.index];
            assert!(!mem::replace(&mut seen[work.index], true), "one work item a sequence");
            assert!(work.rows >= 1 && work.rows <= sequence.remaining(), "length chain");
            assert!(sequence.computed + work.rows <= sequence.pages.len() * PAGE_TOKENS);
            assert_eq!(sequence.slot.is_some(), sequence.adapter().is_some(), "lease pins");
            let on_its_way = |id| self.loads.iter().any(|(other, _)| *other == id);
            let adapter = sequence.adapter().map(|image| image.id);
            assert!(!adapter.is_some_and(on_its_way), "an adapter is used once it is there");
            if work.rows == sequence.remaining() {
                order.push(sequence.id);
            }
        }
        assert!(scheduler.running.len() <= scheduler.max_running);
        assert!(scheduler.waiting.iter().all(|waiting| waiting.overtaken <= MAX_OVERTAKEN));
        order
    }
}

fn kv(drive: &Drive) -> usize {
    drive.scheduler.pool.counts(drive.scheduler.residency.slabs()).kv
}

/// `(tokens so far, whether it finished)`
fn received(stream: &mut TokenStream) -> (u32, bool) {
    let mut tokens = 0;
    while let Some(output) = stream.try_recv() {
        tokens += 1;
        if output.finish == Some(FinishReason::Length) {
            return (tokens, true);
        }
    }
    (tokens, false)
}

/// One request of a random run.
#[derive(Clone, Debug)]
struct Request {
    /// Step of its arrival.
    at: usize,
    prompt: usize,
    max_tokens: u32,
    /// Which of the adapters, if any.
    adapter: Option<u8>,
    /// Steps until its stream is dropped.
    dropped_in: Option<usize>,
}

fn requests() -> impl Strategy<Value = Vec<Request>> {
    let request = (
        0usize..40,
        1usize..150,
        1u32..60,
        prop::option::of(0u8..6),
        prop::option::weighted(0.25, 0usize..30),
    );
    let request = request.prop_map(|(at, prompt, max_tokens, adapter, dropped_in)| Request {
        at,
        prompt,
        max_tokens,
        adapter,
        dropped_in,
    });
    prop::collection::vec(request, 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn whatever_fits_an_empty_pool_finishes(
        requests in requests(),
        adapter_slabs in prop::collection::vec(0u32..11, 6),
        max_running in 1usize..9,
        max_step_tokens in 1usize..70,
        runs_behind: bool,
        delays in prop::collection::vec(0usize..12, 0..5),
    ) {
        // The largest: 150 + 59 tokens in 13 pages and an adapter of 10.
        let scheduler = Scheduler::new(SLABS, max_running, max_step_tokens);
        let mut drive = Drive { runs_behind, delays, ..Drive::new(scheduler) };
        let adapters: Vec<_> = (0..6).map(|i| adapter(i, adapter_slabs[i as usize])).collect();
        let mut open: Vec<(usize, Request, TokenStream, u32)> = Vec::new();
        let mut now = 0;
        while now < 40 || !drive.scheduler.is_idle() {
            for request in requests.iter().filter(|request| request.at == now) {
                let image = request.adapter.map(|i| adapters[i as usize].clone());
                let lengths = (request.prompt, request.max_tokens);
                let stream = drive.submit(lengths, image);
                open.push((now, request.clone(), stream, 0));
            }
            drive.step();
            now += 1;
            open.retain_mut(|(arrived, request, stream, tokens)| {
                let (new, finished) = received(stream);
                *tokens += new;
                assert!(!finished || *tokens == request.max_tokens);
                !finished && request.dropped_in.is_none_or(|steps| *arrived + steps >= now)
            });
            prop_assert!(now < 40_000, "the run ends");
        }
        prop_assert!(open.is_empty(), "every stream that was kept has finished");
        prop_assert!(drive.in_flight.is_none());
        while !drive.loads.is_empty() {
            drive.step();
        }
        let mut scheduler = drive.scheduler;
        let mut status = EngineStatus::default();
        scheduler.report(&mut status);
        let SlabCounts { free, kv, adapter_in_use, adapter_idle, adapter_loading, .. } =
            status.slabs;
        prop_assert_eq!([kv, adapter_in_use, adapter_loading], [0; 3]);
        prop_assert_eq!(free, SLABS - adapter_idle);
        drop(adapters);
        scheduler.prepare();
        prop_assert_eq!(scheduler.pool.free(), SLABS, "retired adapters are gone");
    }
}

#[test]
fn decode_goes_first_and_prompts_share_what_is_left() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 8, 10));
    let _streams = [(3, 9), (30, 9), (4, 9)].map(|lengths| drive.submit(lengths, None));
    let rows = |plan: Vec<Work>| -> Vec<(usize, usize)> {
        plan.iter().map(|work| (work.index, work.rows)).collect()
    };
    assert_eq!(rows(drive.step()), [(0, 3), (1, 7)]);
    assert_eq!(rows(drive.step()), [(0, 1), (1, 9)]);
    assert_eq!(rows(drive.step()), [(0, 1), (1, 9)]);
    assert_eq!(rows(drive.step()), [(0, 1), (1, 5), (2, 4)]);
    assert_eq!(rows(drive.step()), [(0, 1), (1, 1), (2, 1)]);
}

#[test]
fn a_sequence_whose_adapter_does_not_fit_is_overtaken_but_not_for_ever() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 2, 64));
    let _running = drive.submit((16, 200), None);
    drive.step();
    let mut blocked = drive.submit((1, 1), Some(adapter(1, SLABS as u32 - 1)));
    let later: Vec<_> = (0..2 * MAX_OVERTAKEN).map(|_| drive.submit((1, 1), None)).collect();
    let mut steps = 0;
    while !received(&mut blocked).1 {
        drive.step();
        steps += 1;
        assert!(steps < 400, "the blocked sequence starts");
    }
    let finished = later.into_iter().filter_map(|mut stream| received(&mut stream).1.then_some(()));
    assert_eq!(finished.count(), MAX_OVERTAKEN as usize);
}

#[test]
fn sequences_whose_adapter_is_in_use_start_first_but_not_for_ever() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 2, 64));
    let [used, other] = [1, 2].map(|id| adapter(id, 1));
    let _running = drive.submit((16, 200), Some(used.clone()));
    drive.step();
    let mut overtaken = drive.submit((1, 1), Some(other));
    let mut base = drive.submit((1, 1), None);
    let mut later: Vec<_> =
        (0..2 * MAX_OVERTAKEN).map(|_| drive.submit((1, 1), Some(used.clone()))).collect();
    let mut steps = 0;
    while !received(&mut overtaken).1 {
        assert!(!received(&mut base).1, "the base alone overtakes nobody");
        drive.step();
        steps += 1;
        assert!(steps < 400, "the sequence with another adapter starts");
    }
    let first = later.iter_mut().filter_map(|stream| received(stream).1.then_some(()));
    assert_eq!(first.count(), MAX_OVERTAKEN as usize);
    drive.step();
    assert!(received(&mut base).1, "it has been overtaken as often");
}

#[test]
fn idle_adapters_stay_until_slabs_are_wanted_and_the_least_used_goes() {
    let mut drive = Drive::new(Scheduler::new(SLABS, 4, 64));
    let adapters: Vec<_> = (0..4).map(|i| adapter(i, 7)).collect();
    let mut run = |i: usize| {
        let mut stream = drive.submit((5, 1), Some(adapters[i].clone()));
        let before = drive.begun.len();
        drive.step();
        assert!(received(&mut stream).1);
        drive.begun.len() - before
    };
    assert_eq!([0, 1, 2].map(&mut run), [1, 1, 1]);
    assert_eq!([0, 0, 2].map(&mut run), [0, 0, 0]);
    assert_eq!(run(3), 1);
    let resident = |i: usize| adapters[i].resident.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!([0, 1, 2, 3].map(resident), [true, false, true, true]);
}

#[test]
fn the_newest_is_preempted_and_keeps_what_it_produced() {
    let mut drive = Drive::new(Scheduler::new(5, 4, 64));
    let mut streams = [(30, 30), (20, 30)].map(|lengths| drive.submit(lengths, None));
    let mut produced = [0, 0];
    let mut steps = 0;
    while !drive.scheduler.is_idle() {
        drive.step();
        for (stream, produced) in streams.iter_mut().zip(&mut produced) {
            *produced += received(stream).0;
        }
        steps += 1;
        assert!(steps < 100);
    }
    assert_eq!(produced, [30, 30]);
    assert_eq!(drive.scheduler.preemptions, 1);
}

/// Rows of each step.
fn rows(drive: &mut Drive, steps: usize) -> Vec<Vec<usize>> {
    let rows = |plan: Vec<Work>| plan.iter().map(|work| work.rows).collect();
    (0..steps).map(|_| rows(drive.step())).collect()
}

#[test]
fn a_step_is_planned_before_the_tokens_of_the_one_before_are_known() {
    let mut drive = Drive::behind(Scheduler::new(SLABS, 8, 64));
    let mut stream = drive.submit((16, 3), None);
    assert_eq!(rows(&mut drive, 1), [[16]]);
    assert_eq!((received(&mut stream), kv(&drive)), ((0, false), 1));
    assert_eq!(rows(&mut drive, 1), [[1]]);
    assert_eq!((received(&mut stream), kv(&drive)), ((1, false), 2));
    // The third token is the last: it is drawn and never computed.
    assert_eq!(rows(&mut drive, 2), [vec![1], vec![]]);
    assert_eq!(received(&mut stream), (2, true));
    assert!(drive.scheduler.is_idle());
}

#[test]
fn a_last_token_in_flight_takes_no_page() {
    let mut drive = Drive::behind(Scheduler::new(1, 8, 64));
    let mut stream = drive.submit((15, 2), None);
    assert_eq!(rows(&mut drive, 3), [vec![15], vec![1], vec![]]);
    assert_eq!(received(&mut stream), (2, true));
}

#[test]
fn a_grammar_sees_each_token_before_the_next_is_drawn() {
    let mut drive = Drive::behind(Scheduler::new(SLABS, 8, 64));
    let _streams = [(20, 4), (5, 4)].map(|lengths| drive.submit(lengths, None));
    drive.scheduler.waiting[0].mask = Some(Arc::new([1]));
    let planned = [vec![20, 5], vec![1], vec![1, 1], vec![1], vec![1], vec![], vec![1]];
    assert_eq!(rows(&mut drive, planned.len()), planned);
}

#[test]
fn slabs_of_the_step_in_flight_are_nobody_elses() {
    let mut drive = Drive::behind(Scheduler::new(4, 8, 64));
    let cancelled = drive.submit((40, 5), None);
    assert_eq!(rows(&mut drive, 1), [[40]]);
    drop(cancelled);
    let _next = drive.submit((40, 5), None);
    assert_eq!(rows(&mut drive, 1), [[0; 0]], "three of four slabs are being written");
    assert_eq!(drive.scheduler.pool.free(), 4);
    assert_eq!(rows(&mut drive, 1), [[40]]);
}

#[test]
fn a_preemption_waits_for_the_step_in_flight() {
    let mut drive = Drive::behind(Scheduler::new(3, 8, 64));
    let mut streams = [(16, 30), (16, 30)].map(|lengths| drive.submit(lengths, None));
    assert_eq!(rows(&mut drive, 1), [[16, 16]]);
    assert_eq!(rows(&mut drive, 1), [[0; 0]], "both want the third slab");
    assert_eq!(drive.scheduler.preemptions, 0);
    assert_eq!(rows(&mut drive, 1), [[1]]);
    assert_eq!(drive.scheduler.preemptions, 1);
    while !drive.scheduler.is_idle() {
        drive.step();
    }
    assert_eq!(streams.each_mut().map(received), [(30, true); 2]);
}
