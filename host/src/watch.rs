//! Tells when watched files and directories have changed, whatever way that came about.
//!
//! One thread owns the watch. Events of the operating system only wake it; what counts is a
//! [`Survey`] of what the paths lead to, taken until two in a row agree, so that a half-written
//! file, a renamed directory or a swapped symbolic link is reported once and when it is complete.
//! A slow poll finds what no event told. Dropping the [`Watch`] ends the thread.

mod survey;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use survey::Survey;

/// Two surveys this far apart must agree before a change is reported.
const SETTLE: Duration = Duration::from_millis(100);

/// Between surveys when the system reports events.
const POLL: Duration = Duration::from_secs(10);

/// Between surveys when it does not.
const POLL_WITHOUT_EVENTS: Duration = Duration::from_secs(2);

/// A running watch.
pub struct Watch {
    wake: Sender<Wake>,
    thread: Option<JoinHandle<()>>,
}

/// What can wake the thread.
enum Wake {
    /// The system says that something happened; what exactly does not matter.
    Stir,
    /// Other paths are to be watched.
    Paths(Vec<PathBuf>),
    /// The owner is gone.
    Stop,
}

impl Watch {
    /// Calls `changed` on the watch's own thread once at the start and then after each change of
    /// the paths, which need not exist yet. The first call makes up for what happened between the
    /// caller's own look at them and this.
    pub fn start(paths: Vec<PathBuf>, changed: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (wake, woken) = channel();
        let stir = wake.clone();
        let events = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if matters(&event) {
                // A closed channel means that the watch is ending.
                let _ = stir.send(Wake::Stir);
            }
        });
        let events = events
            .inspect_err(|why| tracing::warn!(%why, "no file events; polling for changes instead"));
        let keeper = Keeper { events: events.ok(), paths, ..Keeper::default() };
        let thread = thread::Builder::new()
            .name("watch".to_owned())
            .spawn(move || keeper.run(&woken, changed))?;
        Ok(Self { wake, thread: Some(thread) })
    }

    /// Watches these paths from now on; if they are others than before, that counts as a change.
    pub fn set_paths(&self, paths: Vec<PathBuf>) {
        // The thread lives as long as `self`.
        let _ = self.wake.send(Wake::Paths(paths));
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.wake.send(Wake::Stop);
        // The last handle may be dropped by the callback itself, which cannot wait for its thread.
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            let _ = thread.join();
        }
    }
}

/// Whether an event may mean a change. Reading is none, or each survey would cause the next;
/// lost events and errors may hide any change.
fn matters(event: &notify::Result<notify::Event>) -> bool {
    match event {
        Ok(event) => event.need_rescan() || !event.kind.is_access(),
        Err(_) => true,
    }
}

/// The thread's state.
#[derive(Default)]
struct Keeper {
    events: Option<RecommendedWatcher>,
    /// Directories that the system watches for us.
    watched: BTreeSet<PathBuf>,
    paths: Vec<PathBuf>,
    /// What `changed` was last called for; `None` before that.
    reported: Option<Survey>,
    /// The newest survey.
    seen: Survey,
    /// Whether events cover every directory.
    covered: bool,
}

impl Keeper {
    fn run(mut self, woken: &Receiver<Wake>, mut changed: impl FnMut()) {
        let mut next = Instant::now();
        loop {
            match woken.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(Wake::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Wake::Stir) => next = next.min(Instant::now() + SETTLE),
                Ok(Wake::Paths(paths)) if paths != self.paths => {
                    self.paths = paths;
                    self.reported = None;
                    next = Instant::now();
                }
                Ok(Wake::Paths(_)) => {}
                Err(RecvTimeoutError::Timeout) => {
                    let settled = self.survey();
                    if settled && self.reported.as_ref() != Some(&self.seen) {
                        self.reported = Some(self.seen.clone());
                        changed();
                    }
                    next = Instant::now() + if settled { self.idle() } else { SETTLE };
                }
            }
        }
    }

    fn idle(&self) -> Duration {
        if self.covered { POLL } else { POLL_WITHOUT_EVENTS }
    }

    /// Looks again; whether nothing has changed since the last look.
    fn survey(&mut self) -> bool {
        let mut now = Survey::take(&self.paths);
        if now.directories != self.watched {
            self.follow(&now.directories);
            // What happened between the look and the watch would have gone unnoticed.
            now = Survey::take(&self.paths);
        }
        let settled = now == self.seen;
        self.seen = now;
        settled
    }

    /// Has the system watch exactly these directories.
    fn follow(&mut self, directories: &BTreeSet<PathBuf>) {
        let Some(events) = &mut self.events else { return };
        for gone in self.watched.difference(directories) {
            // The directory may be gone, and its watch with it.
            let _ = events.unwatch(gone);
        }
        self.covered = true;
        for new in directories.difference(&self.watched) {
            if let Err(why) = events.watch(new, RecursiveMode::NonRecursive) {
                tracing::debug!(directory = %new.display(), %why, "polling for changes");
                self.covered = false;
            }
        }
        self.watched = directories.clone();
    }
}

/// The nearest directory that exists, from the path's parent upwards.
fn nearest_directory(path: &Path) -> Option<PathBuf> {
    let above = path.ancestors().skip(1).map(|above| match above.as_os_str().is_empty() {
        true => Path::new("."),
        false => above,
    });
    above.into_iter().find(|above| above.is_dir()).map(Path::to_path_buf)
}
