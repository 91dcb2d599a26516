//! Turns a plan into the flat arrays that kernels read.

use switchyard_kernels::{Batch, PAGE_TOKENS, SampleRow, Segment};

use super::{
    Traffic,
    scheduler::Work,
    sequence::{Sequence, SequenceId},
};

/// A batch, and how its logits become tokens.
pub(super) struct Assembly {
    pub(super) batch: Batch,
    /// `[logits]` how each token is drawn.
    pub(super) samples: Vec<SampleRow>,
    /// `[logits]` the sequence that each token is drawn for.
    pub(super) order: Vec<SequenceId>,
    /// What the step reads.
    pub(super) traffic: Traffic,
}

/// Lays out the planned rows: base rows first, then by adapter slot, then by arrival. Only a row
/// that ends its sequence has logits.
pub(super) fn assemble(running: &[Sequence], work: &[Work]) -> Assembly {
    let mut work = work.to_vec();
    work.sort_by_key(|work| (running[work.index].slot, work.index));
    let batch = Batch { seq_indptr: vec![0], page_indptr: vec![0], ..Batch::default() };
    let traffic = Traffic::default();
    let mut assembly = Assembly { batch, samples: Vec::new(), order: Vec::new(), traffic };
    for work in work {
        assembly.append(&running[work.index], work);
    }
    assembly
}

impl Assembly {
    fn append(&mut self, sequence: &Sequence, work: Work) {
        let batch = &mut self.batch;
        let end = sequence.computed + work.rows;
        let first_row = batch.rows() as u32;
        batch.tokens.extend(sequence.row_tokens(work.rows));
        batch.positions.extend(sequence.computed as u32..end as u32);
        batch.seq_indptr.push(batch.rows() as u32);
        batch.page_indices.extend_from_slice(&sequence.pages[..end.div_ceil(PAGE_TOKENS)]);
        batch.page_indptr.push(batch.page_indices.len() as u32);
        let rows = first_row..batch.rows() as u32;
        self.traffic.kv_tokens += end as u64;
        match batch.segments.last_mut() {
            Some(last) if last.adapter == sequence.slot => last.rows.end = rows.end,
            _ => {
                batch.segments.push(Segment { rows: rows.clone(), adapter: sequence.slot });
                let slabs = sequence.adapter().map_or(0, |image| image.map.slabs);
                self.traffic.adapter_slabs += u64::from(slabs);
            }
        }
        if end == sequence.len() {
            batch.logit_rows.push(rows.end - 1);
            self.samples.push(sequence.sample_row());
            self.order.push(sequence.id);
        }
    }
}
