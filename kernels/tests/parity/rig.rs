//! A backend with a case's adapters in its pool, and every operation run on the case's inputs.

use switchyard_kernels::{
    AdapterSlot, Backend, Batch, Delta, Dtype, Pending, ResidentAdapter, RowToken, Segment, Site,
    cpu::{Cpu, Isa, Tensor},
};

use crate::{
    case::{Case, LAYERS},
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

pub(crate) struct Rig<'a> {
    pub(crate) cpu: Cpu,
    case: &'a Case,
    seed: u64,
}

/// A tensor of given values, by way of an embedding table.
pub(crate) fn load(cpu: &mut Cpu, cols: usize, values: &[f32]) -> Tensor {
    let rows = values.len() / cols;
    cpu.begin(&Batch {
        tokens: (0..rows as u32).map(RowToken::Known).collect(),
        positions: vec![0; rows],
        seq_indptr: vec![0, rows as u32],
        page_indptr: vec![0, 0],
        page_indices: Vec::new(),
        segments: vec![Segment { rows: 0..rows as u32, adapter: None }],
        logit_rows: Vec::new(),
    });
    let table = cpu.matrix(matrix(Dtype::F32, cols, values)).unwrap();
    let mut tensor = cpu.tensor(rows, cols).unwrap();
    cpu.embed(&table, &mut tensor);
    tensor
}

/// A tensor that no operation may leave as it is.
pub(crate) fn poisoned(cpu: &mut Cpu, rows: usize, cols: usize) -> Tensor {
    load(cpu, cols, &vec![f32::NAN; rows * cols])
}

impl<'a> Rig<'a> {
    pub(crate) fn new(case: &'a Case, isa: Isa, threads: usize, seed: u64) -> Self {
        let mut cpu = Cpu::new(isa, threads).unwrap();
        cpu.reserve(&case.shape, case.slabs).unwrap();
        for (slot, adapter) in case.adapters.iter().enumerate() {
            for (bytes, &slab) in adapter.bytes.chunks(case.shape.slab_bytes()).zip(&adapter.slabs)
            {
                cpu.write_slab(slab, bytes);
            }
            let resident =
                ResidentAdapter { map: adapter.map.clone(), slabs: adapter.slabs.clone() };
            cpu.bind(AdapterSlot(slot as u32), resident);
        }
        Self { cpu, case, seed }
    }

    /// Random values of the `stream`-th input for some input rows.
    fn input(&mut self, stream: u64, rows: &[usize], cols: usize) -> Tensor {
        let all = Random(self.seed ^ stream << 32).values(self.case.rows * cols);
        let values: Vec<f32> =
            rows.iter().flat_map(|&row| all[row * cols..(row + 1) * cols].to_vec()).collect();
        load(&mut self.cpu, cols, &values)
    }

    /// Stores keys and values of a batch as they come, and returns the queries.
    pub(crate) fn store(&mut self, (batch, rows): &(Batch, Vec<usize>)) -> Tensor {
        let shape = &self.case.shape;
        let (width, queries) = (shape.qkv_width(), shape.heads * shape.head_dim);
        let y = self.input(1, rows, width);
        let mut q = poisoned(&mut self.cpu, rows.len(), queries);
        self.cpu.begin(batch);
        self.cpu.rope_store(LAYER, Pending { y: &y, bias: None, delta: None }, &mut q);
        q
    }

    /// Every operation on a batch.
    pub(crate) fn run(&mut self, work: &(Batch, Vec<usize>)) -> Vec<Output> {
        let mut outputs = Vec::new();
        for site in [Site::Qkv, Site::Output, Site::GateUp, Site::Down] {
            outputs.push(self.shrink(work, site));
        }
        self.rope_store(work, &mut outputs);
        self.norm(work, &mut outputs);
        self.activate(work, &mut outputs);
        self.attention(work, &mut outputs);
        outputs
    }

    fn push(
        &mut self,
        outputs: &mut Vec<Output>,
        name: &'static str,
        tensor: &Tensor,
        cols: usize,
    ) {
        let values = self.cpu.read(tensor);
        outputs.push(Output { name, cols, values });
    }

    fn shrink(&mut self, (batch, rows): &(Batch, Vec<usize>), site: Site) -> Output {
        let (inputs, _) = self.case.widths(site.linears()[0]);
        let x = self.input(2, rows, inputs);
        let mut s = poisoned(&mut self.cpu, rows.len(), RANKS_MAX);
        self.cpu.begin(batch);
        self.cpu.shrink(&x, LAYER, site, &mut s);
        let mut values = self.cpu.read(&s);
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
        let (y, s) = (self.input(3, rows, width), self.input(4, rows, RANKS_MAX));
        let bias = Random(self.seed).values(width);
        let mut q = poisoned(&mut self.cpu, rows.len(), queries);
        self.cpu.begin(batch);
        let delta = Some(Delta { shrunk: &s, layer: LAYER, site: Site::Qkv });
        self.cpu.rope_store(LAYER, Pending { y: &y, bias: Some(&bias), delta }, &mut q);
        self.push(outputs, "rope_store", &q, queries);
    }

    fn norm(&mut self, (batch, rows): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let hidden = self.case.hidden;
        let weight = Random(self.seed).values(hidden);
        let (y, s) = (self.input(5, rows, hidden), self.input(6, rows, RANKS_MAX));
        for site in [Site::Output, Site::Down] {
            let mut residual = self.input(7, rows, hidden);
            let mut out = poisoned(&mut self.cpu, rows.len(), hidden);
            self.cpu.begin(batch);
            let delta = Some(Delta { shrunk: &s, layer: LAYER, site });
            let add = Pending { y: &y, bias: None, delta };
            self.cpu.norm(&mut residual, Some(add), (&weight, 1e-5), &mut out);
            self.push(outputs, "residual", &residual, hidden);
            self.push(outputs, "norm", &out, hidden);
            let mut last = poisoned(&mut self.cpu, batch.logit_rows.len(), hidden);
            self.cpu.begin(batch);
            self.cpu.gather(&out, &mut last);
            let gathered = self.cpu.read(&last);
            let values = self.cpu.read(&out);
            for (i, &row) in batch.logit_rows.iter().enumerate() {
                let expected = &values[row as usize * hidden..][..hidden];
                assert_eq!(&gathered[i * hidden..][..hidden], expected, "gather");
            }
        }
    }

    fn activate(&mut self, (batch, rows): &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let width = self.case.intermediate;
        let (y, s) = (self.input(8, rows, 2 * width), self.input(9, rows, RANKS_MAX));
        let mut out = poisoned(&mut self.cpu, rows.len(), width);
        self.cpu.begin(batch);
        let delta = Some(Delta { shrunk: &s, layer: LAYER, site: Site::GateUp });
        self.cpu.activate(Pending { y: &y, bias: None, delta }, &mut out);
        self.push(outputs, "activate", &out, width);
    }

    fn attention(&mut self, work: &(Batch, Vec<usize>), outputs: &mut Vec<Output>) {
        let queries = self.case.shape.heads * self.case.shape.head_dim;
        let q = self.store(work);
        let mut out = poisoned(&mut self.cpu, work.1.len(), queries);
        self.cpu.begin(&work.0);
        self.cpu.attention(LAYER, &q, &mut out);
        self.push(outputs, "attention", &out, queries);
    }
}
