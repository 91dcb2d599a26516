//! A backend that times every operation of its steps.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use crate::{
    AdapterSlot, AttentionShape, Backend, Batch, Delta, DeviceError, DeviceMemory, HostBuffer,
    HostMemory, MatrixSource, Pending, ResidentAdapter, SampleRow, Sampled, Site, Timed,
};

/// Part of a step, in the order in which a decoder first comes to each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Token ids to rows.
    Embed,
    /// Residual additions, expansion of what they add, and norms.
    Norm,
    /// The bare product of a site.
    Product(ProductStage),
    /// The product of a site with what its reader makes of it, where that is one operation.
    Finished(ProductStage),
    /// The low rank of a site.
    Shrink,
    /// Expansion of queries, keys and values, rotation and the store into pages.
    RopeStore,
    /// Attention.
    Attention,
    /// Expansion of gate and up, and the activation.
    Activate,
    /// Rows that want logits.
    Gather,
    /// Tokens from logits, and their way to the host.
    Sample,
}

/// Which product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProductStage {
    /// Query, key and value.
    Qkv,
    /// The attention output.
    Output,
    /// Gate and up.
    GateUp,
    /// The MLP output.
    Down,
    /// Logits.
    Head,
}

impl ProductStage {
    const LAYER: [Self; 4] = [Self::Qkv, Self::Output, Self::GateUp, Self::Down];
}

impl Stage {
    /// As profiles print it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Embed => "embed",
            Self::Norm => "norm",
            Self::Product(ProductStage::Qkv) => "qkv",
            Self::Product(ProductStage::Output) => "output",
            Self::Product(ProductStage::GateUp) => "gate_up",
            Self::Product(ProductStage::Down) => "down",
            Self::Product(ProductStage::Head) => "head",
            Self::Finished(ProductStage::Qkv) => "qkv, expanded",
            Self::Finished(ProductStage::Output) => "output, norm",
            Self::Finished(ProductStage::GateUp) => "gate_up, activate",
            Self::Finished(ProductStage::Down) => "down, norm",
            Self::Finished(ProductStage::Head) => "head, sample",
            Self::Shrink => "shrink",
            Self::RopeStore => "rope_store",
            Self::Attention => "attention",
            Self::Activate => "activate",
            Self::Gather => "gather",
            Self::Sample => "sample",
        }
    }
}

/// `(stage, seconds)` of every operation of one step, in order.
pub type StepTimes = Vec<(Stage, f64)>;

/// The steps of a [`Profiled`] backend, for whoever gave that away.
pub type Profile = Arc<Mutex<Vec<StepTimes>>>;

/// Times every operation of its inner backend by a mark behind each. Marks keep operations apart:
/// what would have run side by side with its neighbour is timed alone. A product that is computed
/// by its reader is timed with it.
pub struct Profiled<B: Timed> {
    inner: B,
    profile: Profile,
    /// The point before the first operation of the step at hand.
    start: Option<B::Mark>,
    marks: Vec<(Stage, B::Mark)>,
    /// Products of the step so far.
    products: usize,
    /// The latest, if it waits for its reader.
    deferred: Option<ProductStage>,
}

/// A draw, and the marks of its step.
pub struct ProfiledDraw<B: Timed> {
    draw: B::Draw,
    start: B::Mark,
    marks: Vec<(Stage, B::Mark)>,
}

impl<B: Timed> Profiled<B> {
    /// Adds the times of each step to the profile when its draw is collected.
    pub fn new(inner: B, profile: Profile) -> Self {
        Self { inner, profile, start: None, marks: Vec::new(), products: 0, deferred: None }
    }

    fn mark(&mut self, stage: Stage) {
        let mark = self.inner.mark();
        self.marks.push((stage, mark));
    }

    /// Marks the end of an operation that reads the latest product.
    fn mark_reader(&mut self, stage: Stage) {
        let stage = self.deferred.take().map_or(stage, Stage::Finished);
        self.mark(stage);
    }

    fn of_inner<'a>(pending: Pending<'a, Self>) -> Pending<'a, B> {
        let Pending { y, bias, delta } = pending;
        let delta = delta.map(|Delta { shrunk, layer, site }| Delta { shrunk, layer, site });
        Pending { y, bias, delta }
    }
}

impl<B: Timed> Backend for Profiled<B> {
    type Matrix = B::Matrix;
    type Vector = B::Vector;
    type Tensor = B::Tensor;
    type Draw = ProfiledDraw<B>;
    type Load = B::Load;

    fn name(&self) -> String {
        self.inner.name()
    }

    fn runs_behind(&self) -> bool {
        self.inner.runs_behind()
    }

