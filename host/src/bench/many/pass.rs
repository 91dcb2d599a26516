//! One pass: every request submitted as soon as its adapter is in host memory, and watched.
//!
//! Streams are looked at once a millisecond rather than waited for, so that the engine's thread
//! wakes nobody; that is how exact the times are.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use super::{catalogue::SyntheticCatalogue, outcome::Outcome};
use crate::{
    adapters::loaders,
    bench::BenchError,
    engine::{EngineHandle, NewSequence, Sampling, SlabCounts, SubmitError, TokenStream},
    model::AdapterImage,
};

const LOOK_EVERY: Duration = Duration::from_millis(1);
const SLABS_EVERY: Duration = Duration::from_millis(20);

/// A request before it has its adapter.
pub(super) struct Ask {
    /// Number in the catalogue.
    pub(super) adapter: usize,
    pub(super) prompt: Vec<u32>,
    pub(super) max_tokens: u32,
}

/// Where a pass runs.
pub(super) struct Pass<'a> {
    pub(super) engine: &'a EngineHandle,
    pub(super) catalogue: &'a SyntheticCatalogue<'a>,
}

/// A submitted request, or why it was refused.
type Submitted = Result<TokenStream, SubmitError>;

/// Requests that wait for one adapter.
type Missing = VecDeque<(usize, Vec<Ask>)>;

impl Ask {
    fn with(self, image: &Arc<AdapterImage>) -> NewSequence {
        NewSequence {
            prompt: self.prompt,
            adapter: Some(image.clone()),
            sampling: Sampling::greedy(),
            max_tokens: self.max_tokens,
            stop_tokens: Vec::new(),
        }
    }
}

impl Pass<'_> {
    pub(super) fn run(&self, asks: Vec<Ask>) -> Result<Outcome, BenchError> {
        let distinct = asks.iter().map(|ask| ask.adapter).collect::<BTreeSet<_>>().len();
        let requests = asks.len();
        let before = self.engine.status();
        let (loads, load_time) = self.catalogue.loads();
        let start = Instant::now();
        let (sender, arrivals) = channel();
        let mut watch = Watch { start, first_tokens: Vec::new(), refused: 0, slabs: Vec::new() };
        let missing = self.submit_held(asks, &sender);
        let waiting: usize = missing.iter().map(|(_, asks)| asks.len()).sum();
        let missing = Mutex::new(missing);
        let elapsed = thread::scope(|scope| {
            for _ in 0..loaders() {
                scope.spawn(|| self.submit_missing(&missing, &sender));
            }
            watch.until_all_end(self.engine, &arrivals, requests)
        })?;
        let (all_loads, all_load_time) = self.catalogue.loads();
        watch.first_tokens.sort_unstable();
        Ok(Outcome {
            elapsed,
            requests,
            distinct,
            first_tokens: watch.first_tokens,
            refused: watch.refused,
            host_hits: requests - waiting,
            host_loads: all_loads - loads,
            host_load_time: all_load_time - load_time,
            before,
            after: self.engine.status(),
            slabs: watch.slabs,
        })
    }

    /// Submits what need not wait; gives back the others by adapter, in order of arrival.
    fn submit_held(&self, asks: Vec<Ask>, submitted: &Sender<Submitted>) -> Missing {
        let mut missing = Missing::new();
        let mut places = BTreeMap::new();
        for ask in asks {
            if let Some(image) = self.catalogue.held(ask.adapter) {
                self.submit(ask.with(&image), submitted);
                continue;
            }
            let place = *places.entry(ask.adapter).or_insert(missing.len());
            if place == missing.len() {
                missing.push_back((ask.adapter, Vec::new()));
            }
            missing[place].1.push(ask);
        }
        missing
    }

    /// Loads adapter after adapter and submits what waits for it.
    fn submit_missing(&self, missing: &Mutex<Missing>, submitted: &Sender<Submitted>) {
        let next = || missing.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        while let Some((adapter, asks)) = next() {
            let image = self.catalogue.load(adapter);
            asks.into_iter().for_each(|ask| self.submit(ask.with(&image), submitted));
        }
    }

    fn submit(&self, request: NewSequence, submitted: &Sender<Submitted>) {
        // Nobody listens any more when the engine has failed.
        drop(submitted.send(self.engine.submit(request)));
    }
}

/// What was seen of a pass.
struct Watch {
    start: Instant,
    /// When each request's first token came, from the start of the pass.
    first_tokens: Vec<Duration>,
    refused: usize,
    slabs: Vec<(Duration, SlabCounts)>,
}

impl Watch {
    fn until_all_end(
        &mut self,
        engine: &EngineHandle,
        arrivals: &Receiver<Submitted>,
        requests: usize,
    ) -> Result<Duration, BenchError> {
        let mut silent = Vec::new();
        let mut speaking = Vec::new();
        let mut ended = 0;
        while ended + self.refused < requests {
            for submitted in arrivals.try_iter() {
                match submitted {
                    Ok(stream) => silent.push(stream),
                    Err(_) => self.refused += 1,
                }
            }
            let now = self.start.elapsed();
            let before = silent.len() + speaking.len();
            for mut stream in std::mem::take(&mut silent) {
                match stream.try_recv() {
                    None => silent.push(stream),
                    Some(token) => {
                        self.first_tokens.push(now);
                        speaking.extend(token.finish.is_none().then_some(stream));
                    }
                }
            }
            speaking.retain_mut(|stream: &mut TokenStream| {
                std::iter::from_fn(|| stream.try_recv()).all(|token| token.finish.is_none())
            });
            ended += before - silent.len() - speaking.len();
            self.look_at(engine, now)?;
            thread::sleep(LOOK_EVERY);
        }
        Ok(self.start.elapsed())
    }

    /// Notes who holds the pool's slabs, if that is due.
    fn look_at(&mut self, engine: &EngineHandle, now: Duration) -> Result<(), BenchError> {
        if self.slabs.last().is_some_and(|&(last, _)| now < last + SLABS_EVERY) {
            return Ok(());
        }
        let status = engine.status();
        if status.failed.is_some() {
            return Err(BenchError::stopped(engine));
        }
        self.slabs.push((now, status.slabs));
        Ok(())
    }
}
