//! A backend with a case's adapters in its pool, and every operation run on the case's inputs.

use std::sync::Arc;

use switchyard_kernels::{
    AdapterSlot, Backend, Batch, Delta, Dtype, HostBuffer, Pending, ResidentAdapter, RowToken,
    Segment, Site,
};

use crate::{
    assert_same_bits,
    case::{Adapter, Case, LAYERS},
    random::{Random, matrix},
};

const LAYER: usize = LAYERS - 1;
const RANKS_MAX: usize = 3 * 256;

/// What one operation wrote: `[rows, cols]`.
pub(crate) struct Output {
    pub(crate) name: &'static str,
    pub(crate) cols: usize,
    pub(crate) values: Vec<f32>,
}

/// What a rig can run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Embed,
    Shrink,
    RopeStore,
    /// With `gather`.
    Norm,
    Activate,
    Attention,
    /// Base products and low ranks with what their readers make of them.
    Products,
}

impl Operation {
    pub(crate) const ALL: [Self; 7] = [
        Self::Embed,
        Self::Shrink,
        Self::RopeStore,
        Self::Norm,
        Self::Activate,
        Self::Attention,
        Self::Products,
    ];
}

pub(crate) struct Rig<'a, B: Backend> {
    pub(crate) backend: B,
    case: &'a Case,
    seed: u64,
    /// Whether the inputs of products and their results come out of a norm, in the element type
    /// that the backend gives to what it feeds to products; else out of an embedding, in f32.
    fed: bool,
}

/// How a tensor of so many columns is made of values.
pub(crate) type Make<B> = fn(&mut B, usize, &[f32]) -> <B as Backend>::Tensor;

/// A tensor of given values, by way of an embedding table.
pub(crate) fn load<B: Backend>(backend: &mut B, cols: usize, values: &[f32]) -> B::Tensor {
    let rows = values.len() / cols;
    backend.begin(&Batch {
        tokens: (0..rows as u32).map(RowToken::Known).collect(),
        positions: vec![0; rows],
        seq_indptr: vec![0, rows as u32],
        page_indptr: vec![0, 0],
        page_indices: Vec::new(),
        segments: vec![Segment { rows: 0..rows as u32, adapter: None }],
        logit_rows: (0..rows as u32).collect(),
    });
    let table = backend.matrix(matrix(Dtype::F32, cols, values)).unwrap();
    let mut tensor = backend.tensor(rows, cols).unwrap();
    backend.embed(&table, &mut tensor);
    tensor
}

/// A tensor that no operation may leave as it is.
pub(crate) fn poisoned<B: Backend>(backend: &mut B, rows: usize, cols: usize) -> B::Tensor {
    load(backend, cols, &vec![f32::NAN; rows * cols])
}

/// Values through a norm of weight 1.
pub(crate) fn normed<B: Backend>(backend: &mut B, cols: usize, values: &[f32]) -> B::Tensor {
    let mut out = poisoned(backend, values.len() / cols, cols);
    let weight = backend.vector(&vec![1.0; cols]).unwrap();
    let mut residual = load(backend, cols, values);
    backend.norm(&mut residual, None, (&weight, 1e-5), &mut out);
    out
}

/// Bytes where the backend loads from at full speed.
pub(crate) fn image<B: Backend>(backend: &B, bytes: &[u8]) -> Arc<HostBuffer> {
    let mut image = backend.host_memory().buffer(bytes.len());
    image.bytes_mut().copy_from_slice(bytes);
    Arc::new(image)
}

impl<'a, B: Backend> Rig<'a, B> {
    pub(crate) fn new(case: &'a Case, backend: B, seed: u64) -> Self {
        let mut rig = Self::bare(case, (backend, 0), seed);
        rig.load_all();
        rig
    }

    /// Brings all of the case's adapters into the pool.
    pub(crate) fn load_all(&mut self) {
        for slot in 0..self.case.adapters.len() {
            let load = self.begin_load(slot);
            self.backend.await_load(&load);
            self.bind(slot);
        }
    }

