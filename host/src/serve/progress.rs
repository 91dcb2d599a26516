//! How far loading is: a bar on a terminal, a few lines in a log.

use std::io::{self, IsTerminal, Write};

const WIDTH: u64 = 40;

/// Smaller models load too fast for lines in between.
const SILENT_BYTES: u64 = 256 << 20;

/// Shows the loading of one model; clears its bar when dropped.
pub(super) struct Progress {
    name: String,
    terminal: bool,
    /// Steps shown so far: columns of the bar, or quarters.
    shown: Option<u64>,
}

impl Progress {
    pub(super) fn start(name: &str) -> Self {
        tracing::info!(model = name, "loading");
        Self { name: name.to_owned(), terminal: io::stderr().is_terminal(), shown: None }
    }

    /// `done` of `all` bytes have been read.
    pub(super) fn show(&mut self, done: u64, all: u64) {
        let steps = if self.terminal { WIDTH } else { 4 };
        let step = done * steps / all.max(1);
        // Readers report side by side, not always in order.
        if self.shown >= Some(step) {
            return;
        }
        self.shown = Some(step);
        if self.terminal {
            let (full, rest) = (step as usize, (WIDTH.saturating_sub(step)) as usize);
            let bar = ["#".repeat(full), ".".repeat(rest)].concat();
            // A bar that can't be drawn is no reason not to load.
            let _ = write!(io::stderr(), "\r{} [{bar}] {:3}%", self.name, done * 100 / all.max(1));
        } else if all > SILENT_BYTES {
            tracing::info!(model = self.name, "loading: {} of {} MiB", done >> 20, all >> 20);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.terminal && self.shown.is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
