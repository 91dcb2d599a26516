//! Whole decoding steps: launched again from a graph, and launched one by one.

use switchyard_kernels::{
    Backend, Batch, Delta, Dtype, Pending, Site,
    cpu::{Cpu, Isa},
    cuda::{Cuda, ReplayCounts},
};

use super::{open, plans::Named};
use crate::{
    assert_same_bits, assert_within,
    case::{Case, LAYERS, Plan},
    cpu,
    random::Random,
    rig::Rig,
};

const VOCABULARY: usize = 264;
const SEED: u64 = 5;

/// The weights of a layer, the same in all of them, and of what is around them.
struct Decoder<B: Backend> {
    embedding: B::Matrix,
    norm: B::Vector,
    qkv: B::Matrix,
    output: B::Matrix,
    gate_up: B::Matrix,
    down: B::Matrix,
    head: B::Matrix,
}

/// The activations of a step.
struct Tensors<B: Backend> {
    residual: B::Tensor,
    normed: B::Tensor,
    qkv: B::Tensor,
    shrunk: B::Tensor,
    queries: B::Tensor,
    attended: B::Tensor,
    gate_up: B::Tensor,
    activated: B::Tensor,
    branch: B::Tensor,
    gathered: B::Tensor,
    logits: B::Tensor,
}

/// Small, with inputs that take several runs of a LoRA product.
fn plan() -> Named {
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (36, 12, 64, 32),
        hidden: 2304,
        intermediate: 1024,
        ranks: &[8, 16, 40],
        adapters: 5,
        sequences: [1, 17, 40, 255, 256, 257, 530, 33, 16, 5].map(|len| (len, len - 1)).to_vec(),
    };
    Named { name: "a decoder", plan }
}

impl<B: Backend> Decoder<B> {
    fn new(backend: &mut B, case: &Case) -> Self {
        let random = &mut Random(SEED);
        let queries = case.shape.heads * case.shape.head_dim;
        let mut matrix = |rows, cols| {
            let matrix = random.matrix(case.shape.dtype, rows, cols);
            backend.matrix(matrix).unwrap()
        };
        let embedding = matrix(case.rows, case.hidden);
        let qkv = matrix(case.shape.qkv_width(), case.hidden);
        let output = matrix(case.hidden, queries);
        let gate_up = matrix(2 * case.intermediate, case.hidden);
        let down = matrix(case.hidden, case.intermediate);
        let head = matrix(VOCABULARY, case.hidden);
        let norm = backend.vector(&Random(SEED).values(case.hidden)).unwrap();
        Self { embedding, norm, qkv, output, gate_up, down, head }
    }

    /// Logits of the batch's `logit_rows`.
    fn step(&self, backend: &mut B, t: &mut Tensors<B>, batch: &Batch) -> Vec<f32> {
        let weight = (&self.norm, 1e-5);
        backend.begin(batch);
        backend.embed(&self.embedding, &mut t.residual);
        backend.norm(&mut t.residual, None, weight, &mut t.normed);
        for layer in 0..LAYERS {
            self.layer(backend, t, layer, batch.has_lora());
        }
        backend.gather(&t.normed, &mut t.gathered);
        backend.matmul(&t.gathered, &self.head, &mut t.logits);
        backend.read(&t.logits)
    }

    fn layer(&self, backend: &mut B, t: &mut Tensors<B>, layer: usize, lora: bool) {
        let weight = (&self.norm, 1e-5);
        let shrink = |backend: &mut B, x: &B::Tensor, site, shrunk: &mut B::Tensor| {
            if lora {
                backend.shrink(x, layer, site, shrunk);
            }
        };
        let site = |site| lora.then_some((layer, site));
        backend.matmul(&t.normed, &self.qkv, &mut t.qkv);
        shrink(backend, &t.normed, Site::Qkv, &mut t.shrunk);
        backend.rope_store(layer, pending(&t.qkv, &t.shrunk, site(Site::Qkv)), &mut t.queries);
        backend.attention(layer, &t.queries, &mut t.attended);
        backend.matmul(&t.attended, &self.output, &mut t.branch);
        shrink(backend, &t.attended, Site::Output, &mut t.shrunk);
        let add = pending(&t.branch, &t.shrunk, site(Site::Output));
        backend.norm(&mut t.residual, Some(add), weight, &mut t.normed);
        backend.matmul(&t.normed, &self.gate_up, &mut t.gate_up);
        shrink(backend, &t.normed, Site::GateUp, &mut t.shrunk);
        backend.activate(pending(&t.gate_up, &t.shrunk, site(Site::GateUp)), &mut t.activated);
        backend.matmul(&t.activated, &self.down, &mut t.branch);
        shrink(backend, &t.activated, Site::Down, &mut t.shrunk);
        let add = pending(&t.branch, &t.shrunk, site(Site::Down));
        backend.norm(&mut t.residual, Some(add), weight, &mut t.normed);
    }
}