    /// No adapter yet, and so many slabs more than the case needs.
    pub(crate) fn bare(case: &'a Case, (mut backend, spare): (B, usize), seed: u64) -> Self {
        backend.reserve(&case.shape, case.slabs + spare).unwrap();
        Self { backend, case, seed, fed: false }
    }

    pub(crate) fn begin_load(&mut self, slot: usize) -> B::Load {
        let adapter = &self.case.adapters[slot];
        let image = image(&self.backend, &adapter.bytes);
        self.backend.load(image, &adapter.slabs)
    }

    /// Once its load is complete.
    pub(crate) fn bind(&mut self, slot: usize) {
        let Adapter { map, slabs, .. } = &self.case.adapters[slot];
        let resident = ResidentAdapter { map: map.clone(), slabs: slabs.clone() };
        self.backend.bind(AdapterSlot(slot as u32), resident);
    }

    pub(crate) fn fed(self, fed: bool) -> Self {
        Self { fed, ..self }
    }

    /// Random values of the `stream`-th input for some input rows.
    fn values(&self, stream: u64, rows: &[usize], cols: usize) -> Vec<f32> {
        let row = |&row: &usize| {
            let mut random = Random(self.seed ^ stream << 32 ^ (row as u64) << 40);
            random.next();
            random.values(cols)
        };
        rows.iter().flat_map(row).collect()
    }

    fn input(&mut self, stream: u64, rows: &[usize], cols: usize) -> B::Tensor {
        let values = self.values(stream, rows, cols);
        load(&mut self.backend, cols, &values)
    }

    /// An input or a result of a product.
    fn product_input(&mut self, stream: u64, rows: &[usize], cols: usize) -> B::Tensor {
        let values = self.values(stream, rows, cols);
        let make: Make<B> = if self.fed { normed } else { load };
        make(&mut self.backend, cols, &values)
    }

    fn vector(&mut self, len: usize) -> B::Vector {
        self.backend.vector(&Random(self.seed).values(len)).unwrap()
    }

    /// Stores keys and values of a batch, if it has any, as they come.
    pub(crate) fn store(&mut self, work: &(Batch, Vec<usize>)) {
        if work.1.is_empty() {
            return;
        }
        let y = self.input(1, &work.1, self.case.shape.qkv_width());
        self.store_product(work, &y);
    }

    fn store_product(&mut self, (batch, rows): &(Batch, Vec<usize>), y: &B::Tensor) {
        let queries = self.case.shape.heads * self.case.shape.head_dim;
        let mut q = poisoned(&mut self.backend, rows.len(), queries);
        self.backend.begin(batch);
        for layer in 0..LAYERS {
            self.backend.rope_store(layer, Pending { y, bias: None, delta: None }, &mut q);
            // Until its queries are read, all of it may wait.
            self.backend.read(&q);
        }
    }

    /// Some operations on a batch.
    pub(crate) fn run(
        &mut self,
        work: &(Batch, Vec<usize>),
        operations: &[Operation],
    ) -> Vec<Output> {
        let mut outputs = Vec::new();
        for operation in operations {
            match operation {
                Operation::Embed => self.embed(work, &mut outputs),
                Operation::Shrink => {
                    for site in [Site::Qkv, Site::Output, Site::GateUp, Site::Down] {
                        outputs.push(self.shrink(work, site));
                    }
                }
                Operation::RopeStore => self.rope_store(work, &mut outputs),
                Operation::Norm => self.norm(work, &mut outputs),
                Operation::Activate => self.activate(work, &mut outputs),
                Operation::Attention => self.attention(work, &mut outputs),
                Operation::Products => {
                    for site in [Site::Qkv, Site::Output, Site::GateUp, Site::Down] {
                        self.product(work, site, &mut outputs);
                    }
                }
            }
        }
        outputs
    }

    fn push(
        &mut self,
        outputs: &mut Vec<Output>,
        name: &'static str,
        tensor: &B::Tensor,
        cols: usize,
    ) {
        let values = self.backend.read(tensor);
        outputs.push(Output { name, cols, values });
    }

