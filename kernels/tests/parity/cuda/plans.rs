//! Sizes that reach the fast paths.

use switchyard_kernels::Dtype;

use crate::case::Plan;

pub(crate) struct Named {
    pub(crate) name: &'static str,
    pub(crate) plan: Plan,
}

const RANKS: [usize; 8] = [8, 16, 24, 32, 64, 100, 128, 256];
/// Sequence lengths around the borders of pages.
const BORDERS: [usize; 12] = [1, 16, 17, 18, 40, 256, 257, 258, 15, 33, 100, 129];

/// Sequences of which the last token is under test.
fn decoding(lens: impl IntoIterator<Item = usize>) -> Vec<(usize, usize)> {
    lens.into_iter().map(|len| (len, len - 1)).collect()
}

/// Every row is the last of its sequence.
pub(crate) fn decode_plans() -> Vec<Named> {
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (8, 2, 64, 32),
        hidden: 512,
        intermediate: 1408,
        ranks: &RANKS,
        adapters: 5,
        sequences: decoding(BORDERS),
    };
    let wide = || Plan { heads: (8, 2, 128, 64), hidden: 1024, sequences: Vec::new(), ..plan };
    let names = |name, plan| Named { name, plan };
    vec![
        names(
            "decode, 128 adapters, 128 sequences",
            Plan {
                ranks: &[8, 16],
                adapters: 128,
                sequences: decoding(BORDERS.into_iter().cycle().take(128)),
                ..wide()
            },
        ),
        names(
            "decode, one adapter, 128 sequences",
            Plan {
                ranks: &[16],
                adapters: 1,
                sequences: decoding(BORDERS.into_iter().rev().cycle().take(128)),
                ..wide()
            },
        ),
        names(
            "decode, 64 adapters of rank 8",
            Plan {
                ranks: &[8],
                adapters: 64,
                sequences: decoding(BORDERS.into_iter().cycle().take(64)),
                ..wide()
            },
        ),
        names(
            "decode, long context",
            Plan { adapters: 3, sequences: decoding([2100, 1025, 4, 700]), ..wide() },
        ),
        names(
            "decode, one sequence",
            Plan { ranks: &[64], adapters: 1, sequences: decoding([513]), ..wide() },
        ),
        names("decode, no adapter", Plan { adapters: 0, sequences: decoding(BORDERS), ..wide() }),
        names("decode, f16", Plan { dtype: Dtype::F16, sequences: decoding(BORDERS), ..wide() }),
        names("decode, f32", Plan { dtype: Dtype::F32, sequences: decoding(BORDERS), ..wide() }),
        names(
            "decode, long inputs",
            Plan {
                hidden: 4104,
                intermediate: 5632,
                ranks: &[8, 16, 40],
                sequences: decoding(BORDERS.into_iter().cycle().take(40)),
                ..wide()
            },
        ),
        high_tiles(),
        names("decode, heads of 64, ranks to 256", plan),
    ]
}

/// Products so large that a block has 128 outputs and more, of rows that fill no kernel.
fn high_tiles() -> Named {
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (8, 2, 128, 64),
        hidden: 4096,
        intermediate: 8832,
        ranks: &[8, 16, 40],
        adapters: 30,
        sequences: decoding(BORDERS.into_iter().cycle().take(90)),
    };
    Named { name: "decode, high tiles, 90 sequences", plan }
}

/// Every row is the last of its sequence: heads of all widths, turned in part, and more than eight
/// to a key, with several splits.
pub(crate) fn attention_plans() -> Vec<Named> {
    let plan = |name, heads, lens: &[usize]| {
        let sequences = decoding(lens.iter().copied());
        let (ranks, adapters) = (&RANKS[..], 0);
        let dtype = Dtype::Bf16;
        let plan = Plan { dtype, heads, hidden: 8, intermediate: 8, ranks, adapters, sequences };
        Named { name, plan }
    };
    const LONG: [usize; 8] = [2, 256, 257, 259, 512, 513, 1100, 777];
    vec![
        plan("decode, heads of 128", (32, 8, 128, 64), &BORDERS),
        plan("decode, long, heads of 128", (16, 4, 128, 64), &LONG),
        plan("decode, heads of 128, turned in part", (4, 2, 128, 16), &LONG),
        plan("decode, heads of 128, not turned", (4, 2, 128, 0), &BORDERS),
        plan("decode, long, heads of 64", (8, 1, 64, 32), &LONG),
        plan("decode, 20 heads of 64 to a key", (20, 1, 64, 32), &LONG),
        plan("decode, 12 heads of 96 to a key", (24, 2, 96, 12), &LONG),
        plan("decode, heads of 40", (3, 3, 40, 10), &LONG),
        plan("decode, heads of 80", (5, 5, 80, 40), &BORDERS),
        plan("decode, heads of 256", (9, 1, 256, 128), &LONG),
        plan("decode, heads of 200", (2, 1, 200, 33), &LONG),
    ]
}

/// Chunks of prompts beside decode rows.
pub(crate) fn prefill_plans() -> Vec<Named> {
    let chunks = || vec![(300, 100), (257, 0), (17, 16), (40, 7), (256, 240), (258, 257), (16, 0)];
    let plan = |dtype, heads| Plan {
        dtype,
        heads,
        hidden: 512,
        intermediate: 1024,
        ranks: &RANKS,
        adapters: 4,
        sequences: chunks(),
    };
    vec![
        Named { name: "prefill, heads of 128", plan: plan(Dtype::Bf16, (8, 2, 128, 64)) },
        Named { name: "prefill, heads of 64", plan: plan(Dtype::Bf16, (16, 4, 64, 32)) },
        Named { name: "prefill, one head", plan: plan(Dtype::Bf16, (1, 1, 256, 64)) },
        Named { name: "prefill, f16", plan: plan(Dtype::F16, (4, 1, 64, 32)) },
        Named { name: "prefill, f32", plan: plan(Dtype::F32, (4, 4, 40, 10)) },
    ]
}

/// Slabs so large that a chunk of ranks is one tile, as with models, and inputs for several runs.
pub(crate) fn long_tiles() -> Named {
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (32, 32, 128, 64),
        hidden: 4096,
        intermediate: 14336,
        ranks: &[8, 16, 40, 128],
        adapters: 4,
        sequences: decoding((1..=60).map(|i| 1 + i % 3)),
    };
    Named { name: "decode, long tiles", plan }
}

/// As many rows as a step of few has, with adapters of several chunks of ranks.
pub(crate) fn several_chunks() -> Named {
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (8, 2, 128, 64),
        hidden: 1024,
        intermediate: 1408,
        ranks: &[24, 40, 128],
        adapters: 20,
        sequences: decoding(BORDERS.into_iter().cycle().take(128)),
    };
    Named { name: "decode, several chunks, 128 sequences", plan }
}

/// More pieces than blocks, so that pieces share a pass over an adapter.
pub(crate) fn long_prompts() -> Named {
    let sequences = (0..6).map(|i| (1100 + 7 * i, 13)).chain([(40, 39), (41, 40)]).collect();
    let plan = Plan {
        dtype: Dtype::Bf16,
        heads: (4, 1, 64, 32),
        hidden: 256,
        intermediate: 264,
        ranks: &[8, 24],
        adapters: 2,
        sequences,
    };
    Named { name: "long prompts", plan }
}
