//! Times of single kernels over batch, adapters and rank, at the shapes of real decoders.
//!
//! ```text
//! cargo bench --profile dev -p switchyard-kernels --bench kernels -- \
//!     [cuda:N|cpu] [SHAPE,..] [SECONDS] [PART,..]
//! ```
//!
//! PARTs are all of `PARTS`, if none is named.
//!
//! Calls are queued behind a pause, so that they run back to back, and turn to weights, layers,
//! adapters and pages that no cache holds any more. On the processor it shows that it works.

mod adapters;
mod bed;
mod shape;
mod table;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use switchyard_kernels::{
    Batch, BlobCache, DeviceError, Linear, MAX_RANK, SampleRow, Site, Timed,
    cpu::{Cpu, Isa},
    cuda::{self, Cuda},
};

use bed::{Bed, Size};
use shape::{SHAPES, SITES};
use table::{Row, Table};

/// Sequences that decode.
const DECODING: [usize; 4] = [1, 32, 64, 128];
/// Tokens of a decoding sequence beside short and long pasts.
const PASTS: [usize; 2] = [192, 2048];
/// Rows that decode, and how many adapters they share.
const SHARED: [(usize, usize); 6] = [(1, 1), (64, 1), (64, 8), (32, 32), (64, 64), (128, 128)];
const PARTS: [&str; 4] = ["products", "attention", "sampling", "adapters"];
const RANKS: [usize; 3] = [16, 8, 64];
/// Sequences and tokens of prompts that are read at once.
const PROMPTS: [(usize, usize); 2] = [(16, 128), (1, 2048)];
/// Adapters of a batch of prompts.
const PROMPTS_SHARED: [usize; 2] = [1, 16];
/// Batches that adapters and pages are taken from in turn.
const BATCHES: usize = 8;

const GPU: Size = Size { pool_bytes: 24 << 30, weight_bytes: 256 << 20, turns: 32 };
const CPU: Size = Size { pool_bytes: 64 << 20, weight_bytes: 1 << 20, turns: 2 };

/// Compiles kernels once for all shapes.
#[derive(Clone, Default)]
struct Compiled(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl BlobCache for Compiled {
    fn get(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().expect("nobody panics with it").get(key).cloned()
    }

    fn put(&self, key: &str, blob: &[u8]) {
        self.0.lock().expect("nobody panics with it").insert(key.to_owned(), blob.to_vec());
    }
}

fn main() -> Result<(), DeviceError> {
    // `cargo bench` adds a flag of its own.
    let words: Vec<String> =
        std::env::args().skip(1).filter(|word| !word.starts_with("--")).collect();
    let word = |at: usize, default: &'static str| words.get(at).map_or(default, String::as_str);
    let names: Vec<&str> = word(1, "llama-3-8b,tinyllama-1.1b").split(',').collect();
    let budget = Duration::from_secs(word(2, "300").parse().expect("SECONDS"));
    let parts = words.get(3).map_or(PARTS.to_vec(), |parts| parts.split(',').collect());
    for part in &parts {
        assert!(PARTS.contains(part), "a PART is one of {PARTS:?}, not {part:?}");
    }
    let shapes = SHAPES.iter().filter(|shape| names.contains(&shape.name));
    match word(0, "cuda:0").strip_prefix("cuda:") {
        Some(number) => {
            let ordinal = number.parse().expect("cuda:N with a number");
            let compiled = Compiled::default();
            let mut table = Table::new(budget, Some(cuda::copy_bandwidth(ordinal)?));
            for shape in shapes {
                bench(
                    Bed::new(Cuda::new(ordinal, compiled.clone())?, shape, GPU)?,
                    &mut table,
                    &parts,
                );
            }
            table.close();
        }
        None => {
            let mut table = Table::new(budget, None);
            for shape in shapes {
                bench(Bed::new(Cpu::new(Isa::best(), 2)?, shape, CPU)?, &mut table, &parts);
            }
            table.close();
        }
    }
    Ok(())
}

fn bench<B: Timed>(mut bed: Bed<'_, B>, table: &mut Table, parts: &[&str]) {
    table.of(bed.shape);
    if parts.contains(&"products") {
        without_adapters(&mut bed, table);
    }
    if parts.contains(&"attention") {
        attention(&mut bed, table);
    }
    if parts.contains(&"sampling") {
        sampling(&mut bed, table);
    }
    for rank in RANKS.into_iter().filter(|_| parts.contains(&"adapters")) {
        with_adapters(&mut bed, table, rank);
    }
}

/// Batches of decoding sequences that turn to other adapters and pages.
fn decoding<B: Timed>(
    bed: &Bed<'_, B>,
    (rows, tokens): (usize, usize),
    distinct: usize,
) -> Vec<Batch> {
    (0..BATCHES).map(|turn| bed.batch((rows, 1, tokens), distinct, turn)).collect()
}

/// Tokens of the longest sequence.
fn longest(batch: &Batch) -> usize {
    batch.positions.iter().max().map_or(0, |&position| position as usize + 1)
}

/// As the table calls a site's product with its reader.
fn name(site: Site) -> &'static str {
    match site {
        Site::Qkv => "qkv",
        Site::Output => "output, norm",
        Site::GateUp => "gate_up, activate",
        Site::Down => "down, norm",
    }
}