    fn embed(&mut self, (batch, _): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let Case { hidden, rows, .. } = *self.case;
        let table = Random(self.seed).matrix(self.case.shape.dtype, rows, hidden);
        let table = self.backend.matrix(table).unwrap();
        let mut out = poisoned(&mut self.backend, batch.rows(), hidden);
        self.backend.begin(batch);
        self.backend.embed(&table, &mut out);
        self.push(outputs, "embed", &out, hidden);
    }

    fn shrink(&mut self, (batch, rows): &(Batch, Vec<usize>), site: Site) -> Output {
        let (inputs, _) = self.case.widths(site.linears()[0]);
        let x = self.product_input(2, rows, inputs);
        let mut s = poisoned(&mut self.backend, rows.len(), RANKS_MAX);
        self.backend.begin(batch);
        self.backend.shrink(&x, LAYER, site, &mut s);
        let mut values = self.backend.read(&s);
        for segment in &batch.segments {
            let ranks = segment
                .adapter
                .map_or(0, |slot| self.case.adapters[slot.0 as usize].map.site_ranks(LAYER, site));
            for row in segment.rows.clone() {
                // What lies behind the ranks is unspecified.
                values[row as usize * RANKS_MAX..][ranks..RANKS_MAX].fill(0.0);
            }
        }
        Output { name: "shrink", cols: RANKS_MAX, values }
    }

    fn rope_store(&mut self, (batch, rows): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let shape = self.case.shape.clone();
        let (width, queries) = (shape.qkv_width(), shape.heads * shape.head_dim);
        let (y, s) = (self.product_input(3, rows, width), self.input(4, rows, RANKS_MAX));
        let bias = self.vector(width);
        let mut q = poisoned(&mut self.backend, rows.len(), queries);
        self.backend.begin(batch);
        let delta = Some(Delta { shrunk: &s, layer: LAYER, site: Site::Qkv });
        self.backend.rope_store(LAYER, Pending { y: &y, bias: Some(&bias), delta }, &mut q);
        self.push(outputs, "rope_store", &q, queries);
    }

    fn norm(&mut self, (batch, rows): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let hidden = self.case.hidden;
        let weight = self.vector(hidden);
        let (y, s) = (self.product_input(5, rows, hidden), self.input(6, rows, RANKS_MAX));
        for site in [Site::Output, Site::Down] {
            let mut residual = self.input(7, rows, hidden);
            let mut out = poisoned(&mut self.backend, rows.len(), hidden);
            self.backend.begin(batch);
            let delta = Some(Delta { shrunk: &s, layer: LAYER, site });
            let add = Pending { y: &y, bias: None, delta };
            self.backend.norm(&mut residual, Some(add), (&weight, 1e-5), &mut out);
            self.push(outputs, "residual", &residual, hidden);
            self.push(outputs, "norm", &out, hidden);
            let mut last = poisoned(&mut self.backend, batch.logit_rows.len(), hidden);
            self.backend.begin(batch);
            self.backend.gather(&out, &mut last);
            let gathered = self.backend.read(&last);
            let values = self.backend.read(&out);
            for (i, &row) in batch.logit_rows.iter().enumerate() {
                let expected = &values[row as usize * hidden..][..hidden];
                assert_eq!(&gathered[i * hidden..][..hidden], expected, "gather");
            }
        }
    }

    fn activate(&mut self, (batch, rows): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let width = self.case.intermediate;
        let (y, s) = (self.product_input(8, rows, 2 * width), self.input(9, rows, RANKS_MAX));
        let mut out = poisoned(&mut self.backend, rows.len(), width);
        self.backend.begin(batch);
        let delta = Some(Delta { shrunk: &s, layer: LAYER, site: Site::GateUp });
        self.backend.activate(Pending { y: &y, bias: None, delta }, &mut out);
        self.push(outputs, "activate", &out, width);
    }

