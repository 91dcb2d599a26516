//! What a request computes does not depend on the company it is computed in.

use super::*;
use crate::model::tests::tiny_adapter;

/// One base request and one for each of 16 adapters of ranks 4 to 64.
fn mixed(dtype: Dtype) -> Vec<Ask> {
    let ranks = [4, 8, 16, 24, 32, 40, 64, 12, 3, 48, 16, 8, 4, 64, 20, 56];
    let mut asks = vec![Ask::new(100, 21, 6)];
    for (i, rank) in ranks.into_iter().enumerate() {
        let adapter = Some(tiny_adapter(dtype, rank, i as u8 + 1));
        asks.push(Ask { adapter, ..Ask::new(i as u64 + 1, 3 + 5 * i, 6) });
    }
    asks
}

/// Asserts that each request, run on its own in `alone` and committed at once, gives the same
/// tokens and the same bytes of logits as all of them in `together`.
fn check(asks: &[Ask], alone: Rig, together: Rig) -> Engine<Probe> {
    let mut engine = together.engine();
    let shared = engine.model.backend().record();
    let answers = engine.answer(asks);
    for (ask, answer) in asks.iter().zip(answers) {
        let mut single = Rig { runs_behind: false, ..alone }.engine();
        assert_eq!(single.answer(std::slice::from_ref(ask)), [answer], "seed {}", ask.seed);
        let shared = &shared.lock().unwrap().logits;
        let record = single.model.backend().record();
        for (draw, logits) in &record.lock().unwrap().logits {
            assert_eq!(Some(logits), shared.get(draw), "logits of (seed, position) {draw:?}");
        }
    }
    engine
}

#[test]
fn a_row_among_17_adapters_equals_the_request_alone() {
    for rig in BOTH {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            for dtype in [Dtype::F32, Dtype::Bf16] {
                let rig = Rig { isa, dtype, ..rig };
                let mut asks = mixed(dtype);
                if isa == Isa::Reference {
                    asks.truncate(6);
                }
                check(&asks, rig, rig);
            }
        }
    }
}

#[test]
fn chunked_prefill_equals_whole_prefill() {
    for rig in BOTH {
        for isa in [Isa::Portable, Isa::best()] {
            let whole = Rig { isa, dtype: Dtype::Bf16, step_tokens: 128, ..rig };
            for step_tokens in [1, 7, 16, 33] {
                let chunked = Rig { step_tokens, ..whole };
                let adapter = Some(tiny_adapter(Dtype::Bf16, 24, 1));
                check(&[Ask { adapter, ..Ask::new(1, 100, 4) }], whole, chunked);
            }
        }
    }
}

#[test]
fn preempted_equals_not_preempted() {
    for rig in BOTH.into_iter().chain(SLOW) {
        let roomy = Rig { isa: Isa::best(), dtype: Dtype::Bf16, ..rig };
        let tight = Rig { slabs: 14, ..roomy };
        let adapter = Some(tiny_adapter(Dtype::Bf16, 4, 1));
        let asks = [
            Ask { adapter, ..Ask::new(1, 10, 70) },
            Ask::new(2, 12, 70),
            Ask { temperature: 0.8, ..Ask::new(3, 20, 60) },
        ];
        let engine = check(&asks, roomy, tight);
        let mut status = EngineStatus::default();
        engine.scheduler.report(&mut status);
        assert!(status.preemptions > 0, "the pool was tight");
    }
}

#[test]
fn the_same_seed_gives_the_same_tokens_in_any_batch() {
    for rig in BOTH.into_iter().chain(SLOW) {
        let asks: Vec<Ask> =
            (1..12).map(|i| Ask { temperature: 1.0, ..Ask::new(i, 4 + i as usize, 12) }).collect();
        check(&asks, rig, Rig { step_tokens: 9, ..rig });
        let other_seed = NewSequence {
            sampling: Sampling { temperature: 1.0, seed: 77, ..Sampling::greedy() },
            ..asks[0].request()
        };
        let mut engine = rig.engine();
        let (first, second) = (engine.enqueue(asks[0].request()), engine.enqueue(other_seed));
        engine.run_dry();
        assert_ne!(tokens(first), tokens(second), "the seed matters");
    }
}

#[test]
fn an_adapter_that_was_evicted_and_loaded_again_gives_the_same_answer() {
    for rig in BOTH.into_iter().chain(SLOW) {
        let rig = Rig { slabs: 40, ..rig };
        let mut engine = rig.engine();
        let asks: Vec<Ask> = (1..6)
            .map(|i| Ask { adapter: Some(tiny_adapter(Dtype::F32, 16, i)), ..Ask::new(9, 8, 5) })
            .collect();
        let mut answer = |i: usize| engine.answer(&asks[i..=i]);
        let first: Vec<_> = (0..5).map(&mut answer).collect();
        let again: Vec<_> = (0..5).map(&mut answer).collect();
        assert_eq!(first, again);
        let mut status = EngineStatus::default();
        engine.scheduler.report(&mut status);
        assert!(status.adapters.loads > 5, "the pool does not hold all five");
        assert!(first.windows(2).all(|pair| pair[0] != pair[1]), "adapters matter");
    }
}