/// A product, with a delta for the rows of a site's adapters.
fn pending<'a, B: Backend>(
    y: &'a B::Tensor,
    shrunk: &'a B::Tensor,
    site: Option<(usize, Site)>,
) -> Pending<'a, B> {
    let delta = site.map(|(layer, site)| Delta { shrunk, layer, site });
    Pending { y, bias: None, delta }
}

impl<B: Backend> Tensors<B> {
    fn new(backend: &mut B, case: &Case) -> Self {
        let queries = case.shape.heads * case.shape.head_dim;
        let mut tensor = |cols| backend.tensor(case.sequences.len(), cols).unwrap();
        Self {
            residual: tensor(case.hidden),
            normed: tensor(case.hidden),
            qkv: tensor(case.shape.qkv_width()),
            shrunk: tensor(3 * 256),
            queries: tensor(queries),
            attended: tensor(queries),
            gate_up: tensor(2 * case.intermediate),
            activated: tensor(case.intermediate),
            branch: tensor(case.hidden),
            gathered: tensor(case.hidden),
            logits: tensor(VOCABULARY),
        }
    }
}

/// The last rows of the first so many sequences, with their adapters or without.
fn batch(case: &Case, sequences: usize, lora: bool) -> Batch {
    let last = case.sequences[..sequences].iter().map(|s| (s, s.len - 1..s.len));
    let (mut batch, _) = case.batch(last);
    if !lora {
        let rows = 0..batch.rows() as u32;
        batch.segments = vec![switchyard_kernels::Segment { rows, adapter: None }];
    }
    batch
}

/// A backend whose pool has the case's adapters and all rows but the last of each sequence.
fn filled<B: Backend>(case: &Case, backend: B) -> B {
    let mut rig = Rig::new(case, backend, SEED);
    rig.store(&case.batch(case.sequences.iter().map(|s| (s, 0..s.done))));
    rig.backend
}

/// Steps of several sizes, twice each class and more, in and out of order.
const STEPS: [(usize, bool); 12] = [
    (10, true),
    (9, true),
    (10, true),
    (9, false),
    (10, false),
    (10, true),
    (2, true),
    (2, true),
    (9, true),
    (1, false),
    (1, false),
    (10, true),
];

#[test]
fn small_steps_replay_what_they_launched() {
    let Some(cuda) = open() else { return };
    let case = &Case::planned(&plan().plan, &mut Random(SEED)).decoding();
    let mut cuda = filled(case, cuda);
    let mut reference = filled(case, cpu(Isa::Reference, 1));
    let decoder = Decoder::<Cuda>::new(&mut cuda, case);
    let of_reference = Decoder::<Cpu>::new(&mut reference, case);
    let mut tensors = Tensors::new(&mut cuda, case);
    let mut tensors_of_reference = Tensors::new(&mut reference, case);
    let mut kept = Vec::new();
    for (sequences, lora) in STEPS {
        let batch = batch(case, sequences, lora);
        let logits = decoder.step(&mut cuda, &mut tensors, &batch);
        let expected = of_reference.step(&mut reference, &mut tensors_of_reference, &batch);
        assert_within(3e-2, &format!("{sequences} sequences, {lora}"), &logits, &expected);
        // Elsewhere in memory, what is launched is never the same.
        let before = cuda.replay_counts();
        let mut elsewhere = Tensors::new(&mut cuda, case);
        let one_by_one = decoder.step(&mut cuda, &mut elsewhere, &batch);
        assert_eq!(cuda.replay_counts(), before, "launched one by one");
        kept.push(elsewhere);
        assert_same_bits("one by one", &one_by_one, &logits);
        // The class's latest launches are those above; these become it again.
        let again = decoder.step(&mut cuda, &mut tensors, &batch);
        let before = cuda.replay_counts().replayed;
        let replayed = decoder.step(&mut cuda, &mut tensors, &batch);
        assert_eq!(cuda.replay_counts().replayed, before + 1);
        assert_same_bits("again", &again, &logits);
        assert_same_bits("replayed", &replayed, &logits);
    }
}

#[test]
fn small_unused_adapters_change_no_launch() {
    let Some(cuda) = open() else { return };
    let case = &Case::planned(&plan().plan, &mut Random(SEED)).decoding();
    let mut rig = Rig::bare(case, (cuda, 0), SEED);
    rig.store(&case.batch(case.sequences.iter().map(|s| (s, 0..s.done))));
    let cuda = &mut rig.backend;
    let decoder = Decoder::<Cuda>::new(cuda, case);
    let mut tensors = Tensors::new(cuda, case);
    let batch = batch(case, 9, false);
    let mut step = |cuda: &mut Cuda| decoder.step(cuda, &mut tensors, &batch);
    let off = [step(cuda), step(cuda), step(cuda)];
    assert_eq!(cuda.replay_counts(), ReplayCounts { captured: 1, replayed: 2 });
    rig.load_all();
    let unused = step(&mut rig.backend);
    assert_eq!(rig.backend.replay_counts(), ReplayCounts { captured: 1, replayed: 3 });
    off.iter().for_each(|logits| assert_same_bits("unused", &unused, logits));
}
