//! The engine's front: a cheap clone that submits sequences and reads the status.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread::{self, JoinHandle},
};

use switchyard_kernels::{Backend, DeviceError, Linear};

use super::{
    Engine, EngineLimits, EngineStatus, NewSequence, SubmitError, TokenStream,
    sequence::{Arrival, Place, Sequence},
};
use crate::model::Model;

/// What can wake the engine's thread.
pub(super) enum Command {
    Submit(Arrival),
    /// Look at [`Board::stop`].
    Wake,
}

/// What the engine's thread and its handles share.
#[derive(Default)]
pub(super) struct Board {
    pub(super) status: Mutex<EngineStatus>,
    pub(super) stop: AtomicBool,
}

impl Board {
    /// Changes the status in place.
    pub(super) fn update(&self, change: impl FnOnce(&mut EngineStatus)) {
        change(&mut self.status.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// What a submission is checked against.
#[derive(Clone, Copy)]
struct Bounds {
    slabs: usize,
    slab_bytes: usize,
    vocabulary: usize,
    max_positions: usize,
    linears: usize,
    max_waiting: usize,
}

struct Front {
    commands: SyncSender<Command>,
    board: Arc<Board>,
    /// Places of the waiting queue taken.
    waiting: Arc<AtomicUsize>,
    bounds: Bounds,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A running engine. Clones share it; when the last is dropped the engine ends what runs and stops.
#[derive(Clone)]
pub struct EngineHandle {
    front: Arc<Front>,
}

impl<B: Backend> Engine<B> {
    /// Starts the engine on its own thread, where `load` makes the model with room for steps of
    /// [`EngineLimits::model`]; returns when the model is ready.
    pub fn spawn(
        load: impl FnOnce() -> Result<Model<B>, DeviceError> + Send + 'static,
        limits: EngineLimits,
    ) -> Result<EngineHandle, DeviceError> {
        let (ready, outcome) = sync_channel(1);
        let (commands, arrivals) = sync_channel(limits.max_waiting + 1);
        let board = Arc::new(Board::default());
        let posted = board.clone();
        let run = move || {
            let engine = load().and_then(|model| Engine::new(model, limits));
            match engine {
                Ok(engine) => {
                    let bounds = engine.bounds(limits.max_waiting);
                    if ready.send(Ok(bounds)).is_ok() {
                        engine.run_to_end(arrivals, &posted);
                    }
                }
                // A caller that has gone away needs no answer.
                Err(error) => drop(ready.send(Err(error))),
            }
        };
        let unavailable = |why: &str| DeviceError::Unavailable(format!("engine thread: {why}"));
        let thread = thread::Builder::new().name("engine".into()).spawn(run);
        let thread = thread.map_err(|error| unavailable(&error.to_string()))?;
        let bounds = outcome.recv().map_err(|_| unavailable("died while loading the model"))??;
        let (waiting, thread) = (Arc::default(), Mutex::new(Some(thread)));
        Ok(EngineHandle { front: Arc::new(Front { commands, board, waiting, bounds, thread }) })
    }

    fn bounds(&self, max_waiting: usize) -> Bounds {
        let config = self.model.config();
        Bounds {
            slabs: self.slabs,
            slab_bytes: self.model.slab_bytes(),
            vocabulary: config.vocabulary,
            max_positions: config.max_positions,
            linears: config.layers * Linear::ALL.len(),
            max_waiting,
        }
    }

    /// Runs until stopped. Should the model panic, the reason is posted before any stream ends.
    fn run_to_end(mut self, arrivals: Receiver<Command>, board: &Board) {
        let run = AssertUnwindSafe(|| self.run(&arrivals, board));
        if let Err(panic) = catch_unwind(run) {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
            let reason = text.unwrap_or("panicked").to_owned();
            board.update(|status| status.failed = Some(reason));
        }
    }
}

impl EngineHandle {
    /// Queues a sequence; never waits.
    pub fn submit(&self, request: NewSequence) -> Result<TokenStream, SubmitError> {
        let Front { commands, waiting, bounds, board, .. } = &*self.front;
        bounds.check(&request)?;
        if board.stop.load(Ordering::Relaxed) {
            return Err(SubmitError::Stopped);
        }
        let place = Place::take(waiting, bounds.max_waiting).ok_or(SubmitError::QueueFull)?;
        let (output, stream) = TokenStream::with_room(request.max_tokens as usize);
        match commands.try_send(Command::Submit(Arrival { request, output, place })) {
            Ok(()) => Ok(stream),
            Err(TrySendError::Full(_)) => Err(SubmitError::QueueFull),
            Err(TrySendError::Disconnected(_)) => Err(SubmitError::Stopped),
        }
    }

    /// The engine after its latest step.
    pub fn status(&self) -> EngineStatus {
        let status = self.front.board.status.lock().unwrap_or_else(PoisonError::into_inner);
        EngineStatus { waiting: self.front.waiting.load(Ordering::Relaxed), ..status.clone() }
    }

    /// Bytes of one slab, for packing adapters.
    pub fn slab_bytes(&self) -> usize {
        self.front.bounds.slab_bytes
    }

    /// Slabs of the pool.
    pub fn slabs(&self) -> usize {
        self.front.bounds.slabs
    }

    /// Stops after the current step and waits for it; open streams end without `finish`.
    pub fn shutdown(&self) {
        self.front.board.stop.store(true, Ordering::Relaxed);
        // A full channel means that the engine is awake, and a closed one that it has stopped.
        drop(self.front.commands.try_send(Command::Wake));
        let thread = self.front.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // Its panic, if any, is in the status.
            drop(thread.join());
        }
    }
}

impl Bounds {
    fn check(&self, request: &NewSequence) -> Result<(), SubmitError> {
        assert!(!request.prompt.is_empty() && request.max_tokens > 0, "nothing to do");
        let known = |&token: &u32| (token as usize) < self.vocabulary;
        assert!(request.prompt.iter().all(known), "a prompt token is not in the vocabulary");
        let tokens = request.prompt.len() + request.max_tokens as usize;
        if tokens > self.max_positions {
            return Err(SubmitError::TooLong { tokens, max_positions: self.max_positions });
        }
        let adapter = request.adapter.as_deref().map(|image| &image.map);
        assert!(adapter.is_none_or(|map| map.linears.len() == self.linears), "another base");
        let adapter = adapter.map_or(0, |map| map.slabs as usize);
        let needed = Sequence::pages_at_end(request) + adapter;
        if needed > self.slabs {
            return Err(SubmitError::TooLarge { needed, slabs: self.slabs });
        }
        Ok(())
    }
}
