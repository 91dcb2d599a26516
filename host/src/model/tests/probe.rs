//! The CPU backend under observation: counts what LoRA costs, keeps the logits that tokens were
//! drawn from and fails on demand. It can play a device that runs behind: then it hands a step's
//! tokens out only when they are collected, and sees that nothing of a step is overwritten before.
//! And it can play one whose loads take their time: then an image's slabs hold nothing of use until
//! the load is complete, and nobody may touch them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex},
    time::Duration,
};

use switchyard_kernels::{
    AdapterSlot, AttentionShape, Backend, Batch, Delta, DeviceError, DeviceMemory, HostBuffer,
    HostMemory, MatrixSource, Pending, ResidentAdapter, RowToken, SampleRow, Sampled, Site,
    cpu::{Cpu, Isa},
};

/// What a [`Probe`] saw.
#[derive(Default)]
pub(crate) struct Record {
    /// Calls of `shrink`.
    pub(crate) shrinks: usize,
    /// Pending products that carried a delta.
    pub(crate) deltas: usize,
    /// Bits of the logits by `(seed, position)` of the draw.
    pub(crate) logits: BTreeMap<(u64, u64), Vec<u32>>,
    /// Steps until one panics.
    pub(crate) fail_in: Option<usize>,
    /// Steps begun while the draw of the one before was not collected.
    pub(crate) begun_behind: usize,
    /// Rows whose token was not known yet.
    pub(crate) drawn_rows: usize,
    /// Steps begun while an image was being copied.
    pub(crate) begun_beside_loads: usize,
    /// Times that somebody waited for a load.
    pub(crate) load_waits: usize,
}

/// Slabs and slots of a step.
#[derive(Clone, Default)]
struct Uses {
    pages: Vec<u32>,
    slots: Vec<AdapterSlot>,
    /// Slabs of the adapters in `slots`.
    adapters: Vec<u32>,
}

/// A step whose draw has not been collected.
struct InFlight {
    number: u64,
    uses: Uses,
    sampled: Vec<Sampled>,
}

/// An image that is being copied.
struct Writing {
    number: u64,
    image: Arc<HostBuffer>,
    slabs: Vec<u32>,
    /// Times that it is still asked after in vain.
    delay: u32,
}

/// The number of a load.
pub(crate) struct ProbeLoad(u64);

/// The number of a step whose tokens are kept back.
pub(crate) struct ProbeDraw(u64);

/// A [`Cpu`] that keeps a [`Record`].
pub(crate) struct Probe {
    inner: Cpu,
    record: Arc<Mutex<Record>>,
    runs_behind: bool,
    /// Times that each load is asked after in vain.
    load_delay: u32,
    slab_bytes: usize,
    /// Loads so far.
    loads: u64,
    /// Loads under way, oldest first.
    writing: VecDeque<Writing>,
    /// Draws so far.
    draws: u64,
    /// `[logits]` tokens of the latest draw.
    drawn: Vec<u32>,
    /// Slabs of each slot's adapter.
    bound: BTreeMap<AdapterSlot, Vec<u32>>,
    /// Of the step that was begun last.
    uses: Uses,
    /// Oldest first.
    in_flight: VecDeque<InFlight>,
}

impl Probe {
    pub(crate) fn new(isa: Isa) -> Self {
        Self {
            inner: Cpu::new(isa, 2).expect("an available path"),
            record: Arc::default(),
            runs_behind: false,
            load_delay: 0,
            slab_bytes: 0,
            loads: 0,
            writing: VecDeque::new(),
            draws: 0,
            drawn: Vec::new(),
            bound: BTreeMap::new(),
            uses: Uses::default(),
            in_flight: VecDeque::new(),
        }
    }

    pub(crate) fn behind(isa: Isa) -> Self {
        Self { runs_behind: true, ..Self::new(isa) }
    }

    pub(crate) fn with_load_delay(self, load_delay: u32) -> Self {
        Self { load_delay, ..self }
    }

    /// Completes loads up to that one.
    fn write(&mut self, number: u64) {
        while self.writing.front().is_some_and(|first| first.number <= number) {
            let Some(Writing { image, slabs, .. }) = self.writing.pop_front() else { return };
            let load = self.inner.load(image, &slabs);
            assert!(self.inner.loaded(&load).is_some());
        }
    }

