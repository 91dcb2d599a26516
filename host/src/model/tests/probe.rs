//! The CPU backend under observation: counts what LoRA costs, keeps the logits that tokens were
//! drawn from and fails on demand.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use switchyard_kernels::{
    AdapterSlot, AttentionShape, Backend, Batch, Delta, DeviceError, HostMatrix, Pending,
    ResidentAdapter, SampleRow, Sampled, Site, cpu::Cpu,
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
}

/// A [`Cpu`] that keeps a [`Record`].
pub(crate) struct Probe {
    inner: Cpu,
    record: Arc<Mutex<Record>>,
}

impl Probe {
    pub(crate) fn new(inner: Cpu) -> Self {
        Self { inner, record: Arc::default() }
    }

    pub(crate) fn record(&self) -> Arc<Mutex<Record>> {
        self.record.clone()
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

    fn name(&self) -> String {
        self.inner.name()
    }
    fn matrix(&mut self, host: HostMatrix) -> Result<Self::Matrix, DeviceError> {
        self.inner.matrix(host)
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
    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError> {
        self.inner.reserve(shape, slabs)
    }
    fn write_slab(&mut self, slab: u32, bytes: &[u8]) {
        self.inner.write_slab(slab, bytes);
    }
    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter) {
        self.inner.bind(slot, adapter);
    }
    fn begin(&mut self, batch: &Batch) {
        let fail_in = &mut self.record.lock().unwrap().fail_in;
        assert_ne!(*fail_in, Some(0), "the device was lost");
        *fail_in = fail_in.map(|steps| steps - 1);
        self.inner.begin(batch);
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
    fn sample(&mut self, logits: &Self::Tensor, rows: &[SampleRow]) -> Vec<Sampled> {
        let all = self.inner.read(logits);
        let record = &mut self.record.lock().unwrap().logits;
        for (row, logits) in rows.iter().zip(all.chunks(all.len() / rows.len())) {
            let bits = logits.iter().map(|x| x.to_bits()).collect();
            record.insert((row.seed, row.position), bits);
        }
        self.inner.sample(logits, rows)
    }
}
