//! Rows of the printed table.

use std::time::{Duration, Instant};

use crate::shape::Shape;

/// One timed operation.
pub(crate) struct Row {
    pub(crate) kernel: &'static str,
    /// Rows of the batch.
    pub(crate) rows: usize,
    /// Tokens of each sequence.
    pub(crate) tokens: usize,
    /// Different adapters, and their rank.
    pub(crate) adapters: Option<(usize, usize)>,
    pub(crate) seconds: f64,
    /// Weights, adapters, keys and values, logits: each once.
    pub(crate) bytes: usize,
    /// Multiplications and additions, where they are the limit.
    pub(crate) flops: Option<f64>,
}

/// Prints rows as they come, until its time is up.
pub(crate) struct Table {
    until: Instant,
    /// Bytes per second of a plain copy, reads and writes counted.
    stream: Option<f64>,
    shape: &'static str,
    cut: bool,
}

impl Table {
    pub(crate) fn new(budget: Duration, stream: Option<f64>) -> Self {
        let header = ["shape", "kernel", "rows", "tokens", "distinct", "rank", "us", "MB", "GB/s"];
        println!("| {} | % of stream | TFLOP/s |", header.join(" | "));
        println!("|{}", "---|".repeat(header.len() + 2));
        Self { until: Instant::now() + budget, stream, shape: "", cut: false }
    }

    pub(crate) fn of(&mut self, shape: &Shape) {
        self.shape = shape.name;
    }

    /// Whether there is time for another row.
    pub(crate) fn is_open(&mut self) -> bool {
        self.cut |= Instant::now() > self.until;
        !self.cut
    }

    pub(crate) fn push(&self, row: &Row) {
        let Row { kernel, rows, tokens, adapters, seconds, bytes, flops } = *row;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let rate = (bytes > 0).then(|| bytes as f64 / seconds);
        let share = rate.zip(self.stream).map(|(rate, stream)| rate / stream * 100.0);
        println!(
            "| {} | {kernel} | {rows} | {tokens} | {} | {} | {:.2} | {:.2} | {} | {} | {} |",
            self.shape,
            or_dash(adapters.map(|(distinct, _)| distinct.to_string())),
            or_dash(adapters.map(|(_, rank)| rank.to_string())),
            seconds * 1e6,
            bytes as f64 / 1e6,
            or_dash(rate.map(|rate| format!("{:.0}", rate / 1e9))),
            or_dash(share.map(|share| format!("{share:.0}"))),
            or_dash(flops.map(|flops| format!("{:.1}", flops / seconds / 1e12))),
        );
    }

    pub(crate) fn close(&self) {
        if self.cut {
            println!("\nThe rest was left out: the time was up.");
        }
    }
}
