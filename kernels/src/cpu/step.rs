//! One step's batch with what several operations derive from it, computed once.

use crate::{AttentionShape, Batch, PAGE_TOKENS, RowToken};

/// The batch of the current step.
#[derive(Default)]
pub(super) struct Step {
    pub(super) batch: Batch,
    /// `[rows]` token id of each row.
    pub(super) tokens: Vec<u32>,
    /// `[rows]` sequence of each row.
    pub(super) sequences: Vec<u32>,
    /// `[rows, rotary_dim / 2]` cosine and sine of each rotated pair's angle.
    angles: Vec<(f32, f32)>,
}

impl Step {
    /// `drawn`: `[logits]` tokens of the latest `sample`.
    pub(super) fn new(batch: &Batch, drawn: &[u32], shape: &AttentionShape) -> Self {
        batch.assert_consistent();
        let token = |token: &RowToken| match *token {
            RowToken::Known(id) => id,
            RowToken::Drawn(row) => drawn[row as usize],
        };
        let tokens = batch.tokens.iter().map(token).collect();
        let mut sequences = vec![0; batch.rows()];
        for (sequence, bounds) in batch.seq_indptr.windows(2).enumerate() {
            sequences[bounds[0] as usize..bounds[1] as usize].fill(sequence as u32);
        }
        let angle = |&position: &u32| {
            let turn = move |&frequency: &f32| {
                let (sine, cosine) = (position as f32 * frequency).sin_cos();
                (cosine, sine)
            };
            shape.inv_freq.iter().map(turn)
        };
        let angles = batch.positions.iter().flat_map(angle).collect();
        Self { batch: batch.clone(), tokens, sequences, angles }
    }

    /// Cosines and sines of one row's rotated pairs.
    pub(super) fn angles(&self, row: usize) -> &[(f32, f32)] {
        let pairs = self.angles.len() / self.batch.rows();
        &self.angles[row * pairs..][..pairs]
    }

    /// Slabs of a sequence's pages, in order.
    pub(super) fn pages(&self, sequence: usize) -> &[u32] {
        let bounds = &self.batch.page_indptr[sequence..];
        &self.batch.page_indices[bounds[0] as usize..bounds[1] as usize]
    }

    /// Slab and place within the page of a row's own position.
    pub(super) fn place(&self, row: usize) -> (u32, usize) {
        let position = self.batch.positions[row] as usize;
        let pages = self.pages(self.sequences[row] as usize);
        (pages[position / PAGE_TOKENS], position % PAGE_TOKENS)
    }
}
