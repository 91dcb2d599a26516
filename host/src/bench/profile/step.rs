//! Decode steps over sequences that were never read: their pages hold whatever the pool held.

use switchyard_kernels::{AdapterSlot, Backend, Batch, PAGE_TOKENS, RowToken, SampleRow, Segment};

use crate::{bench::decode::AdapterMode, model::Model};

/// Steps ahead of those that count.
pub(super) const WARM_UP: u32 = 3;

/// Makes batches, and knows which slabs are free.
pub(super) struct Steps {
    vocabulary: usize,
    /// Tokens of each sequence.
    context: u32,
    /// Slabs that no adapter has, in no order.
    slabs: Vec<u32>,
    rng: fastrand::Rng,
}

impl Steps {
    pub(super) fn new(vocabulary: usize, context: u32, slabs: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut slabs: Vec<u32> = (0..slabs as u32).collect();
        rng.shuffle(&mut slabs);
        Self { vocabulary, context, slabs, rng }
    }

    /// Slabs for an adapter.
    pub(super) fn take_slabs(&mut self, count: usize) -> Vec<u32> {
        self.slabs.split_off(self.slabs.len() - count)
    }

    /// Runs a few steps to warm up, then `count` more.
    pub(super) fn run<B: Backend>(
        &mut self,
        model: &mut Model<B>,
        (mode, rows): (AdapterMode, u32),
        count: u32,
    ) {
        for _ in 0..WARM_UP + count {
            model.forward(&self.batch(mode, rows));
            let row = |row: u32| SampleRow {
                temperature: 0.0,
                top_k: 0,
                top_p: 1.0,
                seed: row.into(),
                position: self.context.into(),
                logprobs: None,
                mask: None,
            };
            let draw = model.sample(&(0..rows).map(row).collect::<Vec<_>>());
            model.collect(draw);
        }
    }

    fn batch(&mut self, mode: AdapterMode, rows: u32) -> Batch {
        let pages = self.context.div_ceil(PAGE_TOKENS as u32);
        let slot = |row| match mode {
            AdapterMode::None | AdapterMode::Unused => None,
            AdapterMode::One => Some(AdapterSlot(0)),
            AdapterMode::Distinct => Some(AdapterSlot(row)),
        };
        let segments = match mode {
            AdapterMode::Distinct => {
                (0..rows).map(|row| Segment { rows: row..row + 1, adapter: slot(row) }).collect()
            }
            _ => vec![Segment { rows: 0..rows, adapter: slot(0) }],
        };
        let mut token = |_| RowToken::Known(self.rng.u32(..self.vocabulary as u32));
        Batch {
            tokens: (0..rows).map(&mut token).collect(),
            positions: vec![self.context - 1; rows as usize],
            seq_indptr: (0..=rows).collect(),
            page_indptr: (0..=rows).map(|row| row * pages).collect(),
            page_indices: self.slabs[..(rows * pages) as usize].to_vec(),
            segments,
            logit_rows: (0..rows).collect(),
        }
    }
}