/// The products of a layer, each with what its reader makes of it, and the whole layer.
fn layer<B: Timed>(
    bed: &mut Bed<'_, B>,
    table: &mut Table,
    batches: &[Batch],
    adapters: Option<(usize, usize)>,
) {
    let lora = adapters.is_some();
    let (rows, tokens) = (batches[0].rows(), longest(&batches[0]));
    let shape = bed.shape;
    // Elements of A (1) or B (0).
    let tiles = |linears: &[Linear], end: usize| {
        let elements: usize = linears.iter().map(|&linear| shape.linear(linear)[end]).sum();
        adapters.map_or(0, |(distinct, rank)| 2 * distinct * rank * elements)
    };
    let weights = |site| 2 * shape.site(site).iter().product::<usize>();
    let push = |table: &Table, kernel, seconds, weights: usize, bytes: usize| {
        let flops = (weights > 0).then_some((rows * weights) as f64);
        table.push(&Row { kernel, rows, tokens, adapters, seconds, bytes: weights + bytes, flops });
    };
    let (mut all_weights, mut all_tiles) = (0, 0);
    for site in SITES {
        if !table.is_open() {
            return;
        }
        let seconds = bed.time(batches, |bed, turn| bed.site(site, turn, lora));
        let (weights, tiles) = (weights(site), tiles(site.linears(), 0) + tiles(site.linears(), 1));
        push(table, name(site), seconds, weights, tiles);
        all_weights += weights;
        all_tiles += tiles;
    }
    if lora && !bed.shrink_waits() {
        let all = |bed: &mut Bed<'_, B>, turn| SITES.iter().for_each(|&s| bed.shrink(s, turn));
        push(table, "shrink x 4", bed.time(batches, all), 0, tiles(&Linear::ALL, 1));
    }
    let seconds = bed.time(batches, |bed, turn| {
        for site in SITES {
            bed.site(site, turn, lora);
            if site == Site::Qkv {
                bed.attention(turn);
            }
        }
    });
    let pages = batches[0].sequences() * tokens * shape.token_bytes();
    push(table, "layer", seconds, all_weights, all_tiles + pages);
}

fn without_adapters<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    let (sequences, tokens) = PROMPTS[0];
    for rows in DECODING {
        layer(bed, table, &decoding(bed, (rows, PASTS[0]), 0), None);
    }
    layer(bed, table, &[bed.batch((sequences, tokens, tokens), 0, 0)], None);
}

fn with_adapters<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table, rank: usize) {
    assert!(rank <= MAX_RANK, "a rank that is admitted");
    let most = SHARED.iter().map(|&(_, distinct)| distinct).max();
    bed.bind(rank, most.unwrap_or(0));
    for (rows, distinct) in SHARED {
        if distinct <= bed.bound() {
            let batches = decoding(bed, (rows, PASTS[0]), distinct);
            layer(bed, table, &batches, Some((distinct, rank)));
        }
    }
    let (sequences, tokens) = PROMPTS[0];
    for distinct in PROMPTS_SHARED {
        if distinct <= bed.bound() {
            let batch = bed.batch((sequences, tokens, tokens), distinct, 0);
            layer(bed, table, &[batch], Some((distinct, rank)));
        }
    }
}

fn attention<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    let shape = bed.shape;
    let decoding = DECODING.iter().flat_map(|&rows| PASTS.map(|tokens| (rows, 1, tokens)));
    let prompts = PROMPTS.map(|(sequences, tokens)| (sequences, tokens, tokens));
    for (sequences, rows, tokens) in decoding.chain(prompts) {
        if !bed.fits(sequences, tokens) || !table.is_open() {
            continue;
        }
        let batch = |turn| bed.batch((sequences, rows, tokens), 0, turn);
        let batches: Vec<Batch> = (0..BATCHES).map(batch).collect();
        // A row sees itself and what is before it; a query head does two products with each.
        let pairs = rows as f64 * (tokens as f64 - (rows as f64 - 1.0) / 2.0);
        let flops = 4.0 * sequences as f64 * pairs * (shape.heads * shape.head_dim) as f64;
        table.push(&Row {
            kernel: if rows == 1 { "rope_store, attention" } else { "attention, prefill" },
            rows: sequences * rows,
            tokens,
            adapters: None,
            seconds: bed.time(&batches, |bed, turn| {
                if rows == 1 {
                    bed.rope_store(turn, false);
                }
                bed.attention(turn);
            }),
            bytes: sequences * tokens * shape.token_bytes(),
            flops: Some(flops),
        });
    }
}

fn sampling<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    const WAYS: [(&str, f32, f32, bool); 3] = [
        ("head, greedy", 0.0, 1.0, true),
        ("sample, greedy", 0.0, 1.0, false),
        ("sample, top_p", 1.0, 0.9, false),
    ];
    for (kernel, temperature, top_p, head) in WAYS {
        for rows in DECODING {
            if !table.is_open() {
                return;
            }
            let ways: Vec<SampleRow> = (0..rows as u64)
                .map(|seed| SampleRow {
                    temperature,
                    top_k: 0,
                    top_p,
                    seed,
                    position: 1,
                    logprobs: None,
                    mask: None,
                })
                .collect();
            let batch = [bed.batch((rows, 1, PASTS[0]), 0, 0)];
            let seconds = bed.time(&batch, |bed, _| {
                if head {
                    bed.head();
                }
                bed.sample(&ways);
            });
            let of_head = if head { bed.shape.hidden * size_of::<u16>() } else { 0 };
            let bytes = (rows * size_of::<f32>() + of_head) * bed.shape.vocabulary;
            let (tokens, adapters, flops) = (PASTS[0], None, None);
            table.push(&Row { kernel, rows, tokens, adapters, seconds, bytes, flops });
        }
    }
}
