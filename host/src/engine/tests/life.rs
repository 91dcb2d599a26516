//! How sequences and the engine end: finish, cancellation, refusal, failure, shutdown.

use super::*;
use crate::model::tests::tiny_adapter;

/// Waits for all of a stream: tokens and why it finished.
fn collect(mut stream: TokenStream) -> (Vec<u32>, Option<FinishReason>) {
    let (mut tokens, mut finish) = (Vec::new(), None);
    while let Some(output) = stream.blocking_recv() {
        tokens.push(output.token);
        finish = output.finish;
    }
    (tokens, finish)
}

#[test]
fn a_stop_token_is_reported_last() {
    for rig in BOTH {
        let (engine, _) = rig.spawn();
        let ask = Ask { temperature: 1.0, ..Ask::new(1, 5, 40) };
        let (whole, finish) = collect(engine.submit(ask.request()).expect("room"));
        assert_eq!((whole.len(), finish), (40, Some(FinishReason::Length)));
        let stop = whole[11];
        let first = whole.iter().position(|&token| token == stop).expect("drawn");
        let request = NewSequence { stop_tokens: vec![stop], ..ask.request() };
        let (stopped, finish) = collect(engine.submit(request).expect("room"));
        assert_eq!((&stopped[..], finish), (&whole[..=first], Some(FinishReason::Stop)));
    }
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    for rig in BOTH {
        let mut engine = rig.engine();
        let record = engine.model.backend().record();
        let request = Ask::new(1, 5, 1).request();
        let sampling = Sampling { logprobs: Some(3), seed: 1, ..Sampling::greedy() };
        let mut stream = engine.enqueue(NewSequence { sampling, ..request });
        engine.run_dry();
        let output = stream.try_recv().expect("one token");
        let bits = record.lock().unwrap().logits[&(1, 5)].clone();
        let logits: Vec<f64> = bits.iter().map(|&bits| f32::from_bits(bits).into()).collect();
        let total: f64 = logits.iter().map(|x| x.exp()).sum();
        let mut expected: Vec<f64> = logits.iter().map(|x| (x.exp() / total).ln()).collect();
        let of_token = expected[output.token as usize];
        assert!((f64::from(output.logprob.expect("asked")) - of_token).abs() < 1e-5);
        expected.sort_by(|a, b| b.total_cmp(a));
        assert_eq!(output.top.len(), 3);
        assert_eq!(output.top[0].token, output.token, "greedy");
        for (top, expected) in output.top.iter().zip(expected) {
            assert!((f64::from(top.logprob) - expected).abs() < 1e-5);
        }
    }
}

#[test]
fn traffic_counts_an_adapter_once_a_step_and_every_sequence_s_keys() {
    for rig in BOTH {
        let mut engine = rig.engine();
        let adapter = tiny_adapter(Dtype::F32, 4, 1);
        let shared = |seed| Ask { adapter: Some(adapter.clone()), ..Ask::new(seed, 5, 3) };
        engine.answer(&[shared(1), shared(2), Ask::new(3, 7, 3)]);
        // Three steps: prompts of 5, 5 and 7 tokens, then one token more in each.
        let kv_tokens = (17 + 20 + 23) as u64;
        let adapter_slabs = 3 * u64::from(adapter.map.slabs);
        assert_eq!(engine.traffic, Traffic { kv_tokens, adapter_slabs });
    }
}

#[test]
fn cancellation_at_any_step_frees_everything_at_the_next() {
    for rig in BOTH.into_iter().chain(SLOW) {
        let adapter = Some(tiny_adapter(Dtype::F32, 8, 1));
        for steps in 0..12 {
            let mut engine = Rig { step_tokens: 8, ..rig }.engine();
            let kept = engine.enqueue(Ask::new(1, 20, 12).request());
            let ask = Ask { adapter: adapter.clone(), ..Ask::new(2, 30, 6) };
            let dropped = engine.enqueue(ask.request());
            (0..steps).for_each(|_| engine.step());
            drop(dropped);
            engine.step();
            assert!(engine.scheduler.running().len() <= 1, "after {steps} steps");
            assert!(engine.scheduler.running().iter().all(|sequence| sequence.slot.is_none()));
            engine.scheduler.assert_conserved();
            engine.run_dry();
            assert_eq!(tokens(kept).len(), 12);
            let mut status = EngineStatus::default();
            engine.scheduler.report(&mut status);
            assert_eq!((status.running, status.slabs.kv), (0, 0));
        }
    }
}

