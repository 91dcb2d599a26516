//! Images that are copied into the pool beside running steps.

use switchyard_kernels::Backend;

use crate::{
    assert_same_bits,
    case::{Case, Sequence},
    rig::{Operation, Output, Rig, image},
    whole,
};

/// Bytes of an image that takes a while, ahead of the one that a step waits for.
const BULK: usize = 32 << 20;

/// Steps of a case that decodes give the same bytes while images are copied beside them, and so
/// does the step that uses an image as soon as it is there.
pub(crate) fn check<B: Backend>(case: &Case, seed: u64, open: impl Fn() -> B) {
    let expected = whole(&mut Rig::new(case, open(), seed), case, &Operation::ALL);
    let bulk = BULK.div_ceil(case.shape.slab_bytes()).min(2048);
    let mut rig = Rig::bare(case, (open(), bulk), seed);
    let Some(late) = case.adapters.len().checked_sub(1) else { return };
    for slot in 0..late {
        let load = rig.begin_load(slot);
        rig.backend.await_load(&load);
        rig.bind(slot);
    }
    rig.store(&case.batch(case.sequences.iter().map(|s| (s, 0..s.done))));
    let bytes: Vec<u8> = (0..bulk * case.shape.slab_bytes()).map(|i| i as u8).collect();
    let slabs: Vec<u32> = (0..bulk).map(|slab| (case.slabs + slab) as u32).collect();
    let bytes = image(&rig.backend, &bytes);
    let loads = [rig.backend.load(bytes, &slabs), rig.begin_load(late)];
    // Nobody uses the late adapter yet.
    let early = |s: &&Sequence| s.adapter.is_none_or(|slot| slot.0 as usize != late);
    let sequences: Vec<&Sequence> = case.sequences.iter().filter(early).collect();
    let batch = case.batch(sequences.iter().map(|&s| (s, s.done..s.len)));
    if !batch.1.is_empty() {
        let rows: Vec<usize> = (0..case.sequences.len())
            .filter(|&i| sequences.iter().any(|s| std::ptr::eq(*s, &case.sequences[i])))
            .collect();
        for _ in 0..2 {
            compare(&rig.run(&batch, &Operation::ALL), &expected, &rows);
        }
    }
    rig.backend.await_load(&loads[1]);
    for load in &loads {
        assert!(rig.backend.loaded(load).is_some(), "images arrive in order");
    }
    rig.bind(late);
    let rows: Vec<usize> = (0..case.sequences.len()).collect();
    let batch = case.batch(case.sequences.iter().map(|s| (s, s.done..s.len)));
    compare(&rig.run(&batch, &Operation::ALL), &expected, &rows);
}

/// Rows of outputs, in order, against those rows of what is expected.
fn compare(outputs: &[Output], expected: &[Output], rows: &[usize]) {
    for (output, expected) in outputs.iter().zip(expected) {
        for (found, &row) in output.values.chunks(output.cols).zip(rows) {
            let columns = row * expected.cols..(row + 1) * expected.cols;
            assert_same_bits(output.name, found, &expected.values[columns]);
        }
    }
}
