//! A layer's operations on a backend, with weights, adapters and pages beyond any cache to turn to.

use std::sync::Arc;

use switchyard_kernels::{
    AdapterSlot, Batch, Delta, DeviceError, Dtype, HostMatrix, MAX_RANK, PAGE_TOKENS, Pending,
    RowToken, SampleRow, Segment, Site, Timed,
};

use crate::{
    adapters::AdapterSet,
    shape::{SITES, Shape},
};

/// Rows of the largest batch.
pub(crate) const ROWS_MAX: usize = 2048;
/// Rows of the largest batch whose logits are wanted.
const LOGITS_MAX: usize = 128;
/// Times that a batch is timed, after once to warm up; the median counts.
const REPEATS: usize = 5;
/// Tokens that embeddings are made for.
const TOKENS: usize = 64;

/// How much is turned to.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Of the pool.
    pub(crate) pool_bytes: usize,
    /// Copies of a site's weights are this many bytes together at least.
    pub(crate) weight_bytes: usize,
    /// Launches that are timed as one.
    pub(crate) turns: usize,
}

/// A site: its weights, its product and the low rank beside it.
struct SiteBed<B: Timed> {
    weights: Vec<B::Matrix>,
    y: B::Tensor,
    shrunk: B::Tensor,
}

pub(crate) struct Bed<'a, B: Timed> {
    pub(crate) backend: B,
    pub(crate) shape: &'a Shape,
    turns: usize,
    /// Slabs of the pool, in no order.
    slabs: Vec<u32>,
    adapters: Option<AdapterSet>,
    /// In the order of [`SITES`].
    sites: Vec<SiteBed<B>>,
    embedding: B::Matrix,
    head: B::Matrix,
    norm: B::Vector,
    residual: B::Tensor,
    normed: B::Tensor,
    queries: B::Tensor,
    attended: B::Tensor,
    activated: B::Tensor,
    gathered: B::Tensor,
    logits: B::Tensor,
}

impl<'a, B: Timed> Bed<'a, B> {
    pub(crate) fn new(mut backend: B, shape: &'a Shape, size: Size) -> Result<Self, DeviceError> {
        let attention = shape.attention();
        let slab_bytes = attention.slab_bytes();
        let slabs = size.pool_bytes / slab_bytes;
        backend.reserve(&attention, slabs)?;
        let mut content = backend.host_memory().buffer(slab_bytes);
        content.bytes_mut().copy_from_slice(matrix(1, slab_bytes / 2).data.bytes());
        let content = Arc::new(content);
        for slab in 0..slabs as u32 {
            let load = backend.load(content.clone(), &[slab]);
            backend.await_load(&load);
        }
        let mut sites = Vec::new();
        for site in SITES {
            let [outputs, inputs] = shape.site(site);
            let copies = size.weight_bytes.div_ceil(2 * outputs * inputs).max(2);
            let weights = (0..copies).map(|_| backend.matrix(matrix(outputs, inputs)));
            let weights = weights.collect::<Result<Vec<_>, _>>()?;
            let y = backend.tensor(ROWS_MAX, outputs)?;
            let shrunk = backend.tensor(ROWS_MAX, MAX_RANK * site.linears().len())?;
            sites.push(SiteBed { weights, y, shrunk });
        }
        let (hidden, queries) = (shape.hidden, shape.heads * shape.head_dim);
        Ok(Self {
            shape,
            turns: size.turns,
            slabs: shuffled(slabs),
            adapters: None,
            sites,
            embedding: backend.matrix(matrix(TOKENS, hidden))?,
            head: backend.matrix(matrix(shape.vocabulary, hidden))?,
            norm: backend.vector(&vec![1.0; hidden])?,
            residual: backend.tensor(ROWS_MAX, hidden)?,
            normed: backend.tensor(ROWS_MAX, hidden)?,
            queries: backend.tensor(ROWS_MAX, queries)?,
            attended: backend.tensor(ROWS_MAX, queries)?,
            activated: backend.tensor(ROWS_MAX, shape.intermediate)?,
            gathered: backend.tensor(LOGITS_MAX, hidden)?,
            logits: backend.tensor(LOGITS_MAX, shape.vocabulary)?,
            backend,
        })
    }

