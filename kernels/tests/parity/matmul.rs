//! Matrix products of all sizes.

use proptest::prelude::*;
use switchyard_kernels::{Backend, Dtype, cpu::Isa};

use crate::{
    assert_close, assert_same_bits,
    case::DTYPES,
    cpu, paths,
    random::{Random, matrix},
    rig::{Make, load, poisoned},
};

#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) dtype: Dtype,
}

/// `[rows, outputs]` of `x` times the weights of a seed.
pub(crate) fn product<B: Backend>(
    (backend, make): (&mut B, Make<B>),
    shape: &Shape,
    x: &[f32],
    seed: u64,
) -> Vec<f32> {
    let w = Random(seed).matrix(shape.dtype, shape.outputs, shape.inputs);
    let w = backend.matrix(w).unwrap();
    let mut y = poisoned(backend, x.len() / shape.inputs, shape.outputs);
    let x = make(backend, shape.inputs, x);
    backend.matmul(&x, &w, &mut y);
    backend.read(&y)
}

fn on((isa, threads): (Isa, usize), shape: &Shape, x: &[f32], seed: u64) -> Vec<f32> {
    product((&mut cpu(isa, threads), load), shape, x, seed)
}

fn check(shape: &Shape, seed: u64) {
    let x = Random(!seed).values(shape.rows * shape.inputs);
    let expected = on((Isa::Reference, 1), shape, &x, seed);
    for isa in paths() {
        let y = on((isa, 1), shape, &x, seed);
        assert_close("matmul", &y, &expected);
        for threads in 2..4 {
            assert_same_bits("threads", &on((isa, threads), shape, &x, seed), &y);
        }
        for row in [0, shape.rows / 2, shape.rows - 1] {
            let alone = on((isa, 1), shape, &x[row * shape.inputs..][..shape.inputs], seed);
            assert_same_bits("row", &alone, &y[row * shape.outputs..][..shape.outputs]);
        }
    }
}

proptest! {
    #![proptest_config(crate::cases(48))]

    #[test]
    fn any_shape(
        rows in 1usize..131,
        inputs in 1usize..300,
        outputs in 1usize..150,
        dtype in 0usize..3,
        seed: u64,
    ) {
        check(&Shape { rows, inputs, outputs, dtype: DTYPES[dtype] }, seed);
    }
}

#[test]
fn shapes_of_models() {
    for (rows, inputs, outputs) in [(1, 2048, 257), (33, 1024, 96), (128, 512, 192), (17, 32, 16)] {
        for dtype in DTYPES {
            check(&Shape { rows, inputs, outputs, dtype }, 7);
        }
    }
}

/// Against bf16 weights a product sees activations rounded to bf16, ties to even.
#[test]
fn activations_are_rounded_for_bf16_weights() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        let mut cpu = cpu(isa, 1);
        // 1 + 2^-8 is halfway between 1 and 1 + 2^-7; 1 + 3 * 2^-8 between odd and even.
        let x = load(&mut cpu, 2, &[1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        for (dtype, expected) in [
            (Dtype::Bf16, [1.0, 1.0 + 4.0 / 256.0]),
            (Dtype::F32, [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]),
            (Dtype::F16, [1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]),
        ] {
            let w = cpu.matrix(matrix(dtype, 2, &[1.0, 0.0, 0.0, 1.0])).unwrap();
            let mut y = cpu.tensor(1, 2).unwrap();
            cpu.matmul(&x, &w, &mut y);
            assert_eq!(cpu.read(&y), expected, "{isa} {dtype:?}");
        }
    }
}