#[test]
fn refusals_say_what_does_not_fit() {
    let (engine, _) = Rig { slabs: 4, ..ROOMY }.spawn();
    let refusal = |ask: Ask| engine.submit(ask.request()).err();
    assert_eq!(refusal(Ask::new(1, 60, 5)), None);
    let too_large = |needed| Some(SubmitError::TooLarge { needed, slabs: 4 });
    assert_eq!(refusal(Ask::new(1, 60, 6)), too_large(5));
    let image = tiny_adapter(Dtype::F32, 8, 1);
    let needed = image.map.slabs as usize + 1;
    assert_eq!(refusal(Ask { adapter: Some(image), ..Ask::new(1, 1, 1) }), too_large(needed));
    let too_long = SubmitError::TooLong { tokens: 513, max_positions: 512 };
    assert_eq!(refusal(Ask::new(1, 500, 13)), Some(too_long));
}

#[test]
fn a_full_queue_refuses_and_recovers() {
    for rig in BOTH {
        let limits = EngineLimits { max_waiting: 2, max_running: 1, ..rig.limits() };
        let model = Rig { running: 1, ..rig }.model();
        let engine = Engine::spawn(|| Ok(model), limits).expect("starts");
        let mut refused = 0;
        let mut streams = Vec::new();
        for seed in 0..50 {
            match engine.submit(Ask::new(seed, 10, 20).request()) {
                Ok(stream) => streams.push(stream),
                Err(error) => {
                    assert_eq!(error, SubmitError::QueueFull);
                    refused += 1;
                }
            }
        }
        assert!(refused > 0, "two may wait");
        for stream in streams {
            assert_eq!(collect(stream).0.len(), 20);
        }
        assert_eq!(engine.status().waiting, 0);
        assert!(engine.submit(Ask::new(1, 1, 1).request()).is_ok());
    }
}

#[test]
fn a_failing_device_ends_every_stream_and_says_why() {
    for rig in BOTH {
        let (engine, record) = rig.spawn();
        record.lock().unwrap().fail_in = Some(3);
        let streams = [1, 2, 3].map(|seed| engine.submit(Ask::new(seed, 10, 50).request()));
        for stream in streams.into_iter().flatten() {
            assert_eq!(collect(stream).1, None, "no finish");
        }
        let failed = engine.status().failed.expect("posted before the streams end");
        assert!(failed.contains("the device was lost"), "{failed}");
        engine.shutdown();
        assert_eq!(engine.status().waiting, 0);
        assert_eq!(engine.submit(Ask::new(1, 1, 1).request()).err(), Some(SubmitError::Stopped));
    }
}

#[test]
fn shutdown_ends_open_streams_without_finish() {
    for rig in BOTH {
        let (engine, _) = rig.spawn();
        let stream = engine.submit(Ask::new(1, 10, 400).request()).expect("room");
        engine.clone().shutdown();
        let (tokens, finish) = collect(stream);
        assert!(finish.is_none() || tokens.len() == 400);
        assert_eq!(engine.submit(Ask::new(1, 1, 1).request()).err(), Some(SubmitError::Stopped));
        assert_eq!(engine.status().failed, None);
    }
}

#[test]
fn a_model_that_does_not_load_is_an_error() {
    let load = || Err(DeviceError::Unavailable("no such device".into()));
    let error = Engine::<Probe>::spawn(load, ROOMY.limits()).err().expect("refused");
    assert_eq!(error.to_string(), "no such device");
    let model = ROOMY.model();
    let limits = EngineLimits { pool_bytes: Some(100), ..ROOMY.limits() };
    let error = Engine::spawn(|| Ok(model), limits).err().expect("refused");
    assert!(error.to_string().contains("0 pool slabs of 8192 bytes"), "{error}");
}
