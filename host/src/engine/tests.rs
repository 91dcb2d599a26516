//! The engine on tiny random models, stepped by hand and on its thread.

mod late;
mod life;
mod loads;
mod truths;

use std::sync::{Arc, Mutex, atomic::AtomicUsize};

use switchyard_kernels::{Dtype, cpu::Isa};

use super::{
    sequence::{Arrival, Place},
    *,
};
use crate::model::{
    AdapterImage,
    tests::{
        probe::{Probe, Record},
        tiny, tiny_model,
    },
};

/// Room for everything a test runs at once.
const ROOMY: Rig = Rig {
    isa: Isa::Portable,
    runs_behind: false,
    load_delay: 0,
    dtype: Dtype::F32,
    slabs: 1200,
    running: 32,
    step_tokens: 64,
};
/// Tokens committed in their own step, and one step late.
const BOTH: [Rig; 2] = [ROOMY, Rig { runs_behind: true, ..ROOMY }];
/// The same, with loads that take several steps.
const SLOW: [Rig; 2] = [Rig { load_delay: 7, ..BOTH[0] }, Rig { load_delay: 7, ..BOTH[1] }];

/// What an engine under test is made of.
#[derive(Clone, Copy)]
struct Rig {
    isa: Isa,
    runs_behind: bool,
    load_delay: u32,
    dtype: Dtype,
    slabs: usize,
    running: usize,
    step_tokens: usize,
}

impl Rig {
    fn limits(&self) -> EngineLimits {
        let slab_bytes = tiny().attention_shape(self.dtype).slab_bytes();
        let pool_bytes = Some(self.slabs * slab_bytes);
        let (max_running, max_step_tokens) = (self.running, self.step_tokens);
        EngineLimits { pool_bytes, max_running, max_step_tokens, max_waiting: 64 }
    }

    fn model(&self) -> Model<Probe> {
        let probe = if self.runs_behind { Probe::behind(self.isa) } else { Probe::new(self.isa) };
        let probe = probe.with_load_delay(self.load_delay);
        tiny_model(probe, self.dtype, self.limits().model())
    }

    fn engine(&self) -> Engine<Probe> {
        Engine::new(self.model(), self.limits()).expect("fits")
    }

    fn spawn(&self) -> (EngineHandle, Arc<Mutex<Record>>) {
        let model = self.model();
        let record = model.backend().record();
        (Engine::spawn(|| Ok(model), self.limits()).expect("starts"), record)
    }
}

/// A request told from others by its seed.
#[derive(Clone)]
struct Ask {
    seed: u64,
    prompt: usize,
    max_tokens: u32,
    temperature: f32,
    adapter: Option<Arc<AdapterImage>>,
}

impl Ask {
    fn new(seed: u64, prompt: usize, max_tokens: u32) -> Self {
        Self { seed, prompt, max_tokens, temperature: 0.0, adapter: None }
    }

    fn request(&self) -> NewSequence {
        let token = |i: usize| ((self.seed as usize * 31 + i * 7) % tiny().vocabulary) as u32;
        let (seed, temperature) = (self.seed, self.temperature);
        NewSequence {
            prompt: (0..self.prompt).map(token).collect(),
            adapter: self.adapter.clone(),
            sampling: Sampling { temperature, seed, ..Sampling::greedy() },
            max_tokens: self.max_tokens,
            stop_tokens: Vec::new(),
        }
    }
}

impl Engine<Probe> {
    fn enqueue(&mut self, request: NewSequence) -> TokenStream {
        let (output, stream) = TokenStream::with_room(request.max_tokens as usize);
        let place = Place::take(&Arc::new(AtomicUsize::new(0)), 1).expect("free");
        self.scheduler.enqueue(Arrival { request, output, place });
        stream
    }

    /// Steps until nothing is left, checking the invariants after each.
    fn run_dry(&mut self) {
        for _ in 0..2000 {
            if self.scheduler.is_idle() && self.loads.is_empty() {
                assert!(self.in_flight.is_none());
                return;
            }
            self.step();
            self.scheduler.assert_conserved();
        }
        panic!("the engine never runs dry");
    }

    /// Runs all of them together; tokens of each.
    fn answer(&mut self, asks: &[Ask]) -> Vec<Vec<u32>> {
        let streams: Vec<_> = asks.iter().map(|ask| self.enqueue(ask.request())).collect();
        self.run_dry();
        streams.into_iter().map(tokens).collect()
    }
}

/// Everything a finished stream holds.
fn tokens(mut stream: TokenStream) -> Vec<u32> {
    let mut tokens = Vec::new();
    while let Some(output) = stream.try_recv() {
        tokens.push(output.token);
    }
    tokens
}
