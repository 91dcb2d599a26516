//! The CUDA backend against the reference, where there is a GPU: small odd cases that a sanitizer
//! can run too (`small_`), sizes that reach the fast paths (`large_`), and the backend against
//! itself. One operation per test, so that a fault names its kernel.

mod cubins;
mod plans;
mod replay;

use std::sync::{Mutex, OnceLock};

use proptest::prelude::*;
use switchyard_kernels::{
    Backend, DeviceError, Dtype, SampleRow,
    cpu::{Cpu, Isa},
    cuda::Cuda,
};

use crate::{
    assert_same_bits, assert_within,
    case::{Case, DTYPES},
    cpu, loading,
    matmul::{Shape, product},
    random::Random,
    rig::{Make, Operation, Output, Rig, load, normed},
    sampling::{GREEDY, sample_on},
    truths, whole,
};
use cubins::Cubins;
use plans::{attention_plans, decode_plans, prefill_plans};

/// When this is set, a missing GPU is a failure.
const REQUIRED: &str = "SWITCHYARD_TEST_CUDA";

/// The first GPU, or the reason why a test is skipped.
fn open() -> Option<Cuda> {
    // One backend lives as long as the process, so that the others need not set the device up.
    static FIRST: OnceLock<Option<Mutex<Cuda>>> = OnceLock::new();
    let open = || match Cuda::new(0, Cubins::new()) {
        Ok(cuda) => Some(cuda),
        Err(DeviceError::Unavailable(why)) => {
            let broken = why.starts_with("compiling") || why.starts_with("loading");
            assert!(!broken && std::env::var_os(REQUIRED).is_none(), "{why}");
            eprintln!("skipped: {why}");
            None
        }
        Err(error) => panic!("{error}"),
    };
    FIRST.get_or_init(|| open().map(Mutex::new)).as_ref()?;
    open()
}

/// What differences are allowed, of the largest value. Beside bf16 weights a result that is stored
/// in bf16 is off by its rounding, and one in f32 by that of its inputs. Keys and values that lie
/// on the border of two halves may be rounded to either. A product with its low ranks is fed rows
/// that are rounded before they are divided by their root mean square, and its low ranks are
/// rounded too: of 3000 random cases, the reference with these roundings is off by 1.4 % in one.
fn tolerance(output: &str, dtype: Dtype, fed: bool) -> f32 {
    match (dtype, output) {
        (_, "embed") => 0.0,
        (Dtype::F16, "attention") => 1e-3,
        (Dtype::F32 | Dtype::F16, _) => 1e-5,
        (Dtype::Bf16, "shrink") => 2e-3,
        (Dtype::Bf16, "sum" | "product") => 2e-2,
        (Dtype::Bf16, "residual") if !fed => 2e-3,
        (Dtype::Bf16, _) => 1e-2,
    }
}

fn assert_same_outputs(outputs: &[Output], expected: &[Output]) {
    for (output, expected) in outputs.iter().zip(expected) {
        assert_same_bits(output.name, &output.values, &expected.values);
    }
}

/// Operations against the reference, with inputs in f32 and with inputs out of a norm; a second
/// backend gives the same bits.
fn check(case: &Case, seed: u64, operations: &[Operation]) {
    for fed in [false, true] {
        let Some(cuda) = open() else { return };
        eprintln!("seed {seed}, {:?}, fed: {fed}", case.shape.dtype);
        let reference = Rig::new(case, cpu(Isa::Reference, 1), seed);
        let expected = whole(&mut reference.fed(fed), case, operations);
        let outputs = whole(&mut Rig::new(case, cuda, seed).fed(fed), case, operations);
        for (output, expected) in outputs.iter().zip(&expected) {
            let tolerance = tolerance(output.name, case.shape.dtype, fed);
            assert_within(tolerance, output.name, &output.values, &expected.values);
        }
        let Some(again) = open() else { return };
        let again = whole(&mut Rig::new(case, again, seed).fed(fed), case, operations);
        assert_same_outputs(&again, &outputs);
    }
}

