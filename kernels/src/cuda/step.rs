//! One step's batch on the device: one pinned image, one copy.

use std::{mem, sync::Arc};

use cudarc::driver::CudaEvent;

use super::{
    device::Device,
    launch::Parameter,
    memory::{DeviceBuffer, PinnedBuffer},
    tensor::Rows,
};
use crate::{Batch, DeviceError, RowToken};

/// Rows that share a pass over an adapter's tiles: the height of a tensor-core tile.
pub(super) const PIECE_ROWS: u32 = 16;
/// Slot of a piece of base rows.
const NO_ADAPTER: u32 = u32::MAX;
/// `DRAWN` of `prelude.cuh`: marks a row's token as one of the latest draw.
const DRAWN: u32 = 1 << 31;
/// Words that an image has room for at first; it grows between steps when one needs more.
const FIRST_WORDS: usize = 1 << 16;
/// What images are, for errors.
const WHAT: &str = "a step's batch";
/// Words of an image ahead of its arrays, `Counts` of `prelude.cuh`.
const COUNT_WORDS: usize = 4;

/// Rows of decoding steps are rounded up to one of these, so that few classes serve all batches.
const CLASS_ROWS: [u32; 13] = [1, 2, 4, 8, 16, 24, 32, 48, 64, 80, 96, 112, 128];
/// Pages of the longest sequence are rounded up to this, or to a power of two above it.
const CLASS_PAGES: u32 = 16;

/// Decoding steps with the same bounds, and so with the same launches: one row for each sequence,
/// each of which wants its logits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Class {
    rows: u32,
    longest_pages: u32,
    has_lora: bool,
}

/// `rows` up to which tensors have room, for a step of so many to be of a class.
pub(super) fn class_rows(rows: usize) -> usize {
    let fits = CLASS_ROWS.into_iter().find(|&bound| bound as usize >= rows);
    fits.map_or(rows, |bound| bound as usize)
}

impl Class {
    /// The class of a step, if it has one.
    fn of(extent: &Extent) -> Option<Self> {
        let Extent { rows, sequences, logits, longest_part, longest_pages, has_lora, .. } = *extent;
        let decodes = longest_part == 1 && [sequences, logits] == [rows; 2];
        let rows = CLASS_ROWS.into_iter().find(|&bound| bound >= rows).filter(|_| decodes)?;
        let longest_pages = longest_pages.next_power_of_two().max(CLASS_PAGES);
        Some(Self { rows, longest_pages, has_lora })
    }

    /// The bounds of its steps. `pages` sizes what is allocated, not what is launched.
    fn extent(self, pages: u32) -> Extent {
        let Self { rows, longest_pages, has_lora } = self;
        let pieces = if has_lora { rows } else { rows.div_ceil(PIECE_ROWS) };
        Extent {
            rows,
            sequences: rows,
            pieces,
            logits: rows,
            longest_part: 1,
            shortest_part: 1,
            pages,
            longest_pages,
            has_lora,
        }
    }
}

/// The current step.
pub(super) struct Step {
    device: Arc<Device>,
    /// Filled next.
    pinned: Pinned,
    /// Filled for the current step.
    sent: Pinned,
    image: DeviceBuffer,
    /// First word of each array, in the order of [`StepView`].
    starts: [usize; ARRAYS],
    /// How far grids have to reach.
    pub(super) extent: Extent,
    /// Of steps begun so far.
    pub(super) number: u64,
    /// Rows of the batch, and rows whose logits are wanted.
    live: [usize; 2],
}

/// An image on its way: its copy waits for the step before, the host fills the other one.
struct Pinned {
    image: PinnedBuffer,
    /// After the latest copy from it.
    copied: Option<CudaEvent>,
}

const ARRAYS: usize = 8;

