//! The threads that guests run on.
//!
//! A guest may hold its thread for as long as its deadline allows, so it never runs on a thread
//! of the async runtime. The queue is bounded: what does not fit is refused at once.

use std::{
    any::Any,
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
};

/// Jobs that may wait: at a few microseconds each, some milliseconds of work per thread.
const QUEUE_LIMIT: usize = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed set of threads before one bounded queue. Dropping it lets the threads finish what is
/// queued and end; nobody waits for them, for it may be one of them that drops it.
pub(super) struct Executor {
    queue: Arc<Queue>,
}

/// The queue has no room.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct QueueFull;

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    ready: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    closed: bool,
}

impl Executor {
    /// Starts `threads` threads, at least one.
    pub(super) fn start(threads: usize) -> io::Result<Self> {
        let executor = Self { queue: Arc::default() };
        for index in 0..threads.max(1) {
            let queue = Arc::clone(&executor.queue);
            let builder = thread::Builder::new().name(format!("plugin-{index}"));
            builder.spawn(move || queue.work())?;
        }
        Ok(executor)
    }

    /// Queues a job. It runs even if the executor is dropped before its turn.
    pub(super) fn submit(&self, job: impl FnOnce() + Send + 'static) -> Result<(), QueueFull> {
        let mut state = self.queue.lock();
        if state.jobs.len() == QUEUE_LIMIT {
            return Err(QueueFull);
        }
        state.jobs.push_back(Box::new(job));
        drop(state);
        self.queue.ready.notify_one();
        Ok(())
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        self.queue.lock().closed = true;
        self.queue.ready.notify_all();
    }
}

impl Queue {
    /// No job runs under the lock, so a poisoned state is a whole one.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.closed {
                return None;
            }
            state = self.ready.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A job that panics loses its caller's answer, not the thread.
    fn work(&self) {
        while let Some(job) = self.next() {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(job)) {
                tracing::error!(panic = panic_text(&*panic), "a plugin call panicked in the host");
            }
        }
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("unknown")
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_full_queue_refuses_and_what_was_queued_still_runs() {
        let executor = Executor::start(1).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (started, running) = mpsc::channel();
        let hold = move || {
            started.send(()).unwrap();
            held.recv().unwrap();
        };
        executor.submit(hold).unwrap();
        running.recv().unwrap();
        let (done, results) = mpsc::channel();
        for index in 0..QUEUE_LIMIT {
            let done = done.clone();
            executor.submit(move || done.send(index).unwrap()).unwrap();
        }
        assert_eq!(executor.submit(|| ()), Err(QueueFull));
        drop((done, executor));
        release.send(()).unwrap();
        assert!(results.iter().eq(0..QUEUE_LIMIT));
    }

    #[test]
    fn a_panic_does_not_cost_the_thread() {
        let executor = Executor::start(1).unwrap();
        executor.submit(|| panic!("on purpose")).unwrap();
        let (done, result) = mpsc::channel();
        executor.submit(move || done.send(7).unwrap()).unwrap();
        assert_eq!(result.recv(), Ok(7));
    }
}
