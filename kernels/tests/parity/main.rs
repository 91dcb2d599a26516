//! Every operation on every path of this machine against the reference, and every path against
//! itself: rows alone and among others, one thread and several, chunked and whole. The CUDA
//! backend is such a path where there is a GPU.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod case;
mod cuda;
mod loading;
mod matmul;
mod random;
mod rig;
mod sampling;
mod truths;

use proptest::prelude::*;
use switchyard_kernels::{
    Backend, Dtype,
    cpu::{Cpu, Isa},
};

use case::Case;
use rig::{Operation, Output, Rig};

/// So many random cases, and no file of past failures.
pub(crate) fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..Default::default() }
}

/// The fast paths of this machine; says which are left out.
pub(crate) fn paths() -> Vec<Isa> {
    let fast = Isa::ALL.into_iter().filter(|&isa| isa != Isa::Reference);
    let (run, skipped): (Vec<_>, Vec<_>) = fast.partition(|isa| isa.available());
    skipped.iter().for_each(|isa| eprintln!("skipped {isa}: this machine cannot run it"));
    run
}

pub(crate) fn cpu(isa: Isa, threads: usize) -> Cpu {
    Cpu::new(isa, threads).unwrap()
}

pub(crate) fn assert_close(name: &str, got: &[f32], expected: &[f32]) {
    assert_within(1e-5, name, got, expected);
}

/// Largest difference over the largest reference value.
pub(crate) fn assert_within(tolerance: f32, name: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    let size = expected.iter().fold(0f32, |size, value| size.max(value.abs()));
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        let close = (got - expected).abs() <= tolerance * size;
        assert!(close, "{name}[{i}]: {got} instead of {expected}, largest {size}");
    }
}

pub(crate) fn assert_same_bits(name: &str, got: &[f32], expected: &[f32]) {
    assert_eq!(got.len(), expected.len());
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert_eq!(got.to_bits(), expected.to_bits(), "{name}[{i}]: {got} and {expected}");
    }
}

/// What is allowed beside the order of sums: the activations of a product beside bf16 weights may
/// lie on the border of two halves, as they come out of another product.
fn tolerance(output: &str, dtype: Dtype) -> f32 {
    if dtype == Dtype::Bf16 && ["product", "sum"].contains(&output) { 5e-3 } else { 1e-5 }
}

/// Fills the pages before the batch under test, then runs it.
pub(crate) fn whole<B: Backend>(
    rig: &mut Rig<'_, B>,
    case: &Case,
    operations: &[Operation],
) -> Vec<Output> {
    if operations.contains(&Operation::Attention) {
        rig.store(&case.batch(case.sequences.iter().map(|s| (s, 0..s.done))));
    }
    rig.run(&case.batch(case.sequences.iter().map(|s| (s, s.done..s.len))), operations)
}

/// Everything on one path.
fn on(isa: Isa, threads: usize, case: &Case, seed: u64) -> Vec<Output> {
    whole(&mut Rig::new(case, cpu(isa, threads), seed), case, &Operation::ALL)
}

/// Compares each row of a batch with the same row run alone, one token after the other.
fn check_rows_alone(rig: &mut Rig<'_, Cpu>, case: &Case, together: &[Output]) {
    let mut first = 0;
    for sequence in &case.sequences {
        for position in 0..sequence.len {
            let work = case.batch(std::iter::once((sequence, position..position + 1)));
            if position < sequence.done {
                rig.store(&work);
                continue;
            }
            let row = first + position - sequence.done;
            for (alone, together) in rig.run(&work, &Operation::ALL).iter().zip(together) {
                let columns = row * together.cols..(row + 1) * together.cols;
                assert_same_bits(alone.name, &alone.values, &together.values[columns]);
            }
        }
        first += sequence.len - sequence.done;
    }
}

proptest! {
    #![proptest_config(cases(16))]

    #[test]
    fn loads_run_beside_steps(seed: u64) {
        loading::check(&Case::new(seed).decoding(), seed, || cpu(Isa::best(), 2));
    }

    #[test]
    fn operations_match_the_reference(seed: u64) {
        let case = Case::new(seed);
        let expected = on(Isa::Reference, 1, &case, seed);
        for isa in paths() {
            let outputs = on(isa, 2, &case, seed);
            for (output, expected) in outputs.iter().zip(&expected) {
                let tolerance = tolerance(output.name, case.shape.dtype);
                assert_within(tolerance, output.name, &output.values, &expected.values);
            }
        }
    }

    #[test]
    fn rows_are_invariant(seed: u64) {
        let case = Case::new(seed);
        for isa in paths() {
            let together = on(isa, 1, &case, seed);
            check_rows_alone(&mut Rig::new(&case, cpu(isa, 1), seed), &case, &together);
            for threads in 2..4 {
                let outputs = on(isa, threads, &case, seed);
                for (output, expected) in outputs.iter().zip(&together) {
                    assert_same_bits(output.name, &output.values, &expected.values);
                }
            }
        }
    }
}
