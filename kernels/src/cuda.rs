//! The CUDA backend: one NVIDIA GPU, CUDA C++ kernels compiled at start, the driver loaded at run
//! time, so that the same binary starts where there is none.
//!
//! Every operation has one Rust file under `cuda/`, its launch contract, and one `.cu` file. All
//! kernels run in the order of calls on one stream; adapters are copied on another. Grids are sized
//! by [`step::Extent`] and kernels read the true counts on the device, so that a captured launch
//! serves every batch of its size class.

mod activate;
mod adapters;
mod attention;
mod bandwidth;
pub mod compiler;
mod deferred;
mod device;
mod embed;
mod expand;
mod gather;
mod graph;
mod launch;
mod ledger;
mod load;
mod low_rank;
mod matmul;
mod memory;
mod module;
mod monitor;
mod norm;
mod pool;
mod ranges;
mod replay;
mod rope_store;
mod sample;
mod shrink;
mod step;
mod tensor;
mod tensor_map;
mod timed;
mod upload;

use std::{sync::Arc, time::Duration};

use crate::{
    AdapterSlot, AttentionShape, Backend, Batch, BlobCache, DeviceError, DeviceMemory, Dtype,
    HostBuffer, HostMemory, MatrixSource, Pending, ResidentAdapter, SampleRow, Sampled, Site,
};
use adapters::AdapterTable;
use attention::Splits;
pub use bandwidth::copy_bandwidth;
use compiler::Source;
pub(crate) use device::Device;
pub use device::{devices, versions};
use launch::{Grid, Launch, Parameters};
pub use load::Load;
use load::Loader;
use low_rank::LowRanks;
use memory::DeviceBuffer;
pub(crate) use memory::PinnedBuffer;
use module::Modules;
pub use monitor::Monitor;
use pool::Pool;
pub use replay::ReplayCounts;
pub use sample::Draw;
use sample::Sampler;
use shrink::Taken;
use step::Step;
pub use tensor::{Matrix, Tensor, Vector};
use upload::Upload;

/// Every module, those that take the longest to compile ahead.
pub fn sources() -> Vec<Source> {
    let mut sources = [matmul::SUMS, matmul::RESIDUAL, matmul::GATED].concat().concat();
    sources.extend([
        activate::SOURCE,
        attention::DECODE,
        attention::PLAIN,
        attention::PREFILL,
        embed::SOURCE,
        gather::SOURCE,
        matmul::PLAIN,
        norm::SOURCE,
        norm::PREFILL,
        rope_store::SOURCE,
        sample::SOURCE,
        shrink::SOURCE,
    ]);
    sources
}

/// What operations work with.
struct Context {
    device: Arc<Device>,
    modules: Modules,
    /// Ahead of the pool, which it writes to until it is dropped.
    loader: Loader,
    pool: Pool,
    step: Step,
    adapters: AdapterTable,
    library: matmul::Library,
    sampler: Sampler,
    splits: Splits,
    taken: Taken,
    low_ranks: LowRanks,
}

impl Context {
    /// Queues a kernel.
    ///
    /// # Safety
    /// As [`Launch::new`]: addresses are good as long as their buffers live, as freeing one queues
    /// what is held first.
    unsafe fn launch(&mut self, kernel: (&str, &str), grid: Grid, parameters: Parameters) {
        let function = self.modules.function(kernel.0, kernel.1, grid.shared);
        // SAFETY: modules live as long as the context; the caller answers for the rest.
        let launch = unsafe { Launch::new(function, grid, parameters) };
        self.device.launch(launch);
    }

    /// Element type of activations that feed a product: bf16 beside bf16 weights, else f32.
    fn activation(&self) -> Dtype {
        match self.pool.shape().dtype {
            Dtype::Bf16 => Dtype::Bf16,
            Dtype::F16 | Dtype::F32 => Dtype::F32,
        }
    }
}

/// One NVIDIA GPU.
pub struct Cuda {
    cx: Context,
    upload: Upload,
}

impl Cuda {
    /// Opens the GPU of that number and begins to make the kernels ready; [`Backend::reserve`]
    /// waits for them.
    pub fn new(ordinal: usize, cache: impl BlobCache + 'static) -> Result<Self, DeviceError> {
        let device = Device::open(ordinal)?;
        let library = matmul::Library::open(&device)?;
        let modules = Modules::begin(&device, sources(), cache)?;
        let (pool, step) = (Pool::empty(&device)?, Step::empty(&device)?);
        let (adapters, sampler) = (AdapterTable::empty(&device)?, Sampler::new(&device)?);
        let (splits, upload) = (Splits::empty(&device)?, Upload::new(&device));
        let (taken, loader) = (Taken::new(&device)?, Loader::new(&device)?);
        let low_ranks = LowRanks::new(&device)?;
        let cx = Context {
            device,
            modules,
            loader,
            pool,
            step,
            adapters,
            library,
            sampler,
            splits,
            taken,
            low_ranks,
        };
        Ok(Self { cx, upload })
    }

