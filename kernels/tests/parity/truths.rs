//! What every path, the reference included, must satisfy from outside knowledge: small cases
//! worked out by hand.

use std::sync::Arc;

use switchyard_kernels::{
    AdapterSlot, AttentionShape, Backend, Batch, Delta, Dtype, Linear, LinearTiles, Pending,
    ResidentAdapter, RowToken, Segment, Site, Tile, TileMap,
    cpu::{Cpu, Isa, Tensor},
};

use crate::{
    assert_close,
    random::{matrix, write},
    rig::load,
    sampling::GREEDY,
};

const SHAPE: AttentionShape = AttentionShape {
    layers: 1,
    heads: 2,
    kv_heads: 1,
    head_dim: 4,
    dtype: Dtype::F32,
    inv_freq: Vec::new(),
};

fn on_every_path(check: impl Fn(&mut Cpu)) {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        check(&mut Cpu::new(isa, 2).unwrap());
    }
}

/// One sequence from position 0, its pages in slabs 1, 0.
fn batch(rows: u32, adapter: Option<AdapterSlot>) -> Batch {
    let pages = rows.div_ceil(16);
    Batch {
        tokens: vec![RowToken::Known(0); rows as usize],
        positions: (0..rows).collect(),
        seq_indptr: vec![0, rows],
        page_indptr: vec![0, pages],
        page_indices: vec![1, 0][..pages as usize].to_vec(),
        segments: vec![Segment { rows: 0..rows, adapter }],
        logit_rows: vec![rows - 1],
    }
}

fn plain(y: &Tensor) -> Pending<'_, Cpu> {
    Pending { y, bias: None, delta: None }
}

#[test]
fn a_step_may_start_from_tokens_that_nobody_has_collected() {
    on_every_path(|cpu| {
        let logits = load(cpu, 4, &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]);
        let draw = cpu.sample(&logits, &[GREEDY, GREEDY]);
        let table = cpu.matrix(matrix(Dtype::F32, 1, &[0.0, 10.0, 20.0, 30.0])).unwrap();
        let tokens = vec![RowToken::Drawn(1), RowToken::Known(2), RowToken::Drawn(0)];
        cpu.begin(&Batch { tokens, ..batch(3, None) });
        let mut rows = cpu.tensor(3, 1).unwrap();
        cpu.embed(&table, &mut rows);
        assert_eq!(cpu.read(&rows), [30.0, 20.0, 10.0]);
        let drawn: Vec<u32> = cpu.collect(draw).iter().map(|sampled| sampled.token).collect();
        assert_eq!(drawn, [1, 3]);
        let nothing = cpu.sample(&logits, &[]);
        assert!(cpu.collect(nothing).is_empty());
    });
}

#[test]
fn rotation_is_complex_multiplication() {
    on_every_path(|cpu| {
        let shape = AttentionShape { inv_freq: vec![0.5], ..SHAPE };
        cpu.reserve(&shape, 2).unwrap();
        let row: Vec<f32> = (0..16).map(|i| i as f32 - 5.0).collect();
        let qkv = load(cpu, 16, &row.repeat(3));
        cpu.begin(&batch(3, None));
        let mut q = cpu.tensor(3, 8).unwrap();
        cpu.rope_store(0, plain(&qkv), &mut q);
        let q = cpu.read(&q);
        for position in 0..3 {
            let (sine, cosine) = (position as f32 * 0.5).sin_cos();
            for head in 0..2 {
                // Elements 0 and 1 are the pair; 2 and 3 lie behind the rotary part.
                let [a, b, c, d] = [0, 1, 2, 3].map(|i| row[head * 4 + i]);
                let expected = [a * cosine - b * sine, a * sine + b * cosine, c, d];
                assert_close("q", &q[position * 8 + head * 4..][..4], &expected);
            }
        }
    });
}

#[test]
fn equal_keys_give_the_mean_of_the_values_so_far() {
    on_every_path(|cpu| {
        cpu.reserve(&SHAPE, 2).unwrap();
        let rows = 20;
        let row = |i: usize| {
            let mut row = vec![0.25; 16];
            row[12..].fill(i as f32);
            row
        };
        let qkv = load(cpu, 16, &(0..rows).flat_map(row).collect::<Vec<_>>());
        cpu.begin(&batch(rows as u32, None));
        let (mut q, mut out) = (cpu.tensor(rows, 8).unwrap(), cpu.tensor(rows, 8).unwrap());
        cpu.rope_store(0, plain(&qkv), &mut q);
        cpu.attention(0, &q, &mut out);
        let mean = |i: usize| vec![i as f32 / 2.0; 8];
        assert_close("mean", &cpu.read(&out), &(0..rows).flat_map(mean).collect::<Vec<_>>());
    });
}

