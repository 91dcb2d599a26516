//! A random decoder shape with sequences, adapters and inputs for every operation.

use std::sync::Arc;

use switchyard_kernels::{
    A_TILE_INPUTS, AdapterSlot, AttentionShape, Batch, Dtype, Linear, LinearTiles, PAGE_TOKENS,
    RANK_CHUNK, RowToken, Segment, TILE_ALIGN, Tile, TileMap,
};

use crate::random::{Random, write};

pub(crate) const LAYERS: usize = 2;
pub(crate) const DTYPES: [Dtype; 3] = [Dtype::F32, Dtype::F16, Dtype::Bf16];
/// Heads, key-value heads, elements per head, rotated pairs.
const HEADS: [(usize, usize, usize, usize); 8] = [
    (1, 1, 8, 4),
    (4, 2, 16, 8),
    (6, 2, 20, 7),
    (8, 1, 64, 32),
    (3, 3, 40, 10),
    (4, 1, 128, 64),
    (10, 1, 96, 9),
    (2, 1, 256, 128),
];
const RANKS: [usize; 10] = [1, 3, 4, 8, 12, 16, 24, 40, 64, 256];

/// What a case is made of, beside chance.
pub(crate) struct Plan {
    pub(crate) dtype: Dtype,
    /// Heads, key-value heads, elements per head, rotated pairs.
    pub(crate) heads: (usize, usize, usize, usize),
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    /// What ranks are drawn from.
    pub(crate) ranks: &'static [usize],
    pub(crate) adapters: usize,
    /// Tokens in all and tokens before the batch under test, by sequence.
    pub(crate) sequences: Vec<(usize, usize)>,
}

impl Plan {
    /// Small, and odd or such as products on tensor cores take.
    fn random(random: &mut Random) -> Self {
        let sequence = |random: &mut Random| {
            let len = 1 + random.below(40);
            (len, random.below(len))
        };
        let whole = random.below(2) == 0;
        let mut width = || {
            if whole { 64 * [1, 2, 3, 4, 9, 20][random.below(6)] } else { 5 + random.below(150) }
        };
        let (hidden, intermediate) = (width(), width());
        Self {
            dtype: if whole { Dtype::Bf16 } else { DTYPES[random.below(3)] },
            heads: HEADS[random.below(HEADS.len())],
            hidden,
            intermediate,
            ranks: &RANKS,
            adapters: 3,
            sequences: (0..1 + random.below(5)).map(|_| sequence(random)).collect(),
        }
    }
}

/// One sequence: all its tokens are rows of the case's inputs.
pub(crate) struct Sequence {
    /// First of its rows among the inputs.
    pub(crate) first: usize,
    /// Tokens in all.
    pub(crate) len: usize,
    /// Tokens before the batch under test.
    pub(crate) done: usize,
    pub(crate) adapter: Option<AdapterSlot>,
    pub(crate) pages: Vec<u32>,
}

pub(crate) struct Adapter {
    pub(crate) map: Arc<TileMap>,
    pub(crate) bytes: Vec<u8>,
    /// Pool slabs.
    pub(crate) slabs: Vec<u32>,
}

pub(crate) struct Case {
    pub(crate) shape: AttentionShape,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) slabs: usize,
    pub(crate) sequences: Vec<Sequence>,
    pub(crate) adapters: Vec<Adapter>,
    /// Rows of inputs.
    pub(crate) rows: usize,
}

impl Case {
    /// A small one.
    pub(crate) fn new(seed: u64) -> Self {
        let random = &mut Random(seed);
        let plan = Plan::random(random);
        Self::planned(&plan, random)
    }

    /// A small one with more rows than a decoding step of few.
    pub(crate) fn of_many_rows(seed: u64) -> Self {
        let random = &mut Random(seed);
        let mut plan = Plan::random(random);
        plan.sequences = (0..6 + random.below(3)).map(|_| (25 + random.below(20), 0)).collect();
        Self::planned(&plan, random)
    }