    /// How steps were launched so far.
    pub fn replay_counts(&self) -> ReplayCounts {
        self.cx.device.replay_counts()
    }

    /// What the driver says about the GPU of that number; `None` where it says nothing.
    pub fn monitor(ordinal: usize) -> Option<Monitor> {
        Monitor::open(ordinal)
    }
}

impl Backend for Cuda {
    type Matrix = Matrix;
    type Vector = Vector;
    type Tensor = Tensor;
    type Draw = Draw;
    type Load = Load;

    fn name(&self) -> String {
        let Device { name, arch, .. } = &*self.cx.device;
        format!("cuda ({name}, {arch})")
    }

    fn runs_behind(&self) -> bool {
        true
    }

    fn matrix<S: MatrixSource>(&mut self, source: S) -> Result<Matrix, DeviceError> {
        Matrix::new(&self.cx.device, &source, &mut self.upload)
    }

    fn vector(&mut self, host: &[f32]) -> Result<Vector, DeviceError> {
        let bytes: Vec<u8> = host.iter().flat_map(|value| value.to_le_bytes()).collect();
        let mut data = DeviceBuffer::new(&self.cx.device, bytes.len(), "weights")?;
        data.write(0, &bytes);
        Ok(Vector { data, len: host.len() })
    }

    fn tensor(&mut self, rows: usize, cols: usize) -> Result<Tensor, DeviceError> {
        Tensor::new(&self.cx.device, rows, cols)
    }

    fn read(&mut self, tensor: &Tensor) -> Vec<f32> {
        deferred::settle(&mut self.cx, tensor);
        tensor.values()
    }

    fn spare_bytes(&self) -> usize {
        self.cx.device.free_bytes() / 10 * 9
    }

    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError> {
        // The weights are there.
        self.upload = Upload::new(&self.cx.device);
        self.cx.modules.wait()?;
        let Context { device, pool, adapters, splits, .. } = &mut self.cx;
        *pool = Pool::reserve(device, shape, slabs)?;
        *adapters = AdapterTable::reserve(device, pool, slabs)?;
        splits.reserve_for_pool(shape, slabs)?;
        device.ledger.settle();
        Ok(())
    }

    fn memory(&self) -> DeviceMemory {
        self.cx.device.ledger.memory()
    }

    fn host_memory(&self) -> HostMemory {
        HostMemory::pinned(&self.cx.device)
    }

    fn load(&mut self, image: Arc<HostBuffer>, slabs: &[u32]) -> Load {
        self.cx.loader.begin(&self.cx.pool, image, slabs)
    }

    fn loaded(&mut self, load: &Load) -> Option<Duration> {
        load.elapsed()
    }

    fn await_load(&mut self, load: &Load) {
        load.wait();
    }

    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        self.cx.adapters.bind(&self.cx.pool, slot, adapter);
    }

    fn begin(&mut self, batch: &Batch) {
        self.cx.step.begin(batch);
        self.cx.low_ranks.begin_step();
        let reserved = self.cx.splits.reserve(self.cx.pool.shape(), &self.cx.step.extent);
        reserved.expect("memory for longer sequences");
    }

    fn embed(&mut self, table: &Matrix, out: &mut Tensor) {
        embed::embed(&mut self.cx, table, out);
    }

    fn norm(
        &mut self,
        residual: &mut Tensor,
        add: Option<Pending<'_, Self>>,
        weight: (&Vector, f32),
        out: &mut Tensor,
    ) {
        norm::norm(&mut self.cx, residual, add, weight, out);
    }

    fn matmul(&mut self, x: &Tensor, w: &Matrix, y: &mut Tensor) {
        matmul::matmul(&mut self.cx, x, w, y);
    }

    fn shrink(&mut self, x: &Tensor, layer: usize, site: Site, out: &mut Tensor) {
        shrink::shrink(&mut self.cx, x, (layer, site), out);
    }

    fn rope_store(&mut self, layer: usize, qkv: Pending<'_, Self>, q: &mut Tensor) {
        rope_store::rope_store(&mut self.cx, layer, qkv, q);
    }

    fn attention(&mut self, layer: usize, q: &Tensor, out: &mut Tensor) {
        attention::attention(&mut self.cx, layer, q, out);
    }

    fn activate(&mut self, gate_up: Pending<'_, Self>, out: &mut Tensor) {
        activate::activate(&mut self.cx, gate_up, out);
    }

    fn gather(&mut self, x: &Tensor, out: &mut Tensor) {
        gather::gather(&mut self.cx, x, out);
    }

    fn sample(&mut self, logits: &Tensor, rows: &[SampleRow]) -> Draw {
        sample::launch(&mut self.cx, logits, rows)
    }

    fn collect(&mut self, draw: Draw) -> Vec<Sampled> {
        sample::collect(&mut self.cx, draw)
    }
}
