//! Steps over sequences that were never read: their pages hold whatever the pool held.

use switchyard_kernels::{AdapterSlot, Backend, Batch, PAGE_TOKENS, RowToken, SampleRow, Segment};

use super::ProfileArgs;
use crate::{bench::decode::AdapterMode, model::Model};

/// Steps ahead of those that count.
pub(super) const WARM_UP: u32 = 3;

/// Makes batches, and knows which slabs are free.
pub(super) struct Steps {
    vocabulary: usize,
    /// Tokens of each sequence, and how many of them a step computes, the last ones.
    context: u32,
    tokens: u32,
    /// Slabs that no adapter has, in no order.
    slabs: Vec<u32>,
    rng: fastrand::Rng,
}

impl Steps {
    pub(super) fn new(vocabulary: usize, args: &ProfileArgs, slabs: usize) -> Self {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut slabs: Vec<u32> = (0..slabs as u32).collect();
        rng.shuffle(&mut slabs);
        Self { vocabulary, context: args.context, tokens: args.tokens, slabs, rng }
    }

    /// Slabs for an adapter.
    pub(super) fn take_slabs(&mut self, count: usize) -> Vec<u32> {
        self.slabs.split_off(self.slabs.len() - count)
    }

    /// Runs a few steps to warm up, then `count` more.
    pub(super) fn run<B: Backend>(
        &mut self,
        model: &mut Model<B>,
        (mode, sequences): (AdapterMode, u32),
        count: u32,
    ) {
        for _ in 0..WARM_UP + count {
            model.forward(&self.batch(mode, sequences));
            let row = |row: u32| SampleRow {
                temperature: 0.0,
                top_k: 0,
                top_p: 1.0,
                seed: row.into(),
                position: self.context.into(),
                logprobs: None,
                mask: None,
            };
            let draw = model.sample(&(0..sequences).map(row).collect::<Vec<_>>());
            model.collect(draw);
        }
    }

    fn batch(&mut self, mode: AdapterMode, sequences: u32) -> Batch {
        let (context, tokens) = (self.context, self.tokens);
        let (pages, rows) = (context.div_ceil(PAGE_TOKENS as u32), sequences * tokens);
        let segments = match mode {
            AdapterMode::None | AdapterMode::Unused => {
                vec![Segment { rows: 0..rows, adapter: None }]
            }
            AdapterMode::One => vec![Segment { rows: 0..rows, adapter: Some(AdapterSlot(0)) }],
            AdapterMode::Distinct => {
                let of_sequence = |i| Segment {
                    rows: i * tokens..(i + 1) * tokens,
                    adapter: Some(AdapterSlot(i)),
                };
                (0..sequences).map(of_sequence).collect()
            }
        };
        let mut token = |_| RowToken::Known(self.rng.u32(..self.vocabulary as u32));
        Batch {
            tokens: (0..rows).map(&mut token).collect(),
            positions: (0..sequences).flat_map(|_| context - tokens..context).collect(),
            seq_indptr: (0..=sequences).map(|i| i * tokens).collect(),
            page_indptr: (0..=sequences).map(|i| i * pages).collect(),
            page_indices: self.slabs[..(sequences * pages) as usize].to_vec(),
            segments,
            logit_rows: (1..=sequences).map(|i| i * tokens - 1).collect(),
        }
    }
}
