//! How long a guest may run: a budget of its thread's CPU time, with a backstop on the wall clock.
//!
//! A [`Ticker`] thread advances the engine's epoch; a running guest notices and looks at its
//! [`Deadline`]. CPU time is what counts, so that a busy machine does not kill good guests. The
//! ticker sleeps while no guest runs.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Engine, EngineWeak};

use super::FaultKind;

/// How often a running guest looks at its deadline.
const TICK: Duration = Duration::from_millis(1);
/// Ticks without a running guest before the ticker sleeps.
const IDLE_TICKS: u32 = 100;
/// The longest any call may take by the clock on the wall.
pub(super) const WALL_LIMIT: Duration = Duration::from_secs(30);

/// When the running call has to end. Belongs to the thread that started it.
pub(super) struct Deadline {
    cpu_limit: Duration,
    cpu_end: Duration,
    wall_end: Instant,
}

impl Deadline {
    /// The deadline of a call that starts now on this thread.
    pub(super) fn start(cpu_limit: Duration) -> Self {
        let wall_end = Instant::now() + WALL_LIMIT;
        Self { cpu_limit, cpu_end: thread_cpu() + cpu_limit, wall_end }
    }

    /// Whether the call may go on.
    pub(super) fn check(&self) -> Result<(), FaultKind> {
        if self.cpu_end < thread_cpu() {
            return Err(FaultKind::Deadline(self.cpu_limit));
        }
        if self.wall_end < Instant::now() {
            return Err(FaultKind::Stalled(WALL_LIMIT));
        }
        Ok(())
    }
}

/// CPU time of this thread.
fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Neither part of a CPU clock is negative.
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Advances the engine's epoch while guests run. Dropping it ends its thread.
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    /// Guests between [`Ticker::enter`] and the drop of what it gave.
    running: AtomicUsize,
    /// Set by the ticker before it sleeps, so that `enter` wakes it only when it must.
    asleep: AtomicBool,
    stopped: AtomicBool,
}

impl Ticker {
    /// Starts the thread. It does not keep the engine alive.
    pub(super) fn start(engine: &Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ours, engine) = (Arc::clone(&shared), engine.weak());
        let builder = thread::Builder::new().name("plugin-ticker".into());
        let handle = builder.spawn(move || tick(&ours, &engine))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Ticks for as long as the answer lives.
    pub(super) fn enter(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, SeqCst);
        if self.shared.asleep.load(SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stopped.store(true, SeqCst);
        self.thread.unpark();
    }
}

/// A guest is running.
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

fn tick(shared: &Shared, engine: &EngineWeak) {
    let mut idle = 0;
    while !shared.stopped.load(SeqCst) {
        idle = if shared.running.load(SeqCst) == 0 { idle + 1 } else { 0 };
        if idle < IDLE_TICKS {
            thread::sleep(TICK);
            let Some(engine) = engine.upgrade() else { return };
            engine.increment_epoch();
        } else {
            // `asleep` first, then `running` again: a guest that enters in between either is seen
            // here or sees `asleep` and unparks.
            shared.asleep.store(true, SeqCst);
            if shared.running.load(SeqCst) == 0 && !shared.stopped.load(SeqCst) {
                thread::park();
            }
            shared.asleep.store(false, SeqCst);
            idle = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_ends_a_call_and_waiting_does_not() {
        let limit = Duration::from_millis(3);
        let deadline = Deadline::start(limit);
        thread::sleep(4 * limit);
        assert_eq!(deadline.check(), Ok(()), "a sleeping thread uses no CPU time");
        while thread_cpu() <= deadline.cpu_end {}
        assert_eq!(deadline.check(), Err(FaultKind::Deadline(limit)));
    }

    #[test]
    fn the_wall_clock_is_the_backstop() {
        let mut deadline = Deadline::start(WALL_LIMIT);
        deadline.wall_end = Instant::now();
        while Instant::now() <= deadline.wall_end {}
        assert_eq!(deadline.check(), Err(FaultKind::Stalled(WALL_LIMIT)));
    }

    #[test]
    fn a_dropped_ticker_lets_go_of_the_engine() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        drop(ticker.enter());
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker);
        while shared.strong_count() > 0 {
            thread::yield_now();
        }
        let weak = engine.weak();
        drop(engine);
        assert!(weak.upgrade().is_none());
    }
}
