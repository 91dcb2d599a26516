//! How much a plugin may log: so many lines a second, the rest is counted.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// Lines in one window.
const LINES_MAX: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);

/// The budget of one plugin generation.
pub(super) struct LogBudget(Mutex<Window>);

struct Window {
    start: Instant,
    lines: u32,
}

impl Default for LogBudget {
    fn default() -> Self {
        Self(Mutex::new(Window { start: Instant::now(), lines: 0 }))
    }
}

impl LogBudget {
    /// Takes one line at `now`. `None` if it must be dropped, else how many were dropped in the
    /// window that ended with this line.
    pub(super) fn take(&self, now: Instant) -> Option<u32> {
        let mut window = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut dropped = 0;
        if window.start + WINDOW <= now {
            dropped = window.lines.saturating_sub(LINES_MAX);
            *window = Window { start: now, lines: 0 };
        }
        window.lines = window.lines.saturating_add(1);
        (window.lines <= LINES_MAX).then_some(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_over_the_budget_are_counted_and_reported_once() {
        let budget = LogBudget::default();
        let start = Instant::now();
        let taken = (0..LINES_MAX + 5).filter(|_| budget.take(start) == Some(0)).count();
        assert_eq!(taken, LINES_MAX as usize);
        assert_eq!(budget.take(start + 2 * WINDOW), Some(5));
        assert_eq!(budget.take(start + 2 * WINDOW), Some(0));
    }
}