#[test]
fn attention_weighs_by_the_scaled_softmax() {
    on_every_path(|cpu| {
        cpu.reserve(&SHAPE, 2).unwrap();
        // Second query: [2, 0, 0, 0] and [0, 2, 0, 0]; keys [1, 0, ..] and [0, 3, ..].
        let first = [0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 0., 1., 0., 0., 0.];
        let second = [2., 0., 0., 0., 0., 2., 0., 0., 0., 3., 0., 0., 0., 1., 0., 0.];
        let qkv = load(cpu, 16, &[first, second].concat());
        cpu.begin(&batch(2, None));
        let (mut q, mut out) = (cpu.tensor(2, 8).unwrap(), cpu.tensor(2, 8).unwrap());
        cpu.rope_store(0, plain(&qkv), &mut q);
        cpu.attention(0, &q, &mut out);
        // Scores / sqrt(4): head 0 has 1 and 0, head 1 has 0 and 3.
        let weight = |a: f32, b: f32| a.exp() / (a.exp() + b.exp());
        let expected =
            [weight(1., 0.), weight(0., 1.), 0., 0., weight(0., 3.), weight(3., 0.), 0., 0.];
        assert_close("weights", &cpu.read(&out)[8..], &expected);
    });
}

#[test]
fn norm_divides_by_the_root_mean_square_after_adding() {
    on_every_path(|cpu| {
        let mut residual = load(cpu, 2, &[1.0, 5.0]);
        let y = load(cpu, 2, &[2.0, -1.5]);
        let mut out = cpu.tensor(1, 2).unwrap();
        let add = Pending { y: &y, bias: Some(&vec![0.0, 0.5]), delta: None };
        cpu.norm(&mut residual, Some(add), (&vec![1.0, 2.0], 0.0), &mut out);
        assert_eq!(cpu.read(&residual), [3.0, 4.0]);
        let root = 12.5f32.sqrt();
        assert_close("norm", &cpu.read(&out), &[3.0 / root, 8.0 / root]);
    });
}

#[test]
fn the_gate_is_a_sigmoid_linear_unit() {
    on_every_path(|cpu| {
        let y = load(cpu, 6, &[1.0, 0.0, -100.0, 2.0, 7.0, 1.0]);
        let mut out = cpu.tensor(1, 3).unwrap();
        cpu.activate(plain(&y), &mut out);
        assert_close("silu", &cpu.read(&out), &[2.0 * 0.731_058_6, 0.0, 0.0]);
    });
}

/// A rank-1 adapter on the second of a site's linears, worked out by hand.
#[test]
fn a_delta_lands_on_its_own_linear() {
    on_every_path(|cpu| {
        cpu.reserve(&SHAPE, 3).unwrap();
        // A `[8, 2]` at 0, B `[2, 8]` at 128; only rank 0 is not padding.
        let mut image = vec![0; 256];
        write(Dtype::F32, &[1.0, 2.0], &mut image);
        let b = [3.0, 0., 0., 0., 0., 0., 0., 0., 4.0];
        write(Dtype::F32, &b, &mut image[128..]);
        cpu.write_slab(2, &image);
        let a = Tile { ranks: 0..8, long: 0..2, slab: 0, offset: 0 };
        let b = Tile { offset: 128, ..a.clone() };
        let tiles = LinearTiles { padded_rank: 8, scale: 0.5, a: vec![a], b: vec![b] };
        let mut linears = vec![None; 7];
        linears[Linear::Up as usize] = Some(tiles);
        let map = Arc::new(TileMap { dtype: Dtype::F32, slabs: 1, linears });
        cpu.bind(AdapterSlot(0), ResidentAdapter { map, slabs: vec![2] });
        let x = load(cpu, 2, &[1.0, 1.0]);
        let y = load(cpu, 4, &[100.0, 100.0, 10.0, 20.0]);
        let mut s = cpu.tensor(1, 8).unwrap();
        let mut out = cpu.tensor(1, 2).unwrap();
        cpu.begin(&batch(1, Some(AdapterSlot(0))));
        cpu.shrink(&x, 0, Site::GateUp, &mut s);
        assert_eq!(cpu.read(&s)[0], 1.5);
        let delta = Some(Delta { shrunk: &s, layer: 0, site: Site::GateUp });
        cpu.activate(Pending { y: &y, bias: None, delta }, &mut out);
        // silu(100) = 100; up = [10 + 3 * 1.5, 20 + 4 * 1.5]
        assert_close("delta", &cpu.read(&out), &[1450.0, 2600.0]);
    });
}

#[test]
fn a_path_that_the_machine_lacks_is_refused() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.available()) {
        let error = Cpu::new(isa, 1).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(isa.name()) && error.contains(Isa::best().name()), "{error}");
    }
    assert!(Isa::best().available());
}
