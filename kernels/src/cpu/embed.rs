//! Token ids to rows of the embedding table.

use crate::HostMatrix;

use super::{
    element::{Element, elements, with_element},
    step::Step,
    tensor::Tensor,
};

/// `out[row] = table[token of row]`: `table` `[vocabulary, hidden]`, `out` `[rows, hidden]`.
pub(super) fn embed(step: &Step, table: &HostMatrix, out: &mut Tensor) {
    assert_eq!(table.cols, out.cols(), "the embedding's width is the hidden width");
    out.set_rows(step.batch.rows());
    with_element!(table.dtype, E => {
        let weights = elements::<E>(table.data.bytes());
        for (row, &token) in step.tokens.iter().enumerate() {
            let weights = &weights[token as usize * table.cols..][..table.cols];
            for (out, weight) in out.row_mut(row).iter_mut().zip(weights) {
                *out = weight.widen();
            }
        }
    });
}
