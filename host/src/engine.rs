//! The engine: one thread that owns the model, the pool and every running sequence.
//!
//! Each step is `drain -> schedule -> assemble -> forward -> sample -> commit`. On a device that
//! runs behind, the commit is that of the step before: a step is queued while the one before is
//! *in flight*, its tokens counted but not known. Adapters are copied into the pool beside the
//! steps; what needs one computes nothing until it is there. The thread never waits for a client: a
//! sequence's output queue holds all it can produce, and a dropped [`TokenStream`] is noticed at
//! the next step, which frees what the sequence held. Invariant *pure step*: a step has no clock
//! and draws no randomness of its own, so that the same arrivals between the same steps give the
//! same tokens.

mod assemble;
mod handle;
mod loads;
mod pool;
mod request;
mod residency;
mod scheduler;
mod sequence;
mod status;
mod stream;

use std::{
    mem,
    sync::{atomic::Ordering, mpsc::Receiver},
};

use switchyard_kernels::{Backend, DeviceError};

use crate::model::Model;
use assemble::{Assembly, assemble};
pub use handle::EngineHandle;
use handle::{Board, Command};
use loads::Loads;
pub use request::{FinishReason, NewSequence, Sampling, SubmitError, TokenOutput};
use scheduler::{Scheduler, Work};
use sequence::SequenceId;
pub use status::{AdapterTraffic, EngineLimits, EngineStatus, SlabCounts, Traffic};
pub use stream::TokenStream;

/// Most slabs of a pool whose size nobody has chosen: for a small model a whole device is too much
/// to keep account of.
const SPARE_SLABS_MAX: usize = 1 << 18;

/// The model and the sequences it works on. [`Engine::spawn`] puts it on its own thread.
pub struct Engine<B: Backend> {
    model: Model<B>,
    scheduler: Scheduler,
    /// The step whose tokens nobody has seen yet.
    in_flight: Option<Launched<B>>,
    loads: Loads<B>,
    /// Slabs of the pool.
    slabs: usize,
    steps: u64,
    rows: u64,
    tokens: u64,
    traffic: Traffic,
}

/// A step that has been queued.
struct Launched<B: Backend> {
    draw: B::Draw,
    /// `[logits]` the sequence that each token is drawn for.
    order: Vec<SequenceId>,
}

impl<B: Backend> Engine<B> {
    fn new(mut model: Model<B>, limits: EngineLimits) -> Result<Self, DeviceError> {
        assert_eq!(model.limits(), limits.model(), "the model has room for the engine's steps");
        let slabs = match limits.pool_bytes {
            Some(bytes) => bytes / model.slab_bytes(),
            None => (model.spare_bytes() / model.slab_bytes()).min(SPARE_SLABS_MAX),
        };
        if slabs == 0 || limits.max_running == 0 || limits.max_step_tokens == 0 {
            return Err(DeviceError::Unavailable(format!(
                "the engine's limits leave no room to run: {slabs} pool slabs of {} bytes, \
                 {} running sequences, {} tokens a step; each must be at least 1",
                model.slab_bytes(),
                limits.max_running,
                limits.max_step_tokens,
            )));
        }
        model.reserve(slabs)?;
        let scheduler = Scheduler::new(slabs, limits.max_running, limits.max_step_tokens);
        let (loads, traffic) = (Loads::default(), Traffic::default());
        let (in_flight, steps, rows, tokens) = (None, 0, 0, 0);
        Ok(Self { model, scheduler, in_flight, loads, slabs, steps, rows, tokens, traffic })
    }

    /// The thread's loop.
    fn run(&mut self, arrivals: &Receiver<Command>, board: &Board) {
        self.publish(board);
        while self.drain(arrivals) && !board.stop.load(Ordering::Relaxed) {
            self.step();
            self.publish(board);
        }
        if let Some(last) = self.in_flight.take() {
            self.commit(last);
            self.publish(board);
        }
    }

    /// Takes what has arrived; waits only when there is nothing else to do. `false` when idle and
    /// nobody is left to submit.
    fn drain(&mut self, arrivals: &Receiver<Command>) -> bool {
        if self.scheduler.is_idle() && self.loads.is_empty() {
            assert!(self.in_flight.is_none(), "a step in flight has sequences");
            self.scheduler.assert_conserved();
            match arrivals.recv() {
                Ok(command) => self.take(command),
                Err(_) => return false,
            }
        }
        arrivals.try_iter().for_each(|command| self.take(command));
        true
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Submit(arrival) => self.scheduler.enqueue(arrival),
            Command::Wake => {}
        }
    }

    /// Launches one batch, if one can be planned, and hands out the tokens of the step that is due:
    /// of this one, or of the one before if the device runs behind.
    fn step(&mut self) {
        let work = self.plan();
        let launched = (!work.is_empty()).then(|| self.launch(&work));
        let idle = launched.is_none() && self.in_flight.is_none();
        let due = if self.model.runs_behind() {
            mem::replace(&mut self.in_flight, launched)
        } else {
            launched
        };
        if let Some(step) = due {
            self.commit(step);
        } else if idle {
            self.loads.wait(&mut self.model);
        }
    }

    /// Begins the loads that are to run beside the step, and plans it with what is there by now.
    fn plan(&mut self) -> Vec<Work> {
        let Self { model, scheduler, loads, .. } = self;
        loads.take_up(model, scheduler);
        let Some(begun) = scheduler.prepare() else { return Vec::new() };
        begun.into_iter().for_each(|load| loads.begin(model, load));
        // On the CPU a load is complete at once.
        loads.take_up(model, scheduler);
        scheduler.plan()
    }

    /// Queues a planned step on the device.
    fn launch(&mut self, work: &[Work]) -> Launched<B> {
        let Assembly { batch, samples, order, traffic } = assemble(self.scheduler.running(), work);
        self.model.forward(&batch);
        let draw = self.model.sample(&samples);
        self.steps += 1;
        self.rows += batch.rows() as u64;
        self.traffic += traffic;
        self.scheduler.launch(work, &order);
        Launched { draw, order }
    }

    /// Waits for a step and hands out its tokens.
    fn commit(&mut self, step: Launched<B>) {
        let drawn = self.model.collect(step.draw);
        self.tokens += self.scheduler.commit(&step.order, drawn);
    }

    fn publish(&self, board: &Board) {
        board.update(|status| {
            self.scheduler.report(status);
            self.loads.report(&mut status.adapters);
            status.memory = self.model.memory();
            (status.steps, status.rows, status.tokens) = (self.steps, self.rows, self.tokens);
            status.traffic = self.traffic;
        });
    }
}

#[cfg(test)]
mod tests;