/// Every decode row, alone and among the others, bit for bit.
fn check_decode_rows(case: &Case, seed: u64, fed: bool) {
    let Some(cuda) = open() else { return };
    let mut rig = Rig::new(case, cuda, seed).fed(fed);
    let together = whole(&mut rig, case, &Operation::ALL);
    let step = case.sequences.len().div_ceil(16);
    for (row, sequence) in case.sequences.iter().enumerate().step_by(step) {
        let work = case.batch(std::iter::once((sequence, sequence.done..sequence.len)));
        for (alone, together) in rig.run(&work, &Operation::ALL).iter().zip(&together) {
            let columns = row * together.cols..(row + 1) * together.cols;
            assert_same_bits(alone.name, &alone.values, &together.values[columns]);
        }
    }
}

/// Two steps of decoding one after the other, against the reference: the second attends over what
/// the first has stored.
fn check_two_steps(case: &Case, seed: u64) {
    let Some(cuda) = open() else { return };
    let reference = cpu(Isa::Reference, 1);
    let (outputs, expected) = (two_steps(case, seed, cuda), two_steps(case, seed, reference));
    for (output, expected) in outputs.iter().zip(&expected) {
        let tolerance = tolerance(output.name, case.shape.dtype, false);
        assert_within(tolerance, output.name, &output.values, &expected.values);
    }
}

/// Attention of the last two tokens of each sequence that has two.
fn two_steps<B: Backend>(case: &Case, seed: u64, backend: B) -> Vec<Output> {
    let mut rig = Rig::new(case, backend, seed);
    let long = || case.sequences.iter().filter(|sequence| sequence.len >= 2);
    rig.store(&case.batch(long().map(|s| (s, 0..s.len - 2))));
    let step = |back| case.batch(long().map(move |s| (s, s.len - back..s.len - back + 1)));
    let steps = [step(2), step(1)].into_iter().filter(|step| !step.1.is_empty());
    steps.flat_map(|step| rig.run(&step, &[Operation::Attention])).collect()
}

/// A product against the reference; few rows also alone, and the whole once more.
fn check_product(shape: &Shape, seed: u64) {
    let x = Random(!seed).values(shape.rows * shape.inputs);
    let many = shape.rows > 128;
    for fed in [false, true] {
        let Some(mut cuda) = open() else { return };
        let make_reference: Make<Cpu> = if fed { normed } else { load };
        let make: Make<Cuda> = if fed { normed } else { load };
        let reference = (&mut cpu(Isa::Reference, 1), make_reference);
        let expected = product(reference, shape, &x, seed);
        let y = product((&mut cuda, make), shape, &x, seed);
        let tolerance = match shape.dtype {
            Dtype::F32 | Dtype::F16 => 1e-5,
            Dtype::Bf16 if many => 1e-2,
            Dtype::Bf16 => 2e-3,
        };
        assert_within(tolerance, &format!("{shape:?}, fed: {fed}"), &y, &expected);
        assert_same_bits("again", &product((&mut cuda, make), shape, &x, seed), &y);
        for row in [0, shape.rows / 2, shape.rows - 1].into_iter().filter(|_| !many) {
            let x = &x[row * shape.inputs..][..shape.inputs];
            let alone = product((&mut cuda, make), shape, x, seed);
            assert_same_bits("row", &alone, &y[row * shape.outputs..][..shape.outputs]);
        }
    }
}

/// Different ways to draw from the same logits. A draw may fall on either side of a border that
/// the two backends' rounding moves; nothing else may differ.
fn check_sample(vocabulary: usize, rows: usize, seed: u64) {
    let Some(mut cuda) = open() else { return };
    let random = &mut Random(seed);
    let logits: Vec<f32> = random.values(vocabulary).iter().map(|value| value * 6.0).collect();
    let mask: std::sync::Arc<[u32]> =
        (0..vocabulary.div_ceil(32)).map(|_| random.next() as u32 | 1).collect();
    let ways: Vec<SampleRow> = (0..rows)
        .map(|position| SampleRow {
            temperature: [0.0, 0.7, 1.0, 1.5][random.below(4)],
            top_k: [0, 0, 1, 40, 300][random.below(5)],
            top_p: [1.0, 1.0, 0.9, 0.3][random.below(4)],
            seed: random.next(),
            position: position as u64,
            logprobs: [None, None, Some(0), Some(5)][random.below(4)],
            mask: [None, None, Some(mask.clone())][random.below(3)].clone(),
        })
        .collect();
    let expected = sample_on(&mut cpu(Isa::best(), 2), &logits, &ways);
    let sampled = sample_on(&mut cuda, &logits, &ways);
    assert_eq!(sampled, sample_on(&mut cuda, &logits, &ways), "drawn twice");
    assert_eq!(sampled.len(), ways.len());
    let mut moved = 0;
    for ((sampled, expected), how) in sampled.iter().zip(&expected).zip(&ways) {
        if sampled.token != expected.token {
            assert!(how.temperature > 0.0 && how.top_k != 1, "{how:?}: {sampled:?} {expected:?}");
            moved += 1;
            continue;
        }
        let close = |a: f32, b: f32| (a - b).abs() <= 1e-4;
        let both = (sampled.logprob, expected.logprob);
        assert!(both == (None, None) || close(both.0.unwrap(), both.1.unwrap()), "{both:?}");
        assert_eq!(sampled.top.len(), expected.top.len());
        for (top, expected) in sampled.top.iter().zip(&expected.top) {
            assert_eq!(top.token, expected.token);
            assert!(close(top.logprob, expected.logprob), "{top:?} {expected:?}");
        }
    }
    assert!(moved <= 1 + rows / 500, "{moved} of {rows} draws differ");
}