    fn matrix<S: MatrixSource>(&mut self, source: S) -> Result<B::Matrix, DeviceError> {
        self.inner.matrix(source)
    }

    fn vector(&mut self, host: &[f32]) -> Result<B::Vector, DeviceError> {
        self.inner.vector(host)
    }

    fn tensor(&mut self, rows: usize, cols: usize) -> Result<B::Tensor, DeviceError> {
        self.inner.tensor(rows, cols)
    }

    fn read(&mut self, tensor: &B::Tensor) -> Vec<f32> {
        self.inner.read(tensor)
    }

    fn spare_bytes(&self) -> usize {
        self.inner.spare_bytes()
    }

    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError> {
        self.inner.reserve(shape, slabs)
    }

    fn memory(&self) -> DeviceMemory {
        self.inner.memory()
    }
    fn host_memory(&self) -> HostMemory {
        self.inner.host_memory()
    }
    fn load(&mut self, image: Arc<HostBuffer>, slabs: &[u32]) -> B::Load {
        self.inner.load(image, slabs)
    }
    fn loaded(&mut self, load: &B::Load) -> Option<Duration> {
        self.inner.loaded(load)
    }
    fn await_load(&mut self, load: &B::Load) {
        self.inner.await_load(load);
    }

    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        self.inner.bind(slot, adapter);
    }

    fn begin(&mut self, batch: &Batch) {
        self.inner.hold_back();
        self.inner.begin(batch);
        self.start = Some(self.inner.mark());
        self.marks.clear();
        self.products = 0;
    }

    fn embed(&mut self, table: &B::Matrix, out: &mut B::Tensor) {
        self.inner.embed(table, out);
        self.mark(Stage::Embed);
    }

    fn norm(
        &mut self,
        residual: &mut B::Tensor,
        add: Option<Pending<'_, Self>>,
        weight: (&B::Vector, f32),
        out: &mut B::Tensor,
    ) {
        self.inner.norm(residual, add.map(Self::of_inner), weight, out);
        self.mark_reader(Stage::Norm);
    }

    fn matmul(&mut self, x: &B::Tensor, w: &B::Matrix, y: &mut B::Tensor) {
        self.inner.matmul(x, w, y);
        let gathered = self.marks.last().is_some_and(|(stage, _)| *stage == Stage::Gather);
        let of_layer = ProductStage::LAYER[self.products % ProductStage::LAYER.len()];
        self.products += 1;
        let product = if gathered { ProductStage::Head } else { of_layer };
        if self.inner.is_deferred(y) {
            self.deferred = Some(product);
        } else {
            self.mark(Stage::Product(product));
        }
    }

    fn shrink(&mut self, x: &B::Tensor, layer: usize, site: Site, out: &mut B::Tensor) {
        self.inner.shrink(x, layer, site, out);
        if !self.inner.is_deferred(out) {
            self.mark(Stage::Shrink);
        }
    }

    fn rope_store(&mut self, layer: usize, qkv: Pending<'_, Self>, q: &mut B::Tensor) {
        self.inner.rope_store(layer, Self::of_inner(qkv), q);
        self.mark_reader(Stage::RopeStore);
    }

    fn attention(&mut self, layer: usize, q: &B::Tensor, out: &mut B::Tensor) {
        self.inner.attention(layer, q, out);
        self.mark(Stage::Attention);
    }

    fn activate(&mut self, gate_up: Pending<'_, Self>, out: &mut B::Tensor) {
        self.inner.activate(Self::of_inner(gate_up), out);
        self.mark_reader(Stage::Activate);
    }

    fn gather(&mut self, x: &B::Tensor, out: &mut B::Tensor) {
        self.inner.gather(x, out);
        self.mark(Stage::Gather);
    }

    fn sample(&mut self, logits: &B::Tensor, rows: &[SampleRow]) -> ProfiledDraw<B> {
        let draw = self.inner.sample(logits, rows);
        self.mark_reader(Stage::Sample);
        let start = self.start.take().expect("a step begins before it ends");
        ProfiledDraw { draw, start, marks: std::mem::take(&mut self.marks) }
    }

    fn collect(&mut self, draw: ProfiledDraw<B>) -> Vec<Sampled> {
        let ProfiledDraw { draw, start, marks } = draw;
        let sampled = self.inner.collect(draw);
        let mut last = &start;
        let mut times = StepTimes::new();
        for (stage, mark) in &marks {
            times.push((*stage, self.inner.seconds(last, mark)));
            last = mark;
        }
        self.profile.lock().unwrap_or_else(PoisonError::into_inner).push(times);
        sampled
    }
}
