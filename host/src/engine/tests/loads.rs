//! Adapters are copied beside the steps of others, and change nobody's tokens.

use super::*;
use crate::model::tests::tiny_adapter;

/// A base request that runs all along and two with adapters that arrive while it does.
fn asks() -> [Ask; 3] {
    let adapter = |id| Some(tiny_adapter(Dtype::F32, 8, id));
    [
        Ask::new(1, 10, 40),
        Ask { adapter: adapter(1), ..Ask::new(2, 9, 8) },
        Ask { adapter: adapter(2), ..Ask::new(3, 20, 8) },
    ]
}

fn status(engine: &Engine<Probe>) -> EngineStatus {
    let mut status = EngineStatus::default();
    engine.scheduler.report(&mut status);
    engine.loads.report(&mut status.adapters);
    status
}

#[test]
fn others_run_while_an_adapter_is_copied() {
    for rig in SLOW {
        let mut engine = rig.engine();
        let record = engine.model.backend().record();
        let asks = asks();
        let mut base = engine.enqueue(asks[0].request());
        engine.step();
        let late = [1, 2].map(|i| engine.enqueue(asks[i].request()));
        engine.step();
        let seen = status(&engine);
        assert_eq!((seen.running, seen.loading), (1, 2));
        assert!(seen.slabs.adapter_loading > 0 && seen.slabs.adapter_in_use == 0);
        for _ in 0..2 {
            engine.step();
            assert!(base.try_recv().is_some(), "a token each step");
        }
        engine.run_dry();
        assert_eq!(late.map(|stream| tokens(stream).len()), [8, 8]);
        let seen = status(&engine);
        let slabs = asks[1].adapter.as_ref().map_or(0, |image| image.map.slabs as usize);
        assert_eq!((seen.slabs.adapter_loading, seen.slabs.adapter_idle), (0, 2 * slabs));
        let bytes = 2 * slabs * engine.model.slab_bytes();
        assert_eq!((seen.adapters.loaded, seen.adapters.load_bytes), (2, bytes as u64));
        let record = record.lock().unwrap();
        assert!(record.begun_beside_loads >= 4, "{}", record.begun_beside_loads);
        assert_eq!(record.load_waits, 0, "there was always something to do");
    }
}

#[test]
fn nothing_else_to_do_waits_for_the_load() {
    for rig in SLOW {
        let mut engine = rig.engine();
        let record = engine.model.backend().record();
        let ask = asks()[1].clone();
        let stream = engine.enqueue(ask.request());
        engine.step();
        assert_eq!((engine.steps, record.lock().unwrap().load_waits), (0, 1));
        engine.step();
        assert_eq!(engine.steps, 1, "it is there after one wait");
        engine.run_dry();
        assert_eq!(tokens(stream).len(), 8);
        assert_eq!(status(&engine).adapters.load_waits, 1);
    }
}

#[test]
fn what_is_cancelled_during_its_load_leaves_the_adapter_idle() {
    for rig in SLOW {
        let mut engine = rig.engine();
        let ask = asks()[1].clone();
        let base = engine.enqueue(asks()[0].request());
        let stream = engine.enqueue(ask.request());
        engine.step();
        assert_eq!(status(&engine).loading, 1);
        drop(stream);
        engine.step();
        let seen = status(&engine);
        assert_eq!((seen.loading, seen.slabs.adapter_in_use), (0, 0));
        assert!(seen.slabs.adapter_loading > 0, "what is being written is not given away");
        engine.run_dry();
        assert!(status(&engine).slabs.adapter_idle > 0);
        assert_eq!(tokens(base).len(), 40);
        drop(ask);
        let base = engine.enqueue(asks()[0].request());
        engine.run_dry();
        assert_eq!(status(&engine).slabs.adapter_idle, 0, "nobody can ask for it any more");
        assert_eq!(tokens(base).len(), 40);
    }
}

#[test]
fn tokens_do_not_depend_on_how_long_loads_take() {
    let asks: Vec<Ask> = (1..9)
        .map(|i| Ask {
            temperature: 1.0,
            adapter: (i % 4 > 0).then(|| tiny_adapter(Dtype::F32, 8, i % 4)),
            ..Ask::new(i.into(), 5 + 7 * i as usize, 12)
        })
        .collect();
    for rig in BOTH {
        let expected = rig.engine().answer(&asks);
        for load_delay in [1, 2, 5, 30] {
            for slabs in [40, 1200] {
                let mut engine = Rig { load_delay, slabs, ..rig }.engine();
                assert_eq!(engine.answer(&asks), expected, "delay {load_delay}, {slabs} slabs");
            }
        }
    }
}