    /// A small one with more rows in a decoding step than the kernels for the fewest take.
    pub(crate) fn of_many_sequences(seed: u64) -> Self {
        let random = &mut Random(seed);
        let mut plan = Plan::random(random);
        let count = 9 + random.below(120);
        plan.sequences = (0..count).map(|_| (1 + random.below(3), 0)).collect();
        Self::planned(&plan, random)
    }

    pub(crate) fn planned(plan: &Plan, random: &mut Random) -> Self {
        let (heads, kv_heads, head_dim, pairs) = plan.heads;
        let inv_freq = (0..pairs).map(|i| 100f32.powf(-(i as f32) / pairs as f32)).collect();
        let dtype = plan.dtype;
        let shape = AttentionShape { layers: LAYERS, heads, kv_heads, head_dim, dtype, inv_freq };
        let mut case = Self {
            shape,
            hidden: plan.hidden,
            intermediate: plan.intermediate,
            slabs: 0,
            sequences: Vec::new(),
            adapters: Vec::new(),
            rows: 0,
        };
        case.adapters = (0..plan.adapters).map(|_| case.adapter(plan.ranks, random)).collect();
        for &(len, done) in &plan.sequences {
            let adapter = random.below(plan.adapters + 1).checked_sub(1);
            let adapter = adapter.map(|slot| AdapterSlot(slot as u32));
            let sequence = Sequence { first: case.rows, len, done, adapter, pages: Vec::new() };
            case.sequences.push(sequence);
            case.rows += len;
        }
        case.sequences.sort_by_key(|sequence| sequence.adapter);
        case.place(random);
        case
    }

    /// The same with one row of each sequence under test, its last.
    pub(crate) fn decoding(mut self) -> Self {
        self.sequences.iter_mut().for_each(|sequence| sequence.done = sequence.len - 1);
        self
    }

    /// Inputs and outputs of a linear.
    pub(crate) fn widths(&self, linear: Linear) -> (usize, usize) {
        let queries = self.shape.heads * self.shape.head_dim;
        match linear {
            Linear::Query => (self.hidden, queries),
            Linear::Key | Linear::Value => (self.hidden, self.shape.kv_heads * self.shape.head_dim),
            Linear::Output => (queries, self.hidden),
            Linear::Gate | Linear::Up => (self.hidden, self.intermediate),
            Linear::Down => (self.intermediate, self.hidden),
        }
    }

    /// Gives pages and adapters random slabs of one pool.
    fn place(&mut self, random: &mut Random) {
        let pages = |sequence: &Sequence| sequence.len.div_ceil(PAGE_TOKENS);
        self.slabs = self.sequences.iter().map(pages).sum::<usize>()
            + self.adapters.iter().map(|adapter| adapter.map.slabs as usize).sum::<usize>();
        let mut free = random.shuffled(self.slabs);
        for sequence in &mut self.sequences {
            sequence.pages = free.split_off(free.len() - sequence.len.div_ceil(PAGE_TOKENS));
        }
        for adapter in &mut self.adapters {
            adapter.slabs = free.split_off(free.len() - adapter.map.slabs as usize);
        }
    }

    fn adapter(&self, ranks: &[usize], random: &mut Random) -> Adapter {
        let mut image = Image { slab_bytes: self.shape.slab_bytes(), bytes: Vec::new() };
        let mut linears = Vec::new();
        for _ in 0..LAYERS {
            for linear in Linear::ALL {
                let present = random.below(5) > 0;
                let rank = ranks[random.below(ranks.len())];
                let tiles = present.then(|| self.tiles((linear, rank), random, &mut image));
                linears.push(tiles);
            }
        }
        let slabs = image.bytes.len().div_ceil(image.slab_bytes) as u32;
        let map = Arc::new(TileMap { dtype: self.shape.dtype, slabs, linears });
        Adapter { map, bytes: image.bytes, slabs: Vec::new() }
    }