    pub(crate) fn record(&self) -> Arc<Mutex<Record>> {
        self.record.clone()
    }

    /// Checks a batch against the steps in flight and fills the drawn tokens in.
    fn resolve(&mut self, batch: &Batch) -> Batch {
        let mut record = self.record.lock().unwrap();
        assert!(self.in_flight.len() <= usize::from(self.runs_behind), "one step ahead at most");
        record.begun_behind += self.in_flight.len();
        let slots: Vec<_> = batch.segments.iter().filter_map(|segment| segment.adapter).collect();
        let adapters = slots.iter().flat_map(|slot| self.bound[slot].clone()).collect();
        self.uses = Uses { pages: batch.page_indices.clone(), slots, adapters };
        record.begun_beside_loads += usize::from(!self.writing.is_empty());
        for slab in self.writing.iter().flat_map(|writing| &writing.slabs) {
            let used = self.uses.pages.contains(slab) || self.uses.adapters.contains(slab);
            assert!(!used, "one writer: slab {slab} is being written by a load");
        }
        for older in &self.in_flight {
            let read = |page: &u32| older.uses.adapters.contains(page);
            assert!(!self.uses.pages.iter().any(read), "a page on an adapter that is read");
        }
        let known = |token: &RowToken| match *token {
            RowToken::Known(_) => *token,
            RowToken::Drawn(row) => {
                assert!(!self.in_flight.is_empty(), "what has been collected is known");
                record.drawn_rows += 1;
                RowToken::Known(self.drawn[row as usize])
            }
        };
        Batch { tokens: batch.tokens.iter().map(known).collect(), ..batch.clone() }
    }

    fn inner<'a>(&self, pending: Pending<'a, Self>) -> Pending<'a, Cpu> {
        let Pending { y, bias, delta } = pending;
        self.record.lock().unwrap().deltas += usize::from(delta.is_some());
        let delta = delta.map(|Delta { shrunk, layer, site }| Delta { shrunk, layer, site });
        Pending { y, bias, delta }
    }
}

impl Backend for Probe {
    type Matrix = <Cpu as Backend>::Matrix;
    type Vector = <Cpu as Backend>::Vector;
    type Tensor = <Cpu as Backend>::Tensor;
    type Draw = ProbeDraw;
    type Load = ProbeLoad;

