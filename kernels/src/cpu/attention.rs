//! Causal attention over pages.

use super::{Context, reference, tensor::Tensor};

/// `out = softmax(q k^T / sqrt(head_dim)) v` over each row's own sequence up to its position:
/// `q`, `out` `[rows, heads * head_dim]`.
pub(super) fn attention(cx: &Context, layer: usize, q: &Tensor, out: &mut Tensor) {
    let shape = cx.pool.shape();
    assert_eq!(q.cols(), shape.heads * shape.head_dim, "the queries' width");
    assert_eq!(q.cols(), out.cols(), "attention keeps the width");
    out.set_rows(q.rows());
    reference::attention(cx, layer, q, out);
}
