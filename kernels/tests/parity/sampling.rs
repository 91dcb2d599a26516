//! Drawing tokens: distribution, cuts, masks, odd logits.

use std::sync::Arc;

use proptest::prelude::*;
use switchyard_kernels::{Backend, SampleRow, Sampled, cpu::Isa};

use crate::{cpu, random::Random, rig::load};

pub(crate) const GREEDY: SampleRow = SampleRow {
    temperature: 0.0,
    top_k: 0,
    top_p: 1.0,
    seed: 0,
    position: 0,
    logprobs: None,
    mask: None,
};

/// Draws once per way, each from the same logits.
pub(crate) fn sample_on<B: Backend>(
    backend: &mut B,
    logits: &[f32],
    rows: &[SampleRow],
) -> Vec<Sampled> {
    let values = logits.repeat(rows.len());
    let logits = load(backend, logits.len(), &values);
    let draw = backend.sample(&logits, rows);
    backend.collect(draw)
}

fn sample(logits: &[f32], rows: &[SampleRow]) -> Vec<Sampled> {
    sample_on(&mut cpu(Isa::best(), 2), logits, rows)
}

fn tokens(logits: &[f32], rows: &[SampleRow]) -> Vec<u32> {
    sample(logits, rows).iter().map(|sampled| sampled.token).collect()
}

/// Draws at many positions.
fn draws(logits: &[f32], how: &SampleRow, count: u64) -> Vec<u32> {
    let rows: Vec<_> = (0..count).map(|position| SampleRow { position, ..how.clone() }).collect();
    tokens(logits, &rows)
}

#[test]
fn greedy_takes_the_best_and_the_lower_id_of_equals() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for (logits, expected) in [
        (&[1.0, 3.0, 2.0][..], 1),
        (&[3.0, 1.0, 3.0], 0),
        (&[nan, 1.0, nan, 2.0], 3),
        (&[nan, nan], 0),
        (&[-inf, -inf, -5.0], 2),
        (&[-inf, -inf], 0),
        (&[0.0, inf, inf], 1),
        (&[-0.0, 0.0], 0),
        (&[7.0], 0),
    ] {
        assert_eq!(tokens(logits, &[GREEDY]), [expected], "{logits:?}");
    }
}

#[test]
fn odd_logits_never_panic() {
    let odd = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 0.0, -0.0];
    for a in odd {
        for b in odd {
            for temperature in [0.0, 1e-30, 1.0, f32::INFINITY, f32::NAN] {
                for top_p in [1e-9, 0.5, 1.0] {
                    let how = SampleRow { temperature, top_p, logprobs: Some(5), ..GREEDY };
                    let sampled = sample(&[a, b, 1.0], &[how]);
                    assert!(sampled[0].token < 3 && sampled[0].top.len() <= 3);
                }
            }
        }
    }
}

#[test]
fn a_mask_binds() {
    let mask: Arc<[u32]> = Arc::new([0b1010_0000, 1 << 3]);
    let logits: Vec<f32> = (0..40).map(|i| i as f32 / 10.0).collect();
    let masked = SampleRow { mask: Some(mask), ..GREEDY };
    assert_eq!(tokens(&logits, std::slice::from_ref(&masked)), [35]);
    let drawn = SampleRow { temperature: 5.0, ..masked.clone() };
    let drawn = draws(&logits, &drawn, 300);
    assert!(drawn.iter().all(|token| [5, 7, 35].contains(token)));
    assert!([5, 7, 35].iter().all(|token| drawn.contains(token)));
    // Nothing allowed has a chance: the lowest allowed id.
    assert_eq!(tokens(&[f32::NEG_INFINITY; 40], std::slice::from_ref(&masked)), [5]);
    // What a short mask does not cover is not allowed.
    let short = SampleRow { mask: Some(Arc::new([1])), ..GREEDY };
    assert_eq!(tokens(&logits, &[short]), [0]);
}

/// Pearson's statistic of draws against probabilities.
fn chi_square(drawn: &[u32], probabilities: &[f64]) -> f64 {
    let term = |(token, &probability): (usize, &f64)| {
        let count = drawn.iter().filter(|&&drawn| drawn as usize == token).count() as f64;
        let expected = probability * drawn.len() as f64;
        (count - expected).powi(2) / expected
    };
    probabilities.iter().enumerate().map(term).sum()
}