fn small(seed: u64, operation: Operation) {
    check(&Case::new(seed), seed, &[operation]);
}

fn large(operation: Operation) {
    if open().is_none() {
        return;
    }
    for (seed, plan) in (1..).zip(decode_plans().into_iter().chain(prefill_plans())) {
        eprintln!("{}", plan.name);
        check(&Case::planned(&plan.plan, &mut Random(seed)), seed, &[operation]);
    }
}

/// At most so many cases, fewer by `PROPTEST_CASES`. A fault of the device outlives the case that
/// met it, so nothing is tried again.
fn cases() -> ProptestConfig {
    let cases = ProptestConfig::default().cases.min(12);
    ProptestConfig { max_shrink_iters: 0, ..crate::cases(cases) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn small_embed(seed: u64) {
        small(seed, Operation::Embed);
    }

    #[test]
    fn small_shrink(seed: u64) {
        small(seed, Operation::Shrink);
    }

    #[test]
    fn small_rope_store(seed: u64) {
        small(seed, Operation::RopeStore);
    }

    #[test]
    fn small_norm(seed: u64) {
        small(seed, Operation::Norm);
    }

    #[test]
    fn small_norm_of_many_rows(seed: u64) {
        check(&Case::of_many_rows(seed), seed, &[Operation::Norm]);
    }

    #[test]
    fn small_activate(seed: u64) {
        small(seed, Operation::Activate);
    }

    #[test]
    fn small_products(seed: u64) {
        small(seed, Operation::Products);
    }

    #[test]
    fn small_decode_products(seed: u64) {
        check(&Case::new(seed).decoding(), seed, &[Operation::Products]);
    }

    #[test]
    fn small_attention(seed: u64) {
        small(seed, Operation::Attention);
    }

    #[test]
    fn small_decode(seed: u64) {
        check(&Case::new(seed).decoding(), seed, &Operation::ALL);
    }

    #[test]
    fn small_decode_two_steps(seed: u64) {
        check_two_steps(&Case::new(seed), seed);
    }

    #[test]
    fn small_decode_rows_are_invariant(seed: u64, fed: bool) {
        check_decode_rows(&Case::new(seed).decoding(), seed, fed);
    }

    #[test]
    fn small_decode_many_rows_are_invariant(seed: u64, fed: bool) {
        check_decode_rows(&Case::of_many_sequences(seed).decoding(), seed, fed);
    }

    #[test]
    fn small_matmul(
        rows in 1usize..140,
        inputs in 1usize..300,
        outputs in 1usize..150,
        dtype in 0usize..3,
        seed: u64,
    ) {
        check_product(&Shape { rows, inputs, outputs, dtype: DTYPES[dtype] }, seed);
    }

    #[test]
    fn small_matmul_of_few_rows(
        rows in 1usize..=128,
        chunks in 1usize..16,
        outputs in 1usize..40,
        seed: u64,
    ) {
        let (inputs, outputs) = (64 * chunks, 8 * outputs);
        check_product(&Shape { rows, inputs, outputs, dtype: Dtype::Bf16 }, seed);
    }

    #[test]
    fn small_sample(vocabulary in 1usize..3000, rows in 1usize..20, seed: u64) {
        check_sample(vocabulary, rows, seed);
    }
}

#[test]
fn small_loads_run_beside_steps() {
    for seed in 1..5 {
        if open().is_some() {
            loading::check(&Case::new(seed).decoding(), seed, || open().unwrap());
        }
    }
}

#[test]
fn large_loads_run_beside_steps() {
    for (seed, plan) in (1..).zip(decode_plans()) {
        if open().is_some() {
            eprintln!("{}", plan.name);
            let case = Case::planned(&plan.plan, &mut Random(seed));
            loading::check(&case, seed, || open().unwrap());
        }
    }
}

#[test]
fn small_images_lie_in_pinned_memory_and_are_counted() {
    let Some(mut cuda) = open() else { return };
    let memory = cuda.host_memory();
    let first = memory.buffer(100_000);
    let address = first.bytes().as_ptr();
    drop(first);
    assert_eq!(memory.buffer(100_000).bytes().as_ptr(), address, "pinned once, used twice");
    assert!(memory.status().pinned, "{:?}", memory.refusal());
    let shape = &Case::new(1).shape;
    cuda.reserve(shape, 100).unwrap();
    let counted = cuda.memory();
    assert_eq!(counted.pool, 100 * shape.slab_bytes());
    if let Some(reading) = Cuda::monitor(0).and_then(|monitor| monitor.read()) {
        eprintln!("counted {counted:?}, seen {reading:?}");
        assert!(counted.driver.is_some() && reading.used <= reading.total);
    }
}

#[test]
fn small_truths() {
    if open().is_some() {
        truths::check_all(|| open().unwrap());
    }
}

#[test]
fn large_embed() {
    large(Operation::Embed);
}

#[test]
fn large_shrink() {
    large(Operation::Shrink);
    for named in [plans::long_prompts(), plans::long_tiles()] {
        eprintln!("{}", named.name);
        check(&Case::planned(&named.plan, &mut Random(1)), 1, &[Operation::Shrink]);
    }
}

#[test]
fn large_rope_store() {
    large(Operation::RopeStore);
}

#[test]
fn large_norm() {
    large(Operation::Norm);
}

#[test]
fn large_activate() {
    large(Operation::Activate);
}

#[test]
fn large_products() {
    large(Operation::Products);
}

#[test]
fn large_attention() {
    large(Operation::Attention);
    for (seed, plan) in (1..).zip(attention_plans()) {
        eprintln!("{}", plan.name);
        let case = Case::planned(&plan.plan, &mut Random(seed));
        check(&case, seed, &[Operation::Attention]);
        check_decode_rows(&case, seed, false);
        check_two_steps(&case, seed);
    }
}

#[test]
fn large_decode_rows_are_invariant() {
    let more = [plans::long_tiles(), plans::several_chunks()];
    for (seed, plan) in (1..).zip(decode_plans().into_iter().chain(more)) {
        eprintln!("{}", plan.name);
        check_decode_rows(&Case::planned(&plan.plan, &mut Random(seed)), seed, true);
    }
}

#[test]
fn large_matmul() {
    let shapes = [
        (1, 512, 1024),
        (8, 1024, 6144),
        (17, 2048, 512),
        (64, 1024, 1032),
        (90, 1024, 17_024),
        (128, 576, 1536),
        (129, 512, 1024),
        (300, 1024, 776),
        (1000, 512, 512),
        (33, 500, 1001),
    ];
    for (rows, inputs, outputs) in shapes {
        for dtype in DTYPES {
            check_product(&Shape { rows, inputs, outputs, dtype }, 7);
        }
    }
}

#[test]
fn large_sample() {
    for (vocabulary, rows) in [(32_000, 128), (128_256, 64), (152_064, 9), (50_257, 300)] {
        check_sample(vocabulary, rows, 3);
    }
}

#[test]
fn small_greedy_takes_the_lower_id_of_equals() {
    let Some(mut cuda) = open() else { return };
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for logits in [
        &[1.0, 3.0, 3.0][..],
        &[nan, 1.0, nan, 2.0],
        &[nan, nan],
        &[-inf, -inf, -5.0],
        &[-inf, -inf],
        &[0.0, inf, inf],
        &[-0.0, 0.0],
        &[7.0],
    ] {
        let expected = sample_on(&mut cpu(Isa::best(), 1), logits, &[GREEDY]);
        assert_eq!(sample_on(&mut cuda, logits, &[GREEDY]), expected, "{logits:?}");
    }
}
