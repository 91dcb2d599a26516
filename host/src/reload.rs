//! Takes up changes of the configuration, the plugins and the adapters while requests run.
//!
//! One thread owns the watch, the plugin host and the adapter registry. Each time something may
//! have changed it reads, checks, plans and prepares everything aside, then publishes one new
//! [`crate::generation::Snapshot`] by a single swap, or nothing. Whatever fails keeps the last
//! good state: a broken configuration, or one that needs a restart, is refused whole; a broken
//! plugin file leaves that plugin on its last good generation, a broken adapter likewise.

mod stock;

use std::{
    io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

pub use stock::{Stock, Supply};

use crate::{
    config::{Config, Given, LiveConfig, Plan},
    generation::Host,
    watch::Watch,
};

/// Applies a new `log.level`.
pub type SetLogLevel = Box<dyn Fn(&str) + Send>;

/// What can wake the thread.
enum Event {
    /// The watch saw a change.
    Files,
    /// The operator asked, by signal.
    Asked,
    /// The owner is gone.
    Stop,
}

/// A running reload thread; dropping it ends the thread.
pub struct Reload {
    events: Sender<Event>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread starts from.
pub struct Start {
    /// How to read the configuration again.
    pub given: Given,
    /// The configuration in force.
    pub config: Config,
    /// What `host`'s first snapshot was made of.
    pub stock: Stock,
    /// Where snapshots are published.
    pub host: Arc<Host>,
    /// Applies a new `log.level`.
    pub set_log_level: SetLogLevel,
}

impl Reload {
    /// Starts the thread and the watch.
    pub fn start(start: Start) -> io::Result<Self> {
        let (events, woken) = channel();
        let files = events.clone();
        let paths = watched(&start.given, &start.config.live);
        // A closed channel means that the process is ending.
        let watch = Watch::start(paths, move || drop(files.send(Event::Files)))?;
        let keeper = Keeper { start, watch, reported: Vec::new() };
        let thread =
            thread::Builder::new().name("reload".to_owned()).spawn(move || keeper.run(&woken))?;
        Ok(Self { events, thread: Some(thread) })
    }

    /// Looks for changes now, whatever the watch has seen, and reports every problem again.
    pub fn ask(&self) {
        // The thread lives as long as `self`.
        let _ = self.events.send(Event::Asked);
    }
}

impl Drop for Reload {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything a change of which may matter.
fn watched(given: &Given, live: &LiveConfig) -> Vec<PathBuf> {
    let plugins = live.plugins.iter().map(|plugin| plugin.path.clone());
    given.file.iter().cloned().chain(live.adapters.dirs.iter().cloned()).chain(plugins).collect()
}

/// The thread's state.
struct Keeper {
    start: Start,
    watch: Watch,
    /// Problems of the last attempt, so that a lasting one is logged once.
    reported: Vec<String>,
}

impl Keeper {
    fn run(mut self, woken: &Receiver<Event>) {
        while let Ok(first) = woken.recv() {
            for event in std::iter::once(first).chain(woken.try_iter()) {
                match event {
                    Event::Files => {}
                    Event::Asked => self.reported.clear(),
                    Event::Stop => return,
                }
            }
            self.reload();
        }
    }

    /// Reads, checks, plans, prepares, publishes.
    fn reload(&mut self) {
        let mut problems = Vec::new();
        let running = self.start.config.clone();
        let mut wanted = self.wanted().unwrap_or_else(|problem| {
            problems.push(problem);
            running.clone()
        });
        let stock = &mut self.start.stock;
        let mut supply = stock.restock(&wanted.live, &mut problems);
        if supply.is_none() {
            problems
                .push("the configuration as a whole is refused, the running one is kept".into());
            wanted = running.clone();
            supply = stock.restock(&wanted.live, &mut problems);
        }
        let plan = Plan::between(&running, &wanted);
        if let Some(supply) = supply {
            if supply.changed || !plan.live.is_empty() {
                self.publish(&wanted, &supply, &plan);
            }
            self.watch.set_paths(watched(&self.start.given, &wanted.live));
            self.start.config = wanted;
        }
        self.report(problems);
    }

    /// The configuration as written now, if it can take effect.
    fn wanted(&self) -> Result<Config, String> {
        let load = self.start.given.load();
        let wanted = load.map_err(|error| format!("{error}; the running one is kept"))?;
        let plan = Plan::between(&self.start.config, &wanted);
        match plan.restart.as_slice() {
            [] => Ok(wanted),
            keys => {
                let keys = keys.join(", ");
                Err(format!("{keys}: restart needed; the running configuration is kept"))
            }
        }
    }

    fn publish(&self, wanted: &Config, supply: &Supply, plan: &Plan) {
        let Start { host, set_log_level, .. } = &self.start;
        let generation = host.snapshot.load().generation + 1;
        if plan.live.iter().any(|key| key == "log.level") {
            set_log_level(&wanted.live.log_level);
        }
        host.snapshot.store(Arc::new(supply.snapshot(generation, &wanted.live)));
        let (keys, plugins) = (plan.live.join(", "), supply.news.join(", "));
        let adapters = supply.catalogue.iter().count();
        tracing::info!(generation, keys, plugins, adapters, "reloaded");
    }

    /// Logs what is new among the problems.
    fn report(&mut self, problems: Vec<String>) {
        let generation = self.start.host.snapshot.load().generation;
        for problem in problems.iter().filter(|problem| !self.reported.contains(problem)) {
            tracing::error!(generation, "{problem}");
        }
        if problems.is_empty() && !self.reported.is_empty() {
            tracing::info!(generation, "no problem is left");
        }
        self.reported = problems;
    }
}
