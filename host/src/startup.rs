//! How long a start takes, by stage.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// The stages of a start so far. Clones share them, since a start has more than one thread.
#[derive(Clone)]
pub struct Startup {
    begun: Instant,
    /// Each with the time of its end.
    stages: Arc<Mutex<Vec<(&'static str, Instant)>>>,
}

impl Startup {
    /// Starts the clock.
    pub fn begin() -> Self {
        Self { begun: Instant::now(), stages: Arc::default() }
    }

    /// A stage ends, the next begins.
    pub fn end(&self, stage: &'static str) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push((stage, Instant::now()));
    }

    /// Stages in their order, each with the time it took.
    pub fn stages(&self) -> Vec<(&'static str, Duration)> {
        let stages = self.stages.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = self.begun;
        let mut took = |&(stage, end): &(&'static str, Instant)| {
            (stage, end.duration_since(std::mem::replace(&mut before, end)))
        };
        stages.iter().map(&mut took).collect()
    }
}

/// "1.52 s: files 0.02, kernels 0.40, weights 1.10".
impl fmt::Display for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stages = self.stages();
        let total: Duration = stages.iter().map(|(_, took)| *took).sum();
        write!(f, "{:.2} s", total.as_secs_f64())?;
        for (i, (stage, took)) in stages.iter().enumerate() {
            let mark = if i == 0 { ":" } else { "," };
            write!(f, "{mark} {stage} {:.2}", took.as_secs_f64())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_one_another_and_add_up() {
        let startup = Startup::begin();
        startup.end("files");
        let elsewhere = startup.clone();
        std::thread::spawn(move || elsewhere.end("weights")).join().unwrap();
        let stages = startup.stages();
        assert_eq!(
            stages.iter().map(|(stage, _)| *stage).collect::<Vec<_>>(),
            ["files", "weights"]
        );
        let last = startup.stages.lock().unwrap()[1].1;
        let total: Duration = stages.iter().map(|(_, took)| *took).sum();
        assert_eq!(total, last.duration_since(startup.begun));
        let text = startup.to_string();
        assert!(text.contains(" s: files ") && text.contains(", weights "), "{text}");
    }
}