    /// A site of the batch, from activations that are fed to products.
    fn product(
        &mut self,
        (batch, rows): &(Batch, Vec<usize>),
        site: Site,
        outputs: &mut Vec<Output>,
    ) {
        let inputs = self.case.widths(site.linears()[0]).0;
        let width = site.linears().iter().map(|&linear| self.case.widths(linear).1).sum();
        let w = Random(self.seed ^ site as u64).matrix(self.case.shape.dtype, width, inputs);
        let (w, bias) = (self.backend.matrix(w).unwrap(), self.vector(width));
        // Twice through a norm: the second has a product to add, which leaves activations to be
        // scaled by their readers.
        let x = self.activations(batch, rows, inputs);
        let mut y = poisoned(&mut self.backend, rows.len(), width);
        let mut s = poisoned(&mut self.backend, rows.len(), RANKS_MAX);
        let columns = match site {
            Site::Qkv => self.case.shape.heads * self.case.shape.head_dim,
            Site::GateUp => width / 2,
            Site::Output | Site::Down => width,
        };
        let mut residual = self.input(7, rows, width);
        let mut out = poisoned(&mut self.backend, rows.len(), columns);
        self.backend.begin(batch);
        self.backend.matmul(&x, &w, &mut y);
        self.backend.shrink(&x, LAYER, site, &mut s);
        let delta = Some(Delta { shrunk: &s, layer: LAYER, site });
        let pending = Pending { y: &y, bias: Some(&bias), delta };
        match site {
            // Into pages that nobody attends over.
            Site::Qkv => self.backend.rope_store(0, pending, &mut out),
            Site::GateUp => self.backend.activate(pending, &mut out),
            Site::Output | Site::Down => {
                let weight = self.backend.vector(&Random(self.seed).values(width)).unwrap();
                self.backend.norm(&mut residual, Some(pending), (&weight, 1e-5), &mut out);
                self.push(outputs, "sum", &residual, width);
            }
        }
        self.push(outputs, "product", &out, columns);
    }

    /// What a norm makes of a small product added to a residual.
    fn activations(&mut self, batch: &Batch, rows: &[usize], cols: usize) -> B::Tensor {
        const INPUTS: usize = 64;
        let w = Random(!self.seed).matrix(self.case.shape.dtype, cols, INPUTS);
        let w = self.backend.matrix(w).unwrap();
        let x = self.values(10, rows, INPUTS);
        let x = normed(&mut self.backend, INPUTS, &x);
        let mut residual = self.input(11, rows, cols);
        let mut y = poisoned(&mut self.backend, rows.len(), cols);
        let mut out = poisoned(&mut self.backend, rows.len(), cols);
        let weight = self.backend.vector(&vec![1.0; cols]).unwrap();
        self.backend.begin(batch);
        self.backend.matmul(&x, &w, &mut y);
        let add = Pending { y: &y, bias: None, delta: None };
        self.backend.norm(&mut residual, Some(add), (&weight, 1e-5), &mut out);
        out
    }

    fn attention(&mut self, work: &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let shape = self.case.shape.clone();
        let (width, queries) = (shape.qkv_width(), shape.heads * shape.head_dim);
        let rows = work.1.len();
        let nothing = load(&mut self.backend, width, &vec![f32::NAN; rows * width]);
        self.store_product(work, &nothing);
        let y = self.input(1, &work.1, width);
        let [mut q, mut out, mut again] = [(); 3].map(|()| {
            let backend = &mut self.backend;
            poisoned(backend, rows, queries)
        });
        self.backend.begin(&work.0);
        let qkv = || Pending { y: &y, bias: None, delta: None };
        self.backend.rope_store(LAYER, qkv(), &mut q);
        self.backend.attention(LAYER, &q, &mut out);
        self.push(outputs, "attention", &out, queries);
        // The same queries once they have been read, by way of another layer's pages, over the keys
        // and values that may have waited for attention.
        self.backend.rope_store(0, qkv(), &mut q);
        self.push(outputs, "rope_store", &q, queries);
        self.backend.attention(LAYER, &q, &mut again);
        let (out, again) = (self.backend.read(&out), self.backend.read(&again));
        assert_same_bits("attention apart", &again, &out);
    }
}