/// Upper bounds of a step's counts, by which grids are sized.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Extent {
    pub(super) rows: u32,
    pub(super) sequences: u32,
    pub(super) pieces: u32,
    pub(super) logits: u32,
    /// Rows of the longest sequence's part of the batch.
    pub(super) longest_part: u32,
    /// Rows of the shortest sequence's part: the one lower bound here.
    pub(super) shortest_part: u32,
    /// Pages of all sequences, counted for each that has them.
    pub(super) pages: u32,
    /// Pages of the longest sequence.
    pub(super) longest_pages: u32,
    /// Whether any row uses an adapter.
    pub(super) has_lora: bool,
}

/// `Step` of `prelude.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct StepView {
    counts: u64,
    arrays: [u64; ARRAYS],
}

// SAFETY: the layout of `Step` in `prelude.cuh`: nine addresses.
unsafe impl Parameter for StepView {}

impl Step {
    pub(super) fn empty(device: &Arc<Device>) -> Result<Self, DeviceError> {
        let (pinned, sent) = (Pinned::new(device, FIRST_WORDS)?, Pinned::new(device, FIRST_WORDS)?);
        let image = DeviceBuffer::new(device, FIRST_WORDS * 4, WHAT)?;
        let (starts, extent, live) = ([COUNT_WORDS; ARRAYS], Extent::default(), [0; 2]);
        Ok(Self { device: device.clone(), pinned, sent, image, starts, extent, number: 0, live })
    }

    /// Sends a batch to the device, in order after the step before. Waits for no more than the copy
    /// of the batch before that.
    pub(super) fn begin(&mut self, batch: &Batch) {
        batch.assert_consistent();
        self.number += 1;
        let (tokens, sequences) = (row_tokens(batch), row_sequences(batch));
        let pieces = pieces(batch);
        let counts = extent(batch, pieces.len() as u32 / 3);
        let class = Class::of(&counts);
        self.extent = class.map_or(counts, |class| class.extent(counts.pages));
        self.live = [counts.rows as usize, counts.logits as usize];
        // Each array with the words it may have in a step of the class, but for the last, which
        // ends the image: so all begin in the same places.
        let bound = self.extent;
        let arrays: [(&[u32], u32); ARRAYS] = [
            (&tokens, bound.rows),
            (&batch.positions, bound.rows),
            (&sequences, bound.rows),
            (&batch.seq_indptr, bound.sequences + 1),
            (&batch.page_indptr, bound.sequences + 1),
            (&pieces, 3 * bound.pieces),
            (&batch.logit_rows, bound.logits),
            (&batch.page_indices, counts.pages),
        ];
        let words = COUNT_WORDS + arrays.iter().map(|(_, room)| *room as usize).sum::<usize>();
        if words * 4 > self.image.len() {
            self.grow(words.next_power_of_two()).expect("memory for a larger step");
        }
        if let Some(copied) = self.pinned.copied.take() {
            copied.synchronize().expect("the copy of an earlier step");
        }
        let mut at = 0;
        let mut append = |array: &[u32], room: usize, bytes: &mut [u8]| {
            let start = at;
            for (to, word) in bytes[at * 4..].chunks_exact_mut(4).zip(array) {
                to.copy_from_slice(&word.to_le_bytes());
            }
            at += room;
            start
        };
        let bytes = self.pinned.image.bytes_mut();
        let Extent { rows, sequences, pieces, logits, .. } = counts;
        append(&[rows, sequences, pieces, logits], COUNT_WORDS, bytes);
        self.starts = arrays.map(|(array, room)| append(array, room as usize, bytes));
        self.image.write_pinned(0, &self.pinned.image, words * 4);
        let copied = self.device.stream().record_event(None).expect("an event after the copy");
        self.pinned.copied = Some(copied);
        mem::swap(&mut self.pinned, &mut self.sent);
        self.device.hold(class);
    }

    /// Rows of the step's activations.
    pub(super) fn rows(&self) -> Rows {
        Rows { bound: self.extent.rows as usize, live: self.live[0] }
    }

