//! The CPU backend: weights stay as loaded, in host memory; a few threads share each operation.
//!
//! Every operation has one file under `cpu/`. What differs by instruction set is chosen by [`Isa`]
//! at run time; [`Isa::Reference`] runs the oracle that the others are tested against.

mod activate;
#[cfg(target_arch = "x86_64")]
mod amx;
mod attention;
mod disjoint;
mod dot;
mod element;
mod embed;
mod expand;
mod gather;
mod isa;
mod lanes;
mod matmul;
mod norm;
pub(crate) mod philox;
mod pool;
mod product;
mod reference;
mod rope_store;
mod sample;
mod shrink;
mod step;
mod tensor;
mod timed;
mod workers;

pub use isa::{Isa, UnknownIsa};
pub use tensor::Tensor;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    AdapterSlot, AttentionShape, Backend, Batch, DeviceError, DeviceMemory, HostBuffer, HostMatrix,
    HostMemory, Linear, MatrixSource, Pending, ResidentAdapter, SampleRow, Sampled, Site,
};
use expand::Sums;
use lanes::Path;
use pool::Pool;
use step::Step;
use workers::Workers;

/// Size of a pool that nobody chose: this memory is not the server's alone.
const POOL_BYTES: usize = 512 << 20;

/// What kernels read: the path, the threads, the pool and the current batch.
struct Context {
    path: Path,
    workers: Workers,
    pool: Pool,
    step: Step,
}

impl Context {
    /// Outputs of one linear within a site's product of `total` columns.
    fn width(&self, site: Site, linear: Linear, total: usize) -> usize {
        let shape = self.pool.shape();
        match (site, linear) {
            (Site::Qkv, Linear::Query) => shape.heads * shape.head_dim,
            (Site::Qkv, _) => shape.kv_heads * shape.head_dim,
            _ => total / site.linears().len(),
        }
    }
}

/// The processor and its memory.
pub struct Cpu {
    cx: Context,
    /// Scratch of `expand`.
    sums: Sums,
    /// `[logits]` tokens of the latest `sample`.
    drawn: Vec<u32>,
    memory: DeviceMemory,
}

impl Cpu {
    /// A backend on one path with that many threads, the caller's among them.
    pub fn new(isa: Isa, threads: usize) -> Result<Self, DeviceError> {
        let Some(path) = Path::new(isa) else {
            let best = Isa::best();
            let reason = format!("this machine cannot run {isa}: use {best}");
            return Err(DeviceError::Unavailable(reason));
        };
        let failed =
            |error| DeviceError::Unavailable(format!("starting {threads} threads: {error}"));
        let workers = Workers::new(threads.max(1)).map_err(failed)?;
        let cx = Context { path, workers, pool: Pool::empty(), step: Step::default() };
        let (sums, memory) = (Sums::default(), DeviceMemory::default());
        Ok(Self { cx, sums, drawn: Vec::new(), memory })
    }
}

impl Backend for Cpu {
    type Matrix = HostMatrix;
    type Vector = Vec<f32>;
    type Tensor = Tensor;
    type Draw = Vec<Sampled>;
    /// What the copy took.
    type Load = Duration;

    fn name(&self) -> String {
        format!("cpu ({}, {} threads)", self.cx.path.isa(), self.cx.workers.count())
    }

    fn runs_behind(&self) -> bool {
        false
    }

    fn matrix<S: MatrixSource>(&mut self, source: S) -> Result<HostMatrix, DeviceError> {
        let host = source.into_host().map_err(DeviceError::Weights)?;
        assert_eq!(host.data.len(), host.rows * host.cols * host.dtype.size(), "a whole matrix");
        self.memory.weights += host.data.len();
        Ok(host)
    }

    fn vector(&mut self, host: &[f32]) -> Result<Vec<f32>, DeviceError> {
        self.memory.weights += size_of_val(host);
        Ok(host.to_vec())
    }

    fn tensor(&mut self, rows: usize, cols: usize) -> Result<Tensor, DeviceError> {
        self.memory.activations += rows * cols * size_of::<f32>();
        Ok(Tensor::new(rows, cols))
    }

    fn read(&mut self, tensor: &Tensor) -> Vec<f32> {
        tensor.values().to_vec()
    }

    fn spare_bytes(&self) -> usize {
        POOL_BYTES
    }

    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError> {
        self.cx.pool = Pool::reserve(shape, slabs)?;
        self.memory.pool = slabs * shape.slab_bytes();
        Ok(())
    }

    fn memory(&self) -> DeviceMemory {
        self.memory
    }

    fn host_memory(&self) -> HostMemory {
        HostMemory::pageable()
    }

    fn load(&mut self, image: Arc<HostBuffer>, slabs: &[u32]) -> Duration {
        let start = Instant::now();
        self.cx.pool.load(&image, slabs);
        start.elapsed()
    }

    fn loaded(&mut self, load: &Duration) -> Option<Duration> {
        Some(*load)
    }

    fn await_load(&mut self, _load: &Duration) {}

    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        self.cx.pool.bind(slot, adapter);
    }

    fn begin(&mut self, batch: &Batch) {
        self.cx.step = Step::new(batch, &self.drawn, self.cx.pool.shape());
    }

    fn embed(&mut self, table: &HostMatrix, out: &mut Tensor) {
        embed::embed(&self.cx.step, table, out);
    }

    fn norm(
        &mut self,
        residual: &mut Tensor,
        add: Option<Pending<'_, Self>>,
        weight: (&Vec<f32>, f32),
        out: &mut Tensor,
    ) {
        if let Some(add) = add {
            norm::add(residual, &expand::expand(&self.cx, &add, &mut self.sums));
        }
        norm::norm(&self.cx, residual, (weight.0, weight.1), out);
    }

    fn matmul(&mut self, x: &Tensor, w: &HostMatrix, y: &mut Tensor) {
        matmul::matmul(&self.cx, x, w, y);
    }

    fn shrink(&mut self, x: &Tensor, layer: usize, site: Site, out: &mut Tensor) {
        shrink::shrink(&self.cx, x, (layer, site), out);
    }

    fn rope_store(&mut self, layer: usize, qkv: Pending<'_, Self>, q: &mut Tensor) {
        let qkv = expand::expand(&self.cx, &qkv, &mut self.sums);
        let Context { pool, step, .. } = &mut self.cx;
        rope_store::rope_store(pool, step, layer, &qkv, q);
    }

    fn attention(&mut self, layer: usize, q: &Tensor, out: &mut Tensor) {
        attention::attention(&self.cx, layer, q, out);
    }

    fn activate(&mut self, gate_up: Pending<'_, Self>, out: &mut Tensor) {
        let gate_up = expand::expand(&self.cx, &gate_up, &mut self.sums);
        activate::activate(&self.cx, &gate_up, out);
    }

    fn gather(&mut self, x: &Tensor, out: &mut Tensor) {
        gather::gather(&self.cx.step, x, out);
    }

    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow]) -> Vec<Sampled> {
        let sampled = sample::sample(&self.cx, logits, rows);
        self.drawn = sampled.iter().map(|sampled| sampled.token).collect();
        sampled
    }

    fn collect(&mut self, draw: Vec<Sampled>) -> Vec<Sampled> {
        draw
    }
}
