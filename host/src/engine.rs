//! The engine: one thread that owns the model, the pool and every running sequence.
//!
//! Each step is `drain -> schedule -> assemble -> forward -> sample -> commit`. The thread never
//! waits for a client: a sequence's output queue holds all it can produce, and a dropped
//! [`TokenStream`] is noticed at the next step, which frees what the sequence held. Invariant
//! *pure step*: a step has no clock and draws no randomness of its own, so that the same arrivals
//! between the same steps give the same tokens.

mod assemble;
mod handle;
mod pool;
mod request;
mod residency;
mod scheduler;
mod sequence;
mod status;
mod stream;

use std::sync::{atomic::Ordering, mpsc::Receiver};

use switchyard_kernels::{Backend, DeviceError};

use crate::model::Model;
use assemble::assemble;
pub use handle::EngineHandle;
use handle::{Board, Command};
pub use request::{FinishReason, NewSequence, Sampling, SubmitError, TokenOutput};
use scheduler::Scheduler;
pub use status::{EngineLimits, EngineStatus, SlabCounts};
pub use stream::TokenStream;

/// The model and the sequences it works on. [`Engine::spawn`] puts it on its own thread.
pub struct Engine<B: Backend> {
    model: Model<B>,
    scheduler: Scheduler,
    /// Slabs of the pool.
    slabs: usize,
    steps: u64,
    rows: u64,
    tokens: u64,
}

impl<B: Backend> Engine<B> {
    fn new(mut model: Model<B>, limits: EngineLimits) -> Result<Self, DeviceError> {
        assert_eq!(model.limits(), limits.model(), "the model has room for the engine's steps");
        let slabs = limits.pool_bytes / model.slab_bytes();
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
        Ok(Self { model, scheduler, slabs, steps: 0, rows: 0, tokens: 0 })
    }

    /// The thread's loop.
    fn run(&mut self, arrivals: &Receiver<Command>, board: &Board) {
        self.publish(board);
        while self.drain(arrivals) && !board.stop.load(Ordering::Relaxed) {
            self.step();
            self.publish(board);
        }
    }

    /// Takes what has arrived; waits only when there is nothing else to do. `false` when idle and
    /// nobody is left to submit.
    fn drain(&mut self, arrivals: &Receiver<Command>) -> bool {
        if self.scheduler.is_idle() {
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

    /// Computes one batch and hands out its tokens.
    fn step(&mut self) {
        let plan = self.scheduler.schedule();
        if plan.work.is_empty() {
            return;
        }
        for load in &plan.loads {
            self.model.load_adapter(load.slot, &load.image, &load.slabs);
        }
        let assembly = assemble(self.scheduler.running(), &plan.work);
        self.model.forward(&assembly.batch);
        let drawn = self.model.sample(&assembly.samples);
        self.steps += 1;
        self.rows += assembly.batch.rows() as u64;
        self.tokens += drawn.len() as u64;
        self.scheduler.commit(&plan.work, &assembly.order, drawn);
    }

    fn publish(&self, board: &Board) {
        board.update(|status| {
            self.scheduler.report(status);
            (status.steps, status.rows, status.tokens) = (self.steps, self.rows, self.tokens);
        });
    }
}

#[cfg(test)]
mod tests;