    /// Puts as many adapters of that rank into the pool as it holds, up to `most`.
    pub(crate) fn bind(&mut self, rank: usize, most: usize) {
        let set = AdapterSet::new(self.shape, rank, most, &self.slabs);
        for number in 0..set.len() {
            self.backend.bind(AdapterSlot(number as u32), set.adapter(number));
        }
        self.adapters = Some(set);
    }

    /// Adapters in the pool.
    pub(crate) fn bound(&self) -> usize {
        self.adapters.as_ref().map_or(0, AdapterSet::len)
    }

    /// Whether the pool has pages for so many sequences of such a length.
    pub(crate) fn fits(&self, sequences: usize, tokens: usize) -> bool {
        sequences * tokens.div_ceil(PAGE_TOKENS) <= self.slabs.len()
    }

    /// `sequences` of `tokens` tokens, the last `rows` of which are computed, dealt out to
    /// `distinct` adapters; `turn` chooses other adapters and pages.
    pub(crate) fn batch(
        &self,
        (sequences, rows, tokens): (usize, usize, usize),
        distinct: usize,
        turn: usize,
    ) -> Batch {
        let pages = tokens.div_ceil(PAGE_TOKENS);
        let mut batch = Batch { seq_indptr: vec![0], page_indptr: vec![0], ..Batch::default() };
        for sequence in 0..sequences {
            let first = batch.rows() as u32;
            batch.tokens.extend((0..rows).map(|row| RowToken::Known((row % TOKENS) as u32)));
            batch.positions.extend((tokens - rows) as u32..tokens as u32);
            let end = batch.rows() as u32;
            batch.seq_indptr.push(end);
            let page = |page| (turn * sequences + sequence) * pages + page;
            let slab = |at: usize| self.slabs[at % self.slabs.len()];
            batch.page_indices.extend((0..pages).map(|number| slab(page(number))));
            batch.page_indptr.push(batch.page_indices.len() as u32);
            batch.logit_rows.push(end - 1);
            let adapter = (distinct > 0).then(|| {
                let number = turn * distinct + sequence * distinct / sequences;
                AdapterSlot((number % self.bound().max(1)) as u32)
            });
            match batch.segments.last_mut() {
                Some(last) if last.adapter == adapter => last.rows.end = end,
                _ => batch.segments.push(Segment { rows: first..end, adapter }),
            }
        }
        batch
    }

    /// Seconds that one call of an operation takes on these batches, which are of one size. It is
    /// told the turn, by which it takes other weights or another layer.
    pub(crate) fn time(&mut self, batches: &[Batch], operation: impl Fn(&mut Self, usize)) -> f64 {
        self.settle(&batches[0]);
        let mut times: Vec<f64> = Vec::new();
        for _ in 0..=REPEATS {
            let mut time = 0.0;
            for batch in batches {
                self.backend.hold_back();
                self.backend.begin(batch);
                let start = self.backend.mark();
                (0..self.turns).for_each(|turn| operation(self, turn));
                let end = self.backend.mark();
                time += self.backend.seconds(&start, &end);
            }
            times.push(time);
        }
        let times = &mut times[1..];
        times.sort_by(f64::total_cmp);
        times[REPEATS / 2] / (batches.len() * self.turns) as f64
    }

    /// Runs a whole layer and a head, so that every tensor has the rows and the element type that
    /// its readers meet in a step.
    fn settle(&mut self, batch: &Batch) {
        let lora = batch.has_lora();
        self.backend.begin(batch);
        self.backend.embed(&self.embedding, &mut self.residual);
        let weight = (&self.norm, 1e-5);
        self.backend.norm(&mut self.residual, None, weight, &mut self.normed);
        for site in SITES {
            self.site(site, 0, lora);
            if site == Site::Qkv {
                self.attention(0);
            }
        }
        self.backend.gather(&self.normed, &mut self.gathered);
        self.head();
    }

