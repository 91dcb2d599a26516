//! The oracle: every operation that has fast paths, as plain loops that accumulate in `f64`.
//!
//! This is what [`super::Isa::Reference`] runs and what parity tests compare the other paths
//! with, so clarity comes before speed and nothing here is shared with them but addresses.

use crate::{Backend, PAGE_TOKENS, Pending, Site};

use super::{
    Context, Cpu,
    element::{operand, widened},
    expand::Sum,
    pool::{Half, PageHead},
    tensor::Tensor,
};

type Matrix = <Cpu as Backend>::Matrix;

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
}

/// `y = x w^T`
pub(super) fn matmul(x: &Tensor, w: &Matrix, y: &mut Tensor) {
    let x_seen: Vec<f32> = x.values().iter().map(|&x| operand(w.dtype, x)).collect();
    let row_bytes = w.cols * w.dtype.size();
    for output in 0..w.rows {
        let weights = widened(w.dtype, &w.data.bytes()[output * row_bytes..][..row_bytes]);
        for row in 0..x.rows() {
            y.row_mut(row)[output] = dot(&x_seen[row * w.cols..][..w.cols], &weights) as f32;
        }
    }
}

/// `out = scale * x A^T` for the linears of a site.
pub(super) fn shrink(cx: &Context, x: &Tensor, (layer, site): (usize, Site), out: &mut Tensor) {
    for segment in &cx.step.batch.segments {
        let Some(slot) = segment.adapter else { continue };
        let adapter = cx.pool.adapter(slot);
        for row in segment.rows.start as usize..segment.rows.end as usize {
            let seen: Vec<f32> =
                x.row(row).iter().map(|&x| operand(adapter.map.dtype, x)).collect();
            let mut first = 0;
            for &linear in site.linears() {
                let Some(tiles) = adapter.map.linear(layer, linear) else { continue };
                let mut sums = vec![0.0; tiles.padded_rank as usize];
                for tile in &tiles.a {
                    let weights = widened(adapter.map.dtype, cx.pool.tile(adapter, tile));
                    let inputs = &seen[tile.long.start as usize..tile.long.end as usize];
                    for (rank, weights) in tile.ranks.clone().zip(weights.chunks(inputs.len())) {
                        sums[rank as usize] += dot(inputs, weights);
                    }
                }
                for (rank, sum) in sums.iter().enumerate() {
                    out.row_mut(row)[first + rank] = (sum * f64::from(tiles.scale)) as f32;
                }
                first += sums.len();
            }
        }
    }
}

/// `sum = y + bias + delta`, all rows.
pub(super) fn expand(cx: &Context, pending: &Pending<'_, Cpu>, sum: &mut Tensor) {
    let y = pending.y;
    sum.reshape(y.rows(), y.cols());
    for row in 0..y.rows() {
        for (output, sum) in sum.row_mut(row).iter_mut().enumerate() {
            *sum = y.row(row)[output] + pending.bias.map_or(0.0, |bias| bias[output]);
        }
    }
    let Some(delta) = &pending.delta else { return };
    for segment in &cx.step.batch.segments {
        let Some(slot) = segment.adapter else { continue };
        let adapter = cx.pool.adapter(slot);
        let (mut first_rank, mut first_output) = (0, 0);
        for &linear in delta.site.linears() {
            if let Some(tiles) = adapter.map.linear(delta.layer, linear) {
                for tile in &tiles.b {
                    let weights = widened(adapter.map.dtype, cx.pool.tile(adapter, tile));
                    for (output, weights) in tile.long.clone().zip(weights.chunks(tile.ranks.len()))
                    {
                        for row in segment.rows.clone() {
                            let s = &delta.shrunk.row(row as usize)[first_rank..];
                            let s = &s[tile.ranks.start as usize..tile.ranks.end as usize];
                            sum.row_mut(row as usize)[first_output + output as usize] +=
                                dot(s, weights) as f32;
                        }
                    }
                }
                first_rank += tiles.padded_rank as usize;
            }
            first_output += cx.width(delta.site, linear, y.cols());
        }
    }
}

/// `out = residual / sqrt(mean(residual^2) + eps) * weight`
pub(super) fn norm(residual: &Tensor, (weight, eps): (&[f32], f32), out: &mut Tensor) {
    for row in 0..residual.rows() {
        let x = residual.row(row);
        let scale = 1.0 / (dot(x, x) / x.len() as f64 + f64::from(eps)).sqrt();
        for (out, (&x, &weight)) in out.row_mut(row).iter_mut().zip(x.iter().zip(weight)) {
            *out = (f64::from(x) * scale * f64::from(weight)) as f32;
        }
    }
}

/// `out = softmax(q k^T / sqrt(head_dim)) v`, causal.
pub(super) fn attention(cx: &Context, layer: usize, q: &Tensor, out: &mut Tensor) {
    let shape = cx.pool.shape();
    let (head_dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
    let token = |row: usize, position: usize, head: usize, half: Half| {
        let slab = cx.step.pages(cx.step.sequences[row] as usize)[position / PAGE_TOKENS];
        let page = cx.pool.page(PageHead { slab, layer, half, kv_head: head / group });
        let bytes = head_dim * shape.dtype.size();
        widened(shape.dtype, &page[position % PAGE_TOKENS * bytes..][..bytes])
    };
    for row in 0..q.rows() {
        for head in 0..shape.heads {
            let columns = head * head_dim..(head + 1) * head_dim;
            let query = &q.row(row)[columns.clone()];
            let score = |position| dot(query, &token(row, position, head, Half::Key));
            let scale = 1.0 / (head_dim as f64).sqrt();
            let positions = 0..=cx.step.batch.positions[row] as usize;
            let scores: Vec<f64> = positions.map(|position| score(position) * scale).collect();
            let best = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - best).exp()).collect();
            let total: f64 = weights.iter().sum();
            let mut mean = vec![0.0; head_dim];
            for (position, weight) in weights.iter().enumerate() {
                for (mean, value) in mean.iter_mut().zip(token(row, position, head, Half::Value)) {
                    *mean += weight / total * f64::from(value);
                }
            }
            for (out, mean) in out.row_mut(row)[columns].iter_mut().zip(mean) {
                *out = mean as f32;
            }
        }
    }
}

/// `out = silu(gate) * up`
pub(super) fn activate(gate_up: &Sum<'_>, out: &mut Tensor) {
    for row in 0..gate_up.rows() {
        let (gate, up) = gate_up.row(row).split_at(gate_up.cols() / 2);
        for (out, (&gate, &up)) in out.row_mut(row).iter_mut().zip(gate.iter().zip(up)) {
            let gate = f64::from(gate);
            *out = (gate / (1.0 + (-gate).exp()) * f64::from(up)) as f32;
        }
    }
}