#[test]
fn draws_follow_the_distribution() {
    let weights = [0.4, 0.3, 0.15, 0.1, 0.05];
    let logits: Vec<f32> = weights.iter().map(|w: &f64| w.ln() as f32 + 3.0).collect();
    for seed in [1, 2, u64::MAX] {
        let how = SampleRow { temperature: 1.0, seed, ..GREEDY };
        // The 99.9th percentile of four degrees of freedom.
        assert!(chi_square(&draws(&logits, &how, 20_000), &weights) < 18.5);
        // Halving the temperature squares the weights.
        let squares: f64 = weights.iter().map(|w| w * w).sum();
        let sharper: Vec<f64> = weights.iter().map(|w| w * w / squares).collect();
        let how = SampleRow { temperature: 0.5, ..how };
        assert!(chi_square(&draws(&logits, &how, 20_000), &sharper) < 18.5);
        // Two best of five, renormalised: the 99.9th percentile of one degree.
        let how = SampleRow { temperature: 1.0, top_k: 2, ..how };
        let drawn = draws(&logits, &how, 20_000);
        assert!(drawn.iter().all(|&token| token < 2));
        assert!(chi_square(&drawn, &[4.0 / 7.0, 3.0 / 7.0]) < 10.9);
        // 0.4 + 0.3 < 0.8 <= 0.4 + 0.3 + 0.15
        let how = SampleRow { top_k: 0, top_p: 0.8, ..how };
        let drawn = draws(&logits, &how, 2_000);
        assert!((0..3).all(|token| drawn.contains(&token)) && drawn.iter().all(|&t| t < 3));
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_only() {
    let logits = Random(3).values(1000);
    let how = SampleRow { temperature: 1.0, seed: 42, position: 7, ..GREEDY };
    let alone = tokens(&logits, std::slice::from_ref(&how));
    let others = SampleRow { seed: 9, temperature: 2.0, top_k: 5, ..how.clone() };
    assert_eq!(tokens(&logits, &[others.clone(), how.clone(), others])[1], alone[0]);
    let elsewhere = SampleRow { position: 8, ..how };
    assert_ne!(draws(&logits, &elsewhere, 20), vec![alone[0]; 20]);
}

#[test]
fn logprobs_are_of_the_raw_distribution() {
    let logits = [1.0f32, 3.0, f32::NAN, 2.0, f32::NEG_INFINITY];
    let total: f64 = [1.0f64, 3.0, 2.0].iter().map(|logit| logit.exp()).sum();
    let mask: Arc<[u32]> = Arc::new([0b1001]);
    let how =
        SampleRow { temperature: 0.3, top_k: 1, logprobs: Some(9), mask: Some(mask), ..GREEDY };
    let sampled = &sample(&logits, &[how])[0];
    assert_eq!(sampled.token, 3);
    let close = |logprob: f32, logit: f64| (f64::from(logprob) - (logit - total.ln())).abs() < 1e-6;
    assert!(close(sampled.logprob.unwrap(), 2.0));
    let order: Vec<u32> = sampled.top.iter().map(|top| top.token).collect();
    assert_eq!(order, [1, 3, 0]);
    assert!(close(sampled.top[0].logprob, 3.0) && close(sampled.top[2].logprob, 1.0));
}

/// A vocabulary sorted in full, for comparison.
fn kept(logits: &[f32], top_k: usize, top_p: f64) -> Vec<u32> {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    order.truncate(if top_k == 0 { logits.len() } else { top_k });
    let weight = |&token: &usize| f64::from(logits[token]).exp();
    let total: f64 = order.iter().map(weight).sum();
    let mut sum = 0.0;
    let below = order.iter().take_while(|&token| {
        let enough = sum >= top_p * total;
        sum += weight(token);
        !enough
    });
    below.map(|&token| token as u32).collect()
}

proptest! {
    #![proptest_config(crate::cases(24))]

    #[test]
    fn cuts_keep_what_a_full_sort_keeps(
        vocabulary in 1usize..6000,
        top_k in 0usize..400,
        top_p in 0.05f32..1.0,
        seed: u64,
    ) {
        let logits: Vec<f32> =
            Random(seed).values(vocabulary).iter().map(|value| value * 4.0).collect();
        let kept = kept(&logits, top_k, f64::from(top_p) + 1e-5);
        let how = SampleRow { temperature: 1.0, top_k: top_k as u32, top_p, seed, ..GREEDY };
        for token in draws(&logits, &how, 40) {
            prop_assert!(kept.contains(&token));
        }
    }
}

#[test]
fn a_flat_vocabulary_is_cut_in_half() {
    let how = SampleRow { temperature: 1.0, top_p: 0.5, ..GREEDY };
    let drawn = draws(&[0.0; 20_000], &how, 200);
    assert!(drawn.iter().all(|&token| token < 10_001));
    assert!(drawn.iter().any(|&token| token > 8_000));
}