    fn tiles(
        &self,
        (linear, rank): (Linear, usize),
        random: &mut Random,
        image: &mut Image,
    ) -> LinearTiles {
        let padded = rank.next_multiple_of(8);
        let (inputs, outputs) = self.widths(linear);
        let (a, b) = (random.values(rank * inputs), random.values(rank * outputs));
        let a = |rank_: usize, i: usize| if rank_ < rank { a[rank_ * inputs + i] } else { 0.0 };
        let b = |rank_: usize, o: usize| if rank_ < rank { b[rank_ * outputs + o] } else { 0.0 };
        let (mut a_tiles, mut b_tiles) = (Vec::new(), Vec::new());
        let dtype = self.shape.dtype;
        for first in (0..padded).step_by(RANK_CHUNK) {
            let ranks = first..padded.min(first + RANK_CHUNK);
            let piece = image.slab_bytes / 2 / (ranks.len() * dtype.size());
            let piece_of_a = piece.min(A_TILE_INPUTS);
            for long in (0..inputs).step_by(piece_of_a).map(|i| i..inputs.min(i + piece_of_a)) {
                let row = |rank| long.clone().map(move |i| (rank, i));
                let values: Vec<_> = ranks.clone().flat_map(row).map(|(r, i)| a(r, i)).collect();
                a_tiles.push(image.push(dtype, &values, (ranks.clone(), long.clone())));
            }
            for long in (0..outputs).step_by(piece).map(|o| o..outputs.min(o + piece)) {
                let row = |output| ranks.clone().map(move |rank| (rank, output));
                let values: Vec<_> = long.clone().flat_map(row).map(|(r, o)| b(r, o)).collect();
                b_tiles.push(image.push(dtype, &values, (ranks.clone(), long.clone())));
            }
        }
        let scale = 0.25 + random.below(8) as f32 / 4.0;
        LinearTiles { padded_rank: padded as u32, scale, a: a_tiles, b: b_tiles }
    }

    /// The batch of some rows of some sequences, with the input row of each batch row.
    pub(crate) fn batch<'a>(
        &self,
        parts: impl Iterator<Item = (&'a Sequence, std::ops::Range<usize>)>,
    ) -> (Batch, Vec<usize>) {
        let mut batch = Batch { seq_indptr: vec![0], page_indptr: vec![0], ..Batch::default() };
        let mut inputs = Vec::new();
        for (sequence, positions) in parts.filter(|(_, positions)| !positions.is_empty()) {
            let start = inputs.len() as u32;
            inputs.extend(positions.clone().map(|position| sequence.first + position));
            let end = inputs.len() as u32;
            batch.positions.extend(positions.map(|position| position as u32));
            batch.seq_indptr.push(end);
            batch.page_indices.extend(&sequence.pages);
            batch.page_indptr.push(batch.page_indices.len() as u32);
            match batch.segments.last_mut() {
                Some(last) if last.adapter == sequence.adapter => last.rows.end = end,
                _ => batch.segments.push(Segment { rows: start..end, adapter: sequence.adapter }),
            }
            batch.logit_rows.push(end - 1);
        }
        batch.tokens = inputs.iter().map(|&row| RowToken::Known(row as u32)).collect();
        (batch, inputs)
    }
}

/// A packed image under construction.
struct Image {
    slab_bytes: usize,
    bytes: Vec<u8>,
}

impl Image {
    fn push(
        &mut self,
        dtype: Dtype,
        values: &[f32],
        (ranks, long): (std::ops::Range<usize>, std::ops::Range<usize>),
    ) -> Tile {
        let len = values.len() * dtype.size();
        let mut start = self.bytes.len().next_multiple_of(TILE_ALIGN);
        if start % self.slab_bytes + len > self.slab_bytes {
            start = start.next_multiple_of(self.slab_bytes);
        }
        self.bytes.resize(start + len, 0);
        write(dtype, values, &mut self.bytes[start..]);
        Tile {
            ranks: ranks.start as u32..ranks.end as u32,
            long: long.start as u32..long.end as u32,
            slab: (start / self.slab_bytes) as u32,
            offset: (start % self.slab_bytes) as u32,
        }
    }
}
