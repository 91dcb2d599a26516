//! What every path, the reference included, must satisfy from outside knowledge: small cases
//! worked out by hand.

use std::sync::Arc;

use switchyard_kernels::{
    AdapterSlot, AttentionShape, Backend, Batch, Delta, Dtype, Linear, LinearTiles, Pending,
    ResidentAdapter, RowToken, Segment, Site, Tile, TileMap,
    cpu::{Cpu, Isa},
};

use crate::{
    assert_close, cpu,
    random::{matrix, write},
    rig::{image, load},
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

/// A name and what must hold.
type Truth<B> = (&'static str, fn(&mut B));

/// Every truth, each on a backend of its own.
pub(crate) fn check_all<B: Backend>(backend: impl Fn() -> B) {
    let truths: [Truth<B>; 7] = [
        ("drawn_tokens_are_those_of_the_latest_draw", drawn_tokens_are_those_of_the_latest_draw),
        ("rotation_is_complex_multiplication", rotation_is_complex_multiplication),
        ("equal_keys_give_the_mean_of_the_values_so_far", equal_keys_give_the_mean),
        ("attention_weighs_by_the_scaled_softmax", attention_weighs_by_the_scaled_softmax),
        ("norm_divides_by_the_root_mean_square", norm_divides_by_the_root_mean_square),
        ("the_gate_is_a_sigmoid_linear_unit", the_gate_is_a_sigmoid_linear_unit),
        ("a_delta_lands_on_its_own_linear", a_delta_lands_on_its_own_linear),
    ];
    for (name, truth) in truths {
        eprintln!("{name}");
        truth(&mut backend());
    }
}

#[test]
fn hold_on_every_path() {
    for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
        check_all(|| cpu(isa, 2));
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

fn plain<B: Backend>(y: &B::Tensor) -> Pending<'_, B> {
    Pending { y, bias: None, delta: None }
}

/// A step may start from tokens that nobody has collected.
fn drawn_tokens_are_those_of_the_latest_draw<B: Backend>(backend: &mut B) {
    let logits = load(backend, 4, &[0.0, 9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 9.0]);
    let draw = backend.sample(&logits, &[GREEDY, GREEDY]);
    let table = backend.matrix(matrix(Dtype::F32, 1, &[0.0, 10.0, 20.0, 30.0])).unwrap();
    let tokens = vec![RowToken::Drawn(1), RowToken::Known(2), RowToken::Drawn(0)];
    backend.begin(&Batch { tokens, ..batch(3, None) });
    let mut rows = backend.tensor(3, 1).unwrap();
    backend.embed(&table, &mut rows);
    assert_eq!(backend.read(&rows), [30.0, 20.0, 10.0]);
    let drawn: Vec<u32> = backend.collect(draw).iter().map(|sampled| sampled.token).collect();
    assert_eq!(drawn, [1, 3]);
    let nothing = backend.sample(&logits, &[]);
    assert!(backend.collect(nothing).is_empty());
}

fn rotation_is_complex_multiplication<B: Backend>(backend: &mut B) {
    let shape = AttentionShape { inv_freq: vec![0.5], ..SHAPE };
    backend.reserve(&shape, 2).unwrap();
    let row: Vec<f32> = (0..16).map(|i| i as f32 - 5.0).collect();
    let qkv = load(backend, 16, &row.repeat(3));
    backend.begin(&batch(3, None));
    let mut q = backend.tensor(3, 8).unwrap();
    backend.rope_store(0, plain(&qkv), &mut q);
    let q = backend.read(&q);
    for position in 0..3 {
        let (sine, cosine) = (position as f32 * 0.5).sin_cos();
        for head in 0..2 {
            // Elements 0 and 1 are the pair; 2 and 3 lie behind the rotary part.
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| row[head * 4 + i]);
            let expected = [a * cosine - b * sine, a * sine + b * cosine, c, d];
            assert_close("q", &q[position * 8 + head * 4..][..4], &expected);
        }
    }
}

fn equal_keys_give_the_mean<B: Backend>(backend: &mut B) {
    backend.reserve(&SHAPE, 2).unwrap();
    let rows = 20;
    let row = |i: usize| {
        let mut row = vec![0.25; 16];
        row[12..].fill(i as f32);
        row
    };
    let qkv = load(backend, 16, &(0..rows).flat_map(row).collect::<Vec<_>>());
    backend.begin(&batch(rows as u32, None));
    let (mut q, mut out) = (backend.tensor(rows, 8).unwrap(), backend.tensor(rows, 8).unwrap());
    backend.rope_store(0, plain(&qkv), &mut q);
    backend.attention(0, &q, &mut out);
    let mean = |i: usize| vec![i as f32 / 2.0; 8];
    assert_close("mean", &backend.read(&out), &(0..rows).flat_map(mean).collect::<Vec<_>>());
}

fn attention_weighs_by_the_scaled_softmax<B: Backend>(backend: &mut B) {
    backend.reserve(&SHAPE, 2).unwrap();
    // Second query: [2, 0, 0, 0] and [0, 2, 0, 0]; keys [1, 0, ..] and [0, 3, ..].
    let first = [0., 0., 0., 0., 0., 0., 0., 0., 1., 0., 0., 0., 1., 0., 0., 0.];
    let second = [2., 0., 0., 0., 0., 2., 0., 0., 0., 3., 0., 0., 0., 1., 0., 0.];
    let qkv = load(backend, 16, &[first, second].concat());
    backend.begin(&batch(2, None));
    let (mut q, mut out) = (backend.tensor(2, 8).unwrap(), backend.tensor(2, 8).unwrap());
    backend.rope_store(0, plain(&qkv), &mut q);
    backend.attention(0, &q, &mut out);
    // Scores / sqrt(4): head 0 has 1 and 0, head 1 has 0 and 3.
    let weight = |a: f32, b: f32| a.exp() / (a.exp() + b.exp());
    let expected = [weight(1., 0.), weight(0., 1.), 0., 0., weight(0., 3.), weight(3., 0.), 0., 0.];
    assert_close("weights", &backend.read(&out)[8..], &expected);
}

/// After adding.
fn norm_divides_by_the_root_mean_square<B: Backend>(backend: &mut B) {
    let mut residual = load(backend, 2, &[1.0, 5.0]);
    let y = load(backend, 2, &[2.0, -1.5]);
    let mut out = backend.tensor(1, 2).unwrap();
    let [bias, weight] = [[0.0, 0.5], [1.0, 2.0]].map(|values| backend.vector(&values).unwrap());
    let add = Pending { y: &y, bias: Some(&bias), delta: None };
    backend.norm(&mut residual, Some(add), (&weight, 0.0), &mut out);
    assert_eq!(backend.read(&residual), [3.0, 4.0]);
    let root = 12.5f32.sqrt();
    assert_close("norm", &backend.read(&out), &[3.0 / root, 8.0 / root]);
}

fn the_gate_is_a_sigmoid_linear_unit<B: Backend>(backend: &mut B) {
    let y = load(backend, 6, &[1.0, 0.0, -100.0, 2.0, 7.0, 1.0]);
    let mut out = backend.tensor(1, 3).unwrap();
    backend.activate(plain(&y), &mut out);
    assert_close("silu", &backend.read(&out), &[2.0 * 0.731_058_6, 0.0, 0.0]);
}

/// A rank-1 adapter on the second of a site's linears, worked out by hand.
fn a_delta_lands_on_its_own_linear<B: Backend>(backend: &mut B) {
    backend.reserve(&SHAPE, 3).unwrap();
    // A `[8, 2]` at 0, B `[2, 8]` at 128; only rank 0 is not padding.
    let mut bytes = vec![0; 256];
    write(Dtype::F32, &[1.0, 2.0], &mut bytes);
    let b = [3.0, 0., 0., 0., 0., 0., 0., 0., 4.0];
    write(Dtype::F32, &b, &mut bytes[128..]);
    let copy = backend.load(image(backend, &bytes), &[2]);
    backend.await_load(&copy);
    assert!(backend.loaded(&copy).is_some());
    let a = Tile { ranks: 0..8, long: 0..2, slab: 0, offset: 0 };
    let b = Tile { offset: 128, ..a.clone() };
    let tiles = LinearTiles { padded_rank: 8, scale: 0.5, a: vec![a], b: vec![b] };
    let mut linears = vec![None; 7];
    linears[Linear::Up as usize] = Some(tiles);
    let map = Arc::new(TileMap { dtype: Dtype::F32, slabs: 1, linears });
    backend.bind(AdapterSlot(0), ResidentAdapter { map, slabs: vec![2] });
    let x = load(backend, 2, &[1.0, 1.0]);
    let y = load(backend, 4, &[100.0, 100.0, 10.0, 20.0]);
    let mut s = backend.tensor(1, 8).unwrap();
    let mut out = backend.tensor(1, 2).unwrap();
    backend.begin(&batch(1, Some(AdapterSlot(0))));
    backend.shrink(&x, 0, Site::GateUp, &mut s);
    assert_eq!(backend.read(&s)[0], 1.5);
    let delta = Some(Delta { shrunk: &s, layer: 0, site: Site::GateUp });
    backend.activate(Pending { y: &y, bias: None, delta }, &mut out);
    // silu(100) = 100; up = [10 + 3 * 1.5, 20 + 4 * 1.5]
    assert_close("delta", &backend.read(&out), &[1450.0, 2600.0]);
}

#[test]
fn a_path_that_the_machine_lacks_is_refused() {
    for isa in Isa::ALL.into_iter().filter(|isa| !isa.available()) {
        let error = Cpu::new(isa, 1).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.contains(isa.name()) && error.contains(Isa::best().name()), "{error}");
    }
    assert!(Isa::best().available());
}