    fn name(&self) -> String {
        self.inner.name()
    }
    fn runs_behind(&self) -> bool {
        self.runs_behind
    }
    fn matrix<S: MatrixSource>(&mut self, source: S) -> Result<Self::Matrix, DeviceError> {
        self.inner.matrix(source)
    }
    fn vector(&mut self, host: &[f32]) -> Result<Self::Vector, DeviceError> {
        self.inner.vector(host)
    }
    fn tensor(&mut self, rows: usize, cols: usize) -> Result<Self::Tensor, DeviceError> {
        self.inner.tensor(rows, cols)
    }
    fn read(&mut self, tensor: &Self::Tensor) -> Vec<f32> {
        self.inner.read(tensor)
    }
    fn spare_bytes(&self) -> usize {
        self.inner.spare_bytes()
    }
    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError> {
        self.slab_bytes = shape.slab_bytes();
        self.inner.reserve(shape, slabs)
    }
    fn memory(&self) -> DeviceMemory {
        self.inner.memory()
    }
    fn host_memory(&self) -> HostMemory {
        self.inner.host_memory()
    }
    fn load(&mut self, image: Arc<HostBuffer>, slabs: &[u32]) -> ProbeLoad {
        for &slab in slabs {
            for InFlight { uses, .. } in &self.in_flight {
                let used = uses.pages.contains(&slab) || uses.adapters.contains(&slab);
                assert!(!used, "one writer: a step in flight uses slab {slab}");
            }
            let written = |writing: &Writing| writing.slabs.contains(&slab);
            assert!(!self.writing.iter().any(written), "one writer: two loads write slab {slab}");
        }
        let mut garbage = HostBuffer::zeroed(slabs.len() * self.slab_bytes);
        garbage.bytes_mut().fill(0xff);
        self.inner.load(Arc::new(garbage), slabs);
        self.loads += 1;
        let (number, slabs, delay) = (self.loads, slabs.to_vec(), self.load_delay);
        self.writing.push_back(Writing { number, image, slabs, delay });
        ProbeLoad(number)
    }
    fn loaded(&mut self, load: &ProbeLoad) -> Option<Duration> {
        if let Some(first) = self.writing.front_mut().filter(|first| first.number <= load.0) {
            if first.delay > 0 {
                first.delay -= 1;
                return None;
            }
            self.write(load.0);
        }
        Some(Duration::from_micros(1))
    }
    fn await_load(&mut self, load: &ProbeLoad) {
        self.record.lock().unwrap().load_waits += 1;
        self.write(load.0);
    }
    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        let used = |step: &InFlight| step.uses.slots.contains(&slot);
        assert!(!self.in_flight.iter().any(used), "a step in flight uses {slot:?}");
        let written = |slab: &u32| self.writing.iter().any(|load| load.slabs.contains(slab));
        assert!(!adapter.slabs.iter().any(written), "an adapter is bound once it is there");
        self.bound.insert(slot, adapter.slabs.clone());
        self.inner.bind(slot, adapter);
    }
    fn begin(&mut self, batch: &Batch) {
        {
            let fail_in = &mut self.record.lock().unwrap().fail_in;
            assert_ne!(*fail_in, Some(0), "the device was lost");
            *fail_in = fail_in.map(|steps| steps - 1);
        }
        let batch = self.resolve(batch);
        self.inner.begin(&batch);
    }
    fn embed(&mut self, table: &Self::Matrix, out: &mut Self::Tensor) {
        self.inner.embed(table, out);
    }
    fn norm(
        &mut self,
        residual: &mut Self::Tensor,
        add: Option<Pending<'_, Self>>,
        weight: (&Self::Vector, f32),
        out: &mut Self::Tensor,
    ) {
        let add = add.map(|pending| self.inner(pending));
        self.inner.norm(residual, add, weight, out);
    }
    fn matmul(&mut self, x: &Self::Tensor, w: &Self::Matrix, y: &mut Self::Tensor) {
        self.inner.matmul(x, w, y);
    }
    fn shrink(&mut self, x: &Self::Tensor, layer: usize, site: Site, out: &mut Self::Tensor) {
        self.record.lock().unwrap().shrinks += 1;
        self.inner.shrink(x, layer, site, out);
    }
    fn rope_store(&mut self, layer: usize, qkv: Pending<'_, Self>, q: &mut Self::Tensor) {
        let qkv = self.inner(qkv);
        self.inner.rope_store(layer, qkv, q);
    }
    fn attention(&mut self, layer: usize, q: &Self::Tensor, out: &mut Self::Tensor) {
        self.inner.attention(layer, q, out);
    }
    fn activate(&mut self, gate_up: Pending<'_, Self>, out: &mut Self::Tensor) {
        let gate_up = self.inner(gate_up);
        self.inner.activate(gate_up, out);
    }
    fn gather(&mut self, x: &Self::Tensor, out: &mut Self::Tensor) {
        self.inner.gather(x, out);
    }
    fn sample(&mut self, logits: &Self::Tensor, rows: &[SampleRow]) -> ProbeDraw {
        if !rows.is_empty() {
            let all = self.inner.read(logits);
            let record = &mut self.record.lock().unwrap().logits;
            for (row, logits) in rows.iter().zip(all.chunks(all.len() / rows.len())) {
                let bits = logits.iter().map(|x| x.to_bits()).collect();
                record.insert((row.seed, row.position), bits);
            }
        }
        let draw = self.inner.sample(logits, rows);
        let sampled = self.inner.collect(draw);
        self.drawn = sampled.iter().map(|sampled| sampled.token).collect();
        self.draws += 1;
        let (number, uses) = (self.draws, std::mem::take(&mut self.uses));
        self.in_flight.push_back(InFlight { number, uses, sampled });
        ProbeDraw(number)
    }
    fn collect(&mut self, draw: ProbeDraw) -> Vec<Sampled> {
        let oldest = self.in_flight.pop_front().expect("a draw is collected once");
        assert_eq!(oldest.number, draw.0, "draws are collected in order");
        oldest.sampled
    }
}