    /// A site's product, its low rank, and its reader: what leaves queries waits for attention.
    pub(crate) fn site(&mut self, site: Site, turn: usize, lora: bool) {
        self.product(site, turn);
        if lora {
            self.shrink(site, turn);
        }
        match site {
            Site::Qkv => self.rope_store(turn, lora),
            Site::Output | Site::Down => self.norm(site, turn, lora),
            Site::GateUp => self.activate(turn, lora),
        }
    }

    fn product(&mut self, site: Site, turn: usize) {
        let SiteBed { weights, y, .. } = &mut self.sites[site as usize];
        let x = match site {
            Site::Qkv | Site::GateUp => &self.normed,
            Site::Output => &self.attended,
            Site::Down => &self.activated,
        };
        let weights = &weights[turn % weights.len()];
        self.backend.matmul(x, weights, y);
    }

    pub(crate) fn shrink(&mut self, site: Site, turn: usize) {
        let x = match site {
            Site::Qkv | Site::GateUp => &self.normed,
            Site::Output => &self.attended,
            Site::Down => &self.activated,
        };
        let shrunk = &mut self.sites[site as usize].shrunk;
        self.backend.shrink(x, turn % self.shape.layers, site, shrunk);
    }

    /// Whether products make the low ranks of the latest batch.
    pub(crate) fn shrink_waits(&self) -> bool {
        self.backend.is_deferred(&self.sites[0].shrunk)
    }

    fn norm(&mut self, site: Site, turn: usize, lora: bool) {
        let add = pending(&self.sites, site, turn % self.shape.layers, lora);
        let weight = (&self.norm, 1e-5);
        self.backend.norm(&mut self.residual, Some(add), weight, &mut self.normed);
    }

    pub(crate) fn rope_store(&mut self, turn: usize, lora: bool) {
        let layer = turn % self.shape.layers;
        let qkv = pending(&self.sites, Site::Qkv, layer, lora);
        self.backend.rope_store(layer, qkv, &mut self.queries);
    }

    pub(crate) fn attention(&mut self, turn: usize) {
        self.backend.attention(turn % self.shape.layers, &self.queries, &mut self.attended);
    }

    fn activate(&mut self, turn: usize, lora: bool) {
        let gate_up = pending(&self.sites, Site::GateUp, turn % self.shape.layers, lora);
        self.backend.activate(gate_up, &mut self.activated);
    }

    /// Logits, which wait for who draws from them.
    pub(crate) fn head(&mut self) {
        self.backend.matmul(&self.gathered, &self.head, &mut self.logits);
    }

    /// Nobody waits for the tokens.
    pub(crate) fn sample(&mut self, rows: &[SampleRow]) {
        drop(self.backend.sample(&self.logits, rows));
    }
}

fn pending<B: Timed>(sites: &[SiteBed<B>], site: Site, layer: usize, lora: bool) -> Pending<'_, B> {
    let SiteBed { y, shrunk, .. } = &sites[site as usize];
    Pending { y, bias: None, delta: lora.then_some(Delta { shrunk, layer, site }) }
}

/// Numbers of about 2^-6 in bf16, none of them alike for long.
fn matrix(rows: usize, cols: usize) -> HostMatrix {
    let mut matrix = HostMatrix::zeroed(Dtype::Bf16, rows, cols);
    let mut word = 1u64;
    for bytes in matrix.data.bytes_mut().chunks_exact_mut(8) {
        word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        let bits = word & 0x807f_807f_807f_807f | 0x3c80_3c80_3c80_3c80;
        bytes.copy_from_slice(&bits.to_le_bytes());
    }
    matrix
}

/// `0..n` in no order.
fn shuffled(n: usize) -> Vec<u32> {
    let mut numbers: Vec<u32> = (0..n as u32).collect();
    let mut word = 7u64;
    for end in (1..n).rev() {
        word = word.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
        numbers.swap(end, (word >> 33) as usize % (end + 1));
    }
    numbers
}
