//! Matrix products with the weights as checkpoints store them.
//!
//! Threads split the weight rows, and each strip of them meets every activation row while it is
//! in cache, so that weights are read from memory once however many rows the batch has.

use crate::HostMatrix;

use super::{Context, Isa, disjoint::Disjoint, product::Operands, reference, tensor::Tensor};

/// Multiplications that are worth handing to another thread.
const CHUNK_WORK: usize = 1 << 19;
/// Weight rows per chunk: a multiple of what the widest block takes, and few enough that a chunk
/// stays in cache while the activations pass by.
const CHUNK_ROWS: usize = 32;

/// `y = x w^T`: `x` `[rows, in]`, `w` `[out, in]`, `y` `[rows, out]`.
pub(super) fn matmul(cx: &Context, x: &Tensor, w: &HostMatrix, y: &mut Tensor) {
    assert_eq!(x.cols(), w.cols, "the weights' inputs");
    assert_eq!(y.cols(), w.rows, "the weights' outputs");
    y.set_rows(x.rows());
    if cx.path.isa() == Isa::Reference {
        return reference::matmul(x, w, y);
    }
    let operands = Operands::for_matrix(cx.path, x, w.dtype);
    let (rows, row_bytes) = (x.rows(), w.cols * w.dtype.size());
    let chunk = CHUNK_WORK.div_ceil(w.cols * rows.max(1)).next_multiple_of(CHUNK_ROWS);
    let out = Disjoint::new(y.values_mut());
    cx.workers.split(w.rows, chunk, |chunk| {
        let mut block = vec![0.0; rows * CHUNK_ROWS];
        for start in chunk.clone().step_by(CHUNK_ROWS) {
            let outputs = start..chunk.end.min(start + CHUNK_ROWS);
            let weights = &w.data.bytes()[outputs.start * row_bytes..outputs.end * row_bytes];
            let block = &mut block[..rows * outputs.len()];
            operands.multiply(weights, 0..w.cols, block);
            for (row, block) in block.chunks(outputs.len()).enumerate() {
                let first = row * w.rows;
                // SAFETY: `split` gives each output to one thread.
                let y = unsafe { out.part(first + outputs.start..first + outputs.end) };
                y.copy_from_slice(block);
            }
        }
    });
}
