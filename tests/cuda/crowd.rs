//! Many sequences with adapters of their own, in one model and in one engine.

use std::sync::Arc;

use switchyard::{
    engine::{Engine, EngineHandle, EngineLimits, NewSequence, Sampling, TokenStream},
    model::{
        AdapterId, AdapterImage, HostWeights, ImageMemory, LoraWeights, Model, ModelConfig,
        ModelLimits,
    },
};
use switchyard_kernels::{AdapterSlot, Backend, Batch, Dtype, RowToken, Segment};

use super::{device, distance, middle, tiny};

const SEQUENCES: usize = 128;
const PAGE_TOKENS: usize = 16;
/// Pages that each sequence has to itself.
const PAGES: usize = 8;
const LIMITS: ModelLimits = ModelLimits { rows: 128, logits: SEQUENCES };
const RANKS: [usize; 4] = [8, 16, 24, 64];

fn adapter(config: &ModelConfig, dtype: Dtype, number: usize) -> Arc<AdapterImage> {
    let rank = RANKS[number % RANKS.len()];
    let weights = LoraWeights::random(config, dtype, rank, number as u64 + 2);
    let mut id = [0; 32];
    id[..8].copy_from_slice(&(number as u64).to_le_bytes());
    let memory = ImageMemory::pageable(config.attention_shape(dtype).slab_bytes());
    Arc::new(weights.pack(config, &memory, AdapterId(id)).unwrap())
}

/// A token that neither the sequence nor the position tells.
fn token(config: &ModelConfig, sequence: usize, position: usize) -> u32 {
    ((sequence * 7919 + position * 104_729 + 13) % config.vocabulary) as u32
}

/// A model with room for all sequences, and an adapter for each but every eighth.
struct Crowd<B: Backend> {
    model: Model<B>,
    /// Tokens that each sequence has in the pool.
    lens: Vec<usize>,
}

impl<B: Backend> Crowd<B> {
    /// Prompts of different lengths, each read alone.
    fn new(backend: B, config: &ModelConfig, dtype: Dtype) -> Self {
        let weights = HostWeights::random(config, dtype, 1);
        let mut model = Model::new(backend, config, weights, LIMITS).unwrap();
        let images: Vec<_> =
            (0..SEQUENCES).map(|i| Self::slot(i).map(|_| adapter(config, dtype, i))).collect();
        let slabs: u32 = images.iter().flatten().map(|image| image.map.slabs).sum();
        let mut next = (SEQUENCES * PAGES) as u32;
        model.reserve(next as usize + slabs as usize).unwrap();
        for (i, image) in images.iter().enumerate() {
            let Some(image) = image else { continue };
            let slabs: Vec<u32> = (next..next + image.map.slabs).collect();
            next += image.map.slabs;
            model.load_adapter(Self::slot(i).unwrap(), image, &slabs);
        }
        let mut crowd = Self { model, lens: vec![0; SEQUENCES] };
        for i in 0..SEQUENCES {
            crowd.advance(&[i], 1 + i * 37 % 90);
        }
        crowd
    }

    fn slot(sequence: usize) -> Option<AdapterSlot> {
        (!sequence.is_multiple_of(8)).then_some(AdapterSlot(sequence as u32))
    }

    /// `rows` more tokens of each sequence; the logits of each one's last, `[sequences,
    /// vocabulary]`.
    fn advance(&mut self, sequences: &[usize], rows: usize) -> Vec<f32> {
        let config = self.model.config().clone();
        let mut batch = Batch { seq_indptr: vec![0], page_indptr: vec![0], ..Batch::default() };
        for &sequence in sequences {
            let (start, first) = (self.lens[sequence], batch.tokens.len() as u32);
            let end = start + rows;
            let tokens = (start..end).map(|at| RowToken::Known(token(&config, sequence, at)));
            batch.tokens.extend(tokens);
            batch.positions.extend(start as u32..end as u32);
            let last = batch.tokens.len() as u32;
            batch.seq_indptr.push(last);
            let pages = (sequence * PAGES) as u32..;
            batch.page_indices.extend(pages.take(end.div_ceil(PAGE_TOKENS)));
            batch.page_indptr.push(batch.page_indices.len() as u32);
            batch.segments.push(Segment { rows: first..last, adapter: Self::slot(sequence) });
            batch.logit_rows.push(last - 1);
            self.lens[sequence] = end;
        }
        self.model.forward(&batch);
        self.model.logits()
    }

    /// One token of each sequence, taken back again.
    fn peek(&mut self, sequences: &[usize]) -> Vec<f32> {
        let lens = self.lens.clone();
        let logits = self.advance(sequences, 1);
        self.lens = lens;
        logits
    }

