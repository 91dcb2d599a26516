//! Tokens committed one step late are the tokens committed at once.

use proptest::prelude::*;

use super::*;
use crate::model::tests::tiny_adapter;

/// One request of a random run.
#[derive(Clone, Debug)]
struct Visit {
    /// Step of its arrival.
    at: usize,
    prompt: usize,
    max_tokens: u32,
    /// Which of the adapters, if any.
    adapter: Option<usize>,
    stop_tokens: Vec<u32>,
    logprobs: Option<u32>,
    /// Steps until its stream is dropped.
    dropped_in: Option<usize>,
}

impl Visit {
    fn request(&self, seed: u64, adapters: &[Arc<AdapterImage>]) -> NewSequence {
        let adapter = self.adapter.map(|i| adapters[i].clone());
        let ask = Ask { temperature: 1.0, adapter, ..Ask::new(seed, self.prompt, self.max_tokens) };
        let request = ask.request();
        let sampling = Sampling { logprobs: self.logprobs, ..request.sampling };
        NewSequence { sampling, stop_tokens: self.stop_tokens.clone(), ..request }
    }
}

fn visits() -> impl Strategy<Value = Vec<Visit>> {
    let visit = (
        (0usize..20, 1usize..50, 1u32..25),
        prop::option::of(0usize..3),
        prop::collection::vec(0u32..97, 0..6),
        prop::option::weighted(0.2, 0u32..3),
        prop::option::weighted(0.3, 0usize..12),
    );
    let visit =
        visit.prop_map(|((at, prompt, max_tokens), adapter, stop_tokens, logprobs, drop)| Visit {
            at,
            prompt,
            max_tokens,
            adapter,
            stop_tokens,
            logprobs,
            dropped_in: drop,
        });
    prop::collection::vec(visit, 1..12)
}

/// What each visitor received before it left, and the engine when all have.
fn host(
    rig: Rig,
    visits: &[Visit],
    adapters: &[Arc<AdapterImage>],
) -> (Vec<Vec<TokenOutput>>, Engine<Probe>) {
    let mut engine = rig.engine();
    let mut streams: Vec<Option<TokenStream>> = visits.iter().map(|_| None).collect();
    let mut received = vec![Vec::new(); visits.len()];
    for now in 0..2000 {
        for (i, visit) in visits.iter().enumerate() {
            if visit.at == now {
                streams[i] = Some(engine.enqueue(visit.request(i as u64, adapters)));
            }
            if visit.dropped_in.is_some_and(|steps| visit.at + steps == now) {
                streams[i] = None;
            }
        }
        if now > 40 && engine.scheduler.is_idle() && engine.loads.is_empty() {
            assert!(engine.in_flight.is_none());
            return (received, engine);
        }
        engine.step();
        engine.scheduler.assert_conserved();
        for (stream, received) in streams.iter_mut().zip(&mut received) {
            if let Some(stream) = stream {
                received.extend(std::iter::from_fn(|| stream.try_recv()));
            }
        }
    }
    panic!("the engine never runs dry");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn late_tokens_are_those_of_their_own_step(
        visits in visits(),
        slabs in 14usize..40,
        running in 1usize..8,
        step_tokens in 1usize..40,
        load_delay in 0u32..9,
    ) {
        let adapters: Vec<_> = (1..4).map(|i| tiny_adapter(Dtype::F32, 4, i)).collect();
        let [at_once, late] = BOTH.map(|rig| Rig { slabs, running, step_tokens, ..rig });
        let (expected, _) = host(at_once, &visits, &adapters);
        let late = Rig { load_delay, ..late };
        let (found, engine) = host(late, &visits, &adapters);
        for ((visit, expected), found) in visits.iter().zip(&expected).zip(&found) {
            // Who leaves early may have seen more or fewer.
            let seen = expected.len().min(found.len());
            prop_assert_eq!(&expected[..seen], &found[..seen]);
            prop_assert!(visit.dropped_in.is_some() || expected.len() == found.len());
        }
        let mut status = EngineStatus::default();
        engine.scheduler.report(&mut status);
        prop_assert_eq!((status.running, status.slabs.kv), (0, 0));
        if visits.iter().all(|visit| visit.dropped_in.is_none()) {
            let handed_out: usize = found.iter().map(Vec::len).sum();
            prop_assert_eq!(engine.tokens, handed_out as u64, "an overrun token is not counted");
        }
    }
}

#[test]
fn a_device_that_runs_behind_never_waits_for_its_caller() {
    for rig in BOTH {
        let mut engine = rig.engine();
        let record = engine.model.backend().record();
        assert_eq!(engine.answer(&[Ask::new(1, 4, 10)])[0].len(), 10);
        let record = record.lock().unwrap();
        let behind = if rig.runs_behind { 9 } else { 0 };
        assert_eq!((record.begun_behind, record.drawn_rows, engine.steps), (behind, behind, 10));
    }
}

#[test]
fn what_is_drawn_after_a_stop_token_goes_nowhere() {
    let ask = Ask { temperature: 1.0, ..Ask::new(1, 5, 40) };
    let whole = ROOMY.engine().answer(std::slice::from_ref(&ask)).remove(0);
    let first = whole.iter().position(|&token| token == whole[11]).expect("drawn");
    for rig in BOTH {
        let mut engine = rig.engine();
        let request = NewSequence { stop_tokens: vec![whole[11]], ..ask.request() };
        let stream = engine.enqueue(request);
        engine.run_dry();
        assert_eq!(tokens(stream), whole[..=first]);
        let overrun = u64::from(rig.runs_behind);
        let length = first as u64 + 1;
        assert_eq!((engine.tokens, engine.steps), (length, length + overrun));
    }
}
