//! Rotary positions, and keys and values into their pages.
//!
//! A small share of a step, so it stays on the calling thread: that keeps the writes into the
//! pool free of any question of who writes where.

use super::{
    element::{Element, elements_mut, with_element},
    expand::Sum,
    pool::{Half, PageHead, Pool},
    step::Step,
    tensor::Tensor,
};

/// Rotates the queries of `qkv` `[rows, qkv_width]` into `q` `[rows, heads * head_dim]` and
/// stores keys (rotated) and values into the row's place in its page.
pub(super) fn rope_store(
    pool: &mut Pool,
    step: &Step,
    layer: usize,
    qkv: &Sum<'_>,
    q: &mut Tensor,
) {
    let (heads, kv_heads) = (pool.shape().heads, pool.shape().kv_heads);
    let (head_dim, dtype) = (pool.shape().head_dim, pool.shape().dtype);
    assert_eq!(qkv.cols(), pool.shape().qkv_width(), "the fused product's width");
    assert_eq!(q.cols(), heads * head_dim, "the queries' width");
    q.set_rows(qkv.rows());
    let mut key = vec![0.0; head_dim];
    for row in 0..qkv.rows() {
        let angles = step.angles(row);
        let (queries, keys_values) = qkv.row(row).split_at(heads * head_dim);
        let (keys, values) = keys_values.split_at(kv_heads * head_dim);
        for (q, query) in q.row_mut(row).chunks_mut(head_dim).zip(queries.chunks(head_dim)) {
            rotate(query, angles, q);
        }
        let (slab, place) = step.place(row);
        for kv_head in 0..kv_heads {
            let columns = kv_head * head_dim..(kv_head + 1) * head_dim;
            rotate(&keys[columns.clone()], angles, &mut key);
            for (half, head) in [(Half::Key, &*key), (Half::Value, &values[columns])] {
                let page = pool.page_mut(PageHead { slab, layer, half, kv_head });
                with_element!(dtype, E => {
                    let stored = &mut elements_mut::<E>(page)[place * head_dim..][..head_dim];
                    for (stored, &value) in stored.iter_mut().zip(head) {
                        *stored = E::narrow(value);
                    }
                });
            }
        }
    }
}

/// Turns each pair (`i`, `i + pairs`) of a head by its angle; what lies behind is copied.
fn rotate(head: &[f32], angles: &[(f32, f32)], out: &mut [f32]) {
    let pairs = angles.len();
    out[2 * pairs..].copy_from_slice(&head[2 * pairs..]);
    for (i, &(cosine, sine)) in angles.iter().enumerate() {
        let (a, b) = (head[i], head[i + pairs]);
        out[i] = a * cosine - b * sine;
        out[i + pairs] = b * cosine + a * sine;
    }
}
