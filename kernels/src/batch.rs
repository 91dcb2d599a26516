//! One step's work as flat arrays: what the scheduler decided, in the form kernels read.

use std::ops::Range;

/// Index into the backend's table of resident adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AdapterSlot(pub u32);

/// A run of rows that use the same adapter, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Rows of the batch, half-open.
    pub rows: Range<u32>,
    /// `None` for base rows.
    pub adapter: Option<AdapterSlot>,
}

/// The token of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowToken {
    /// This id.
    Known(u32),
    /// What that row of the latest `sample` before the batch drew, which only the device may know
    /// yet.
    Drawn(u32),
}

/// Everything a forward pass needs to know about its rows. The engine's `assemble` fills it;
/// kernels only read it.
///
/// A row is one token of one sequence. Rows of a sequence are adjacent and ascending in position;
/// sequences that share an adapter are adjacent (invariant *segment cover*: `segments` partition
/// `0..rows` in ascending order).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// `[rows]` which token each row is.
    pub tokens: Vec<RowToken>,
    /// `[rows]` position of the row in its sequence, from 0.
    pub positions: Vec<u32>,
    /// `[sequences + 1]` sequence `i` owns rows `seq_indptr[i]..seq_indptr[i + 1]`.
    pub seq_indptr: Vec<u32>,
    /// `[sequences + 1]` sequence `i` owns `page_indices[page_indptr[i]..page_indptr[i + 1]]`.
    pub page_indptr: Vec<u32>,
    /// Slab of each page, in sequence order; page `p` holds positions `16 p .. 16 p + 16`.
    pub page_indices: Vec<u32>,
    /// Who uses which adapter.
    pub segments: Vec<Segment>,
    /// `[logits]` rows whose logits are wanted, ascending.
    pub logit_rows: Vec<u32>,
}

impl Batch {
    /// Number of token rows.
    pub fn rows(&self) -> usize {
        self.tokens.len()
    }

    /// Number of sequences.
    pub fn sequences(&self) -> usize {
        self.seq_indptr.len().saturating_sub(1)
    }

    /// Whether any row uses an adapter.
    pub fn has_lora(&self) -> bool {
        self.segments.iter().any(|segment| segment.adapter.is_some())
    }

    /// Asserts the invariants that index arithmetic in kernels leans on. Called once a step.
    pub fn assert_consistent(&self) {
        let rows = self.rows() as u32;
        assert_eq!(self.positions.len(), self.tokens.len(), "one position per row");
        assert_eq!(self.page_indptr.len(), self.seq_indptr.len(), "one page run per sequence");
        assert_eq!(self.seq_indptr.last().copied().unwrap_or(0), rows, "sequences cover the rows");
        let pages = self.page_indptr.last().copied().unwrap_or(0) as usize;
        assert_eq!(pages, self.page_indices.len(), "page runs cover the pages");
        let mut next = 0;
        for segment in &self.segments {
            assert_eq!(segment.rows.start, next, "segment cover: no gap, no overlap");
            assert!(segment.rows.end > segment.rows.start, "segment cover: no empty segment");
            next = segment.rows.end;
        }
        assert_eq!(next, rows, "segment cover: every row");
        assert!(self.logit_rows.is_sorted() && self.logit_rows.iter().all(|&row| row < rows));
    }
}