    /// The sequence as if it had been put back and read again from its start.
    fn recompute(&mut self, sequence: usize) {
        let len = std::mem::take(&mut self.lens[sequence]);
        self.advance(&[sequence], len);
    }
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_is_the_same_alone_and_among_127_others() {
    let Some(open) = device() else { return };
    for (config, dtype) in [(middle(), Dtype::Bf16), (tiny(), Dtype::Bf16), (tiny(), Dtype::F32)] {
        let mut crowd = Crowd::new(open(), &config, dtype);
        let everyone: Vec<usize> = (0..SEQUENCES).collect();
        let together = crowd.peek(&everyone);
        assert!(together.iter().all(|x| x.is_finite()));
        let row = |i: usize| bits(&together[i * config.vocabulary..][..config.vocabulary]);
        for i in (0..SEQUENCES).step_by(5) {
            assert!(bits(&crowd.peek(&[i])) == row(i), "sequence {i} alone, {dtype:?}");
        }
        for some in [&everyone[3..6], &everyone[40..57], &everyone[60..]] {
            let rows: Vec<u32> = some.iter().flat_map(|&i| row(i)).collect();
            assert!(bits(&crowd.peek(some)) == rows, "{some:?}, {dtype:?}");
        }
    }
}

#[test]
fn two_runs_give_the_same_bytes() {
    let Some(open) = device() else { return };
    for dtype in [Dtype::Bf16, Dtype::F32] {
        let run = || {
            let mut crowd = Crowd::new(open(), &middle(), dtype);
            let everyone: Vec<usize> = (0..SEQUENCES).collect();
            let steps = [
                crowd.advance(&everyone, 1),
                crowd.advance(&[9], 70),
                crowd.advance(&[17, 32, 5], 30),
                crowd.advance(&everyone, 1),
            ];
            bits(&steps.concat())
        };
        assert!(run() == run(), "{dtype:?}");
    }
}

/// Recomputed keys and values differ by the order of sums, which bf16 shows in its last bit.
#[test]
fn preempted_is_not_preempted_within_a_tolerance() {
    let Some(open) = device() else { return };
    for (dtype, tolerance) in [(Dtype::Bf16, 2e-2), (Dtype::F32, 1e-4)] {
        let mut crowd = Crowd::new(open(), &middle(), dtype);
        let everyone: Vec<usize> = (0..SEQUENCES).collect();
        for _ in 0..20 {
            crowd.advance(&everyone, 1);
        }
        for sequence in [0, 1, 50, 127] {
            let expected = crowd.peek(&[sequence]);
            crowd.recompute(sequence);
            let distance = distance(&crowd.peek(&[sequence]), &expected);
            println!("{dtype:?}, sequence {sequence}: {distance:.2e}");
            assert!(distance <= tolerance, "{dtype:?}, sequence {sequence}: {distance:.2e}");
        }
    }
}

fn engine(slabs: usize) -> Option<EngineHandle> {
    let open = device()?;
    let config = middle();
    let pool_bytes = Some(slabs * config.attention_shape(Dtype::Bf16).slab_bytes());
    let limits = EngineLimits {
        pool_bytes,
        max_running: SEQUENCES,
        max_step_tokens: 256,
        max_waiting: SEQUENCES,
    };
    let load = move || {
        let weights = HostWeights::random(&config, Dtype::Bf16, 1);
        Model::new(open(), &config, weights, limits.model())
    };
    Some(Engine::spawn(load, limits).unwrap())
}

fn tokens(mut stream: TokenStream) -> Vec<u32> {
    let mut tokens = Vec::new();
    let mut finished = false;
    while let Some(output) = stream.blocking_recv() {
        tokens.push(output.token);
        finished = output.finish.is_some();
    }
    assert!(finished, "the engine ended the sequence");
    tokens
}

fn request(sequence: usize, prompt: usize, adapter: Option<&Arc<AdapterImage>>) -> NewSequence {
    NewSequence {
        prompt: (0..prompt).map(|at| token(&middle(), sequence, at)).collect(),
        adapter: adapter.cloned(),
        sampling: Sampling::greedy(),
        max_tokens: 40,
        stop_tokens: Vec::new(),
    }
}

/// Prompts of one token: every step is a decoding one, where rows are invariant bit for bit.
#[test]
fn an_engine_gives_the_same_tokens_alone_and_in_a_crowd() {
    let images: Vec<_> = (0..32).map(|i| adapter(&middle(), Dtype::Bf16, i)).collect();
    let slabs: u32 = images.iter().map(|image| image.map.slabs).sum();
    let Some(engine) = engine(slabs as usize + SEQUENCES * PAGES) else { return };
    let submit = |i: usize| engine.submit(request(i, 1, images.get(i % 40))).unwrap();
    let streams: Vec<_> = (0..SEQUENCES).map(submit).collect();
    let crowd: Vec<_> = streams.into_iter().map(tokens).collect();
    for (i, crowd) in crowd.iter().enumerate().step_by(9) {
        assert_eq!(&tokens(submit(i)), crowd, "sequence {i}");
    }
    engine.shutdown();
    assert_eq!(engine.status().failed, None);
}

#[test]
fn a_pool_too_small_for_all_loses_no_request() {
    let images: Vec<_> = (0..6).map(|i| adapter(&middle(), Dtype::Bf16, i)).collect();
    let slabs: u32 = images.iter().map(|image| image.map.slabs).sum();
    let Some(engine) = engine(slabs as usize + SEQUENCES) else { return };
    let submit = |i: usize| engine.submit(request(i, 8, images.get(i % 7))).unwrap();
    let streams: Vec<_> = (0..SEQUENCES).map(submit).collect();
    for stream in streams {
        assert_eq!(tokens(stream).len(), 40);
    }
    engine.shutdown();
    let status = engine.status();
    assert!(status.preemptions > 0, "the pool was too small");
    assert_eq!((status.failed, status.slabs.kv), (None, 0));
}