    /// Rows of the step's logits.
    pub(super) fn logits(&self) -> Rows {
        Rows { bound: self.extent.logits as usize, live: self.live[1] }
    }

    /// Makes room for larger images, when nothing that is queued reads the present ones.
    fn grow(&mut self, words: usize) -> Result<(), DeviceError> {
        self.device.stream().synchronize().expect("the step before");
        self.pinned = Pinned::new(&self.device, words)?;
        self.sent = Pinned::new(&self.device, words)?;
        self.image = DeviceBuffer::new(&self.device, words * 4, WHAT)?;
        Ok(())
    }

    /// For kernels.
    pub(super) fn view(&self) -> StepView {
        let counts = self.image.address();
        StepView { counts, arrays: self.starts.map(|start| counts + start as u64 * 4) }
    }
}

impl Pinned {
    fn new(device: &Arc<Device>, words: usize) -> Result<Self, DeviceError> {
        Ok(Self { image: PinnedBuffer::new(device, words * 4, WHAT)?, copied: None })
    }
}

/// `[rows]` token id of each row, or the row of the latest draw that tells it.
fn row_tokens(batch: &Batch) -> Vec<u32> {
    let word = |token: &RowToken| {
        let (value, mark) = match *token {
            RowToken::Known(id) => (id, 0),
            RowToken::Drawn(row) => (row, DRAWN),
        };
        assert!(value < DRAWN, "a token id or a row of logits in 31 bits");
        value | mark
    };
    batch.tokens.iter().map(word).collect()
}

/// `[rows]` sequence of each row.
fn row_sequences(batch: &Batch) -> Vec<u32> {
    let mut sequences = vec![0; batch.rows()];
    for (sequence, bounds) in batch.seq_indptr.windows(2).enumerate() {
        sequences[bounds[0] as usize..bounds[1] as usize].fill(sequence as u32);
    }
    sequences
}

/// `[pieces, 3]`: first row, rows, slot, of runs of at most [`PIECE_ROWS`]. They start at the
/// segments' starts, so that how a segment is cut depends on its rows alone.
fn pieces(batch: &Batch) -> Vec<u32> {
    let mut pieces = Vec::new();
    for segment in &batch.segments {
        let slot = segment.adapter.map_or(NO_ADAPTER, |slot| slot.0);
        for first in segment.rows.clone().step_by(PIECE_ROWS as usize) {
            pieces.extend([first, PIECE_ROWS.min(segment.rows.end - first), slot]);
        }
    }
    pieces
}

fn extent(batch: &Batch, pieces: u32) -> Extent {
    let longest = |indptr: &[u32]| indptr.windows(2).map(|b| b[1] - b[0]).max().unwrap_or(0);
    let shortest = |indptr: &[u32]| indptr.windows(2).map(|b| b[1] - b[0]).min().unwrap_or(0);
    Extent {
        rows: batch.rows() as u32,
        sequences: batch.sequences() as u32,
        pieces,
        logits: batch.logit_rows.len() as u32,
        longest_part: longest(&batch.seq_indptr),
        shortest_part: shortest(&batch.seq_indptr),
        pages: batch.page_indices.len() as u32,
        longest_pages: longest(&batch.page_indptr),
        has_lora: batch.has_lora(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AdapterSlot, Segment};

    #[test]
    fn pieces_cover_the_rows_and_start_with_their_segments() {
        let segment = |rows, slot: Option<u32>| Segment { rows, adapter: slot.map(AdapterSlot) };
        let segments = vec![segment(0..3, None), segment(3..35, Some(7)), segment(35..52, Some(0))];
        let batch = Batch { segments, ..Batch::default() };
        let expected =
            [[0, 3, NO_ADAPTER], [3, 16, 7], [19, 16, 7], [35, 16, 0], [51, 1, 0]].concat();
        assert_eq!(pieces(&batch), expected);
    }
}
