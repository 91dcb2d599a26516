//! A few persistent threads that share one loop at a time.
//!
//! A loop is cut into chunks that are claimed from a counter, so which thread runs which chunk is
//! left to chance; kernels never let it matter. The caller works too, and a loop of one chunk
//! never leaves the calling thread. Between loops a worker spins for some microseconds, since the
//! operations of a step follow each other closely, then sleeps.

use std::{
    hint,
    ops::Range,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Turns of the spin loop before a thread sleeps or yields.
const SPINS: u32 = 1 << 10;

/// A loop body with its lifetime erased.
#[derive(Clone, Copy)]
struct Job(*const (dyn Fn() + Sync));

// SAFETY: the body is `Sync`, so running it through a shared pointer from any thread is sound;
// `Workers::run` keeps it alive while any thread may.
unsafe impl Send for Job {}

#[derive(Default)]
struct Shared {
    job: Mutex<Option<Job>>,
    posted: Condvar,
    /// Counts jobs; a change tells a spinning worker that there is one.
    epoch: AtomicU64,
    /// Workers that have not finished the current job.
    running: AtomicUsize,
    panicked: AtomicBool,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Job>> {
        self.job.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self) {
        let mut seen = 0;
        loop {
            for _ in 0..SPINS {
                if self.epoch.load(Ordering::Acquire) != seen {
                    break;
                }
                hint::spin_loop();
            }
            let mut job = self.lock();
            while self.epoch.load(Ordering::Acquire) == seen {
                job = self.posted.wait(job).unwrap_or_else(PoisonError::into_inner);
            }
            seen = self.epoch.load(Ordering::Acquire);
            let current = *job;
            drop(job);
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if let Some(Job(body)) = current {
                // SAFETY: `run` posted the body and waits until `running` is zero, which needs the
                // decrement below, before it lets go of it.
                let body = unsafe { &*body };
                if catch_unwind(AssertUnwindSafe(body)).is_err() {
                    self.panicked.store(true, Ordering::Release);
                }
            }
            self.running.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// The threads of one backend.
pub(super) struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Workers {
    /// `count` threads in all, the caller's among them.
    pub(super) fn new(count: usize) -> std::io::Result<Self> {
        assert!(count > 0, "at least the calling thread");
        let mut workers = Self { shared: Arc::default(), threads: Vec::new() };
        for index in 1..count {
            let shared = Arc::clone(&workers.shared);
            let thread = thread::Builder::new().name(format!("kernels-{index}"));
            workers.threads.push(thread.spawn(move || shared.serve())?);
        }
        Ok(workers)
    }

    /// Threads in all.
    pub(super) fn count(&self) -> usize {
        self.threads.len() + 1
    }

    /// Runs `body` over `0..n` in chunks of at most `chunk`, in any order, side by side.
    pub(super) fn split(&self, n: usize, chunk: usize, body: impl Fn(Range<usize>) + Sync) {
        let chunk = chunk.max(1);
        if n <= chunk || self.threads.is_empty() {
            for start in (0..n).step_by(chunk) {
                body(start..n.min(start + chunk));
            }
            return;
        }
        let next = AtomicUsize::new(0);
        self.run(&|| {
            loop {
                let start = next.fetch_add(chunk, Ordering::Relaxed);
                if start >= n {
                    return;
                }
                body(start..n.min(start + chunk));
            }
        });
    }

    /// Runs `body` once on every thread and returns when all are done.
    fn run(&self, body: &(dyn Fn() + Sync)) {
        let shared = &*self.shared;
        // SAFETY: only the lifetime changes. `done` waits for every worker before `body` can go
        // out of scope, whether by return or by unwinding.
        let job = Job(unsafe {
            std::mem::transmute::<*const (dyn Fn() + Sync), *const (dyn Fn() + Sync)>(body)
        });
        {
            let mut slot = shared.lock();
            *slot = Some(job);
            shared.running.store(self.threads.len(), Ordering::Release);
            shared.epoch.fetch_add(1, Ordering::AcqRel);
            shared.posted.notify_all();
        }
        let done = Done(shared);
        body();
        drop(done);
        let panicked = shared.panicked.swap(false, Ordering::AcqRel);
        assert!(!panicked, "a kernel panicked on a worker thread");
    }
}

/// Waits, when dropped, until no worker runs the current job.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        let mut spins = 0;
        while self.0.running.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS {
                hint::spin_loop();
            } else {
                thread::yield_now();
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        {
            let _slot = self.shared.lock();
            self.shared.stop.store(true, Ordering::Release);
            self.shared.epoch.fetch_add(1, Ordering::AcqRel);
            self.shared.posted.notify_all();
        }
        for thread in self.threads.drain(..) {
            // A worker catches its panics, so it ends well.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn every_index_is_visited_once() {
        for threads in 1..4 {
            let workers = Workers::new(threads).unwrap();
            for (n, chunk) in [(0, 1), (1, 1), (7, 3), (64, 64), (1000, 7), (5, 0)] {
                let visits: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(0)).collect();
                workers.split(n, chunk, |range| {
                    for index in range {
                        visits[index].fetch_add(1, Ordering::Relaxed);
                    }
                });
                assert!(visits.iter().all(|visits| visits.load(Ordering::Relaxed) == 1));
            }
        }
    }

    #[test]
    fn a_panic_reaches_the_caller_and_spares_the_threads() {
        let workers = Workers::new(3).unwrap();
        for bad in 0..20 {
            let result = catch_unwind(AssertUnwindSafe(|| {
                workers.split(20, 1, |range| assert_ne!(range.start, bad));
            }));
            assert!(result.is_err());
        }
        let sum = AtomicUsize::new(0);
        workers.split(100, 1, |range| {
            sum.fetch_add(range.start, Ordering::Relaxed);
        });
        assert_eq!(sum.into_inner(), 4950);
    }
}
