//! Logits to tokens: mask, temperature, top-k, top-p, draw. The same code on every path, so that
//! equal logits give equal tokens.
//!
//! A NaN logit counts as minus infinity, and a row that allows nothing gives the lowest allowed
//! id. Candidates are ordered by logit, then by lower id; the draw inverts the cumulative
//! distribution in order of ids. Nothing sorts the vocabulary: the best tokens are split off
//! first, more of them only while top-p asks for more.

use std::cmp::Ordering;

use crate::{SampleRow, Sampled, TokenLogprob};

use super::{Context, disjoint::Disjoint, philox::uniform, tensor::Tensor};

/// Candidates that a top-p cut looks at first.
const TOP_P_FIRST: usize = 256;

/// Draws one token per row of `logits` `[rows, vocabulary]`.
pub(super) fn sample(cx: &Context, logits: &Tensor, rows: &[SampleRow]) -> Vec<Sampled> {
    if rows.is_empty() {
        return Vec::new();
    }
    assert_eq!(logits.rows(), rows.len(), "one way to sample per row of logits");
    let mut sampled = vec![Sampled { token: 0, logprob: None, top: Vec::new() }; rows.len()];
    let out = Disjoint::new(&mut sampled);
    cx.workers.split(rows.len(), 1, |range| {
        // SAFETY: `split` gives each row to one thread.
        let out = unsafe { out.part(range.clone()) };
        for (out, row) in out.iter_mut().zip(range) {
            *out = sample_row(logits.row(row), &rows[row]);
        }
    });
    sampled
}

#[derive(Clone, Copy)]
struct Candidate {
    token: u32,
    /// Above minus infinity.
    logit: f32,
}

impl Candidate {
    /// Best first.
    fn order(a: &Self, b: &Self) -> Ordering {
        b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token))
    }
}

fn sample_row(logits: &[f32], row: &SampleRow) -> Sampled {
    let allowed = |token: u32| {
        row.mask.as_ref().is_none_or(|mask| {
            mask.get(token as usize / 32).is_some_and(|word| word >> (token % 32) & 1 == 1)
        })
    };
    let candidates: Vec<Candidate> = finite(logits).filter(|c| allowed(c.token)).collect();
    let best = candidates.iter().min_by(|a, b| Candidate::order(a, b)).copied();
    let token = match best {
        None => (0..logits.len() as u32).find(|&token| allowed(token)).unwrap_or(0),
        Some(best) if row.temperature > 0.0 => draw(candidates, best.logit, row),
        Some(best) => best.token,
    };
    match row.logprobs {
        None => Sampled { token, logprob: None, top: Vec::new() },
        Some(count) => with_logprobs(logits, token, count as usize),
    }
}

/// Tokens with a logit above minus infinity, in order of ids.
fn finite(logits: &[f32]) -> impl Iterator<Item = Candidate> {
    let candidate = |(token, &logit): (usize, &f32)| Candidate {
        token: token as u32,
        // Plus infinity would make differences NaN; minus zero would sort below zero.
        logit: logit.min(f32::MAX) + 0.0,
    };
    let above = |(_, logit): &(usize, &f32)| **logit > f32::NEG_INFINITY;
    logits.iter().enumerate().filter(above).map(candidate)
}

/// Draws among candidates in order of ids, of which `best` is the highest logit.
fn draw(mut candidates: Vec<Candidate>, best: f32, row: &SampleRow) -> u32 {
    let weight = |c: &Candidate| f64::from(((c.logit - best) / row.temperature).exp());
    let top_k = row.top_k as usize;
    let cut_k = (1..candidates.len()).contains(&top_k);
    if cut_k {
        split_best(&mut candidates, top_k);
        candidates.truncate(top_k);
    }
    if row.top_p < 1.0 {
        let count = nucleus(&mut candidates, row.top_p, weight);
        candidates.truncate(count);
    }
    if cut_k || row.top_p < 1.0 {
        candidates.sort_unstable_by_key(|c| c.token);
    }
    let total: f64 = candidates.iter().map(weight).sum();
    let target = uniform(row.seed, row.position) * total;
    let mut sum = 0.0;
    let mut last = candidates[0].token;
    for candidate in &candidates {
        let weight = weight(candidate);
        if weight > 0.0 {
            last = candidate.token;
        }
        sum += weight;
        if sum > target {
            break;
        }
    }
    last
}

/// Moves the best `count` candidates to the front, best first.
fn split_best(candidates: &mut [Candidate], count: usize) {
    if count < candidates.len() {
        candidates.select_nth_unstable_by(count, Candidate::order);
    }
    let count = count.min(candidates.len());
    candidates[..count].sort_unstable_by(Candidate::order);
}

/// Moves the smallest set of best candidates that holds `top_p` of the weight to the front and
/// returns its size, at least 1.
fn nucleus(candidates: &mut [Candidate], top_p: f32, weight: impl Fn(&Candidate) -> f64) -> usize {
    let wanted = f64::from(top_p) * candidates.iter().map(&weight).sum::<f64>();
    let mut first = TOP_P_FIRST;
    loop {
        split_best(candidates, first);
        let mut sum = 0.0;
        for (i, candidate) in candidates.iter().take(first).enumerate() {
            sum += weight(candidate);
            if sum >= wanted {
                return i + 1;
            }
        }
        if first >= candidates.len() {
            return candidates.len();
        }
        first *= 8;
    }
}

/// Adds log-probabilities of the raw distribution to a drawn token.
fn with_logprobs(logits: &[f32], token: u32, count: usize) -> Sampled {
    let mut candidates: Vec<Candidate> = finite(logits).collect();
    let best = candidates.iter().map(|c| c.logit).fold(f32::NEG_INFINITY, f32::max);
    let total: f64 = candidates.iter().map(|c| f64::from((c.logit - best).exp())).sum();
    let logprob = |c: &Candidate| (f64::from(c.logit - best) - total.ln()) as f32;
    let own = candidates.iter().find(|c| c.token == token).map_or(f32::NEG_INFINITY, logprob);
    split_best(&mut candidates, count);
    let top = candidates.iter().take(count);
    let top = top.map(|c| TokenLogprob { token: c.token, logprob: logprob(c) }).collect();
    Sampled { token, logprob: Some(own), top }
}
