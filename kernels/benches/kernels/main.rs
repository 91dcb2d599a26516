//! Times of single kernels over batch, adapters and rank, at the shapes of real decoders.
//!
//! ```text
//! cargo bench --profile dev -p switchyard-kernels --bench kernels -- \
//!     [cuda:N|cpu] [SHAPE,..] [SECONDS]
//! ```
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

use bed::{Bed, LOGITS_MAX, Size};
use shape::{SHAPES, SITES};
use table::{Row, Table};

/// Sequences that decode.
const DECODING: [usize; 4] = [1, 32, 64, 128];
/// Tokens of a decoding sequence beside short and long pasts.
const PASTS: [usize; 2] = [192, 2048];
/// Rows that decode, and how many adapters they share.
const SHARED: [(usize, usize); 6] = [(1, 1), (64, 1), (64, 8), (32, 32), (64, 64), (128, 128)];
const RANKS: [usize; 3] = [8, 16, 64];
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
    let shapes = SHAPES.iter().filter(|shape| names.contains(&shape.name));
    match word(0, "cuda:0").strip_prefix("cuda:") {
        Some(number) => {
            let ordinal = number.parse().expect("cuda:N with a number");
            let compiled = Compiled::default();
            let mut table = Table::new(budget, Some(cuda::copy_bandwidth(ordinal)?));
            for shape in shapes {
                bench(Bed::new(Cuda::new(ordinal, compiled.clone())?, shape, GPU)?, &mut table);
            }
            table.close();
        }
        None => {
            let mut table = Table::new(budget, None);
            for shape in shapes {
                bench(Bed::new(Cpu::new(Isa::best(), 2)?, shape, CPU)?, &mut table);
            }
            table.close();
        }
    }
    Ok(())
}

fn bench<B: Timed>(mut bed: Bed<'_, B>, table: &mut Table) {
    table.of(bed.shape);
    products(&mut bed, table);
    without_adapters(&mut bed, table);
    for rank in RANKS {
        with_adapters(&mut bed, table, rank);
    }
    attention(&mut bed, table);
    sampling(&mut bed, table);
}

/// Batches of decoding sequences that turn to other adapters and pages.
fn decoding<B: Timed>(
    bed: &Bed<'_, B>,
    (rows, tokens): (usize, usize),
    distinct: usize,
) -> Vec<Batch> {
    (0..BATCHES).map(|turn| bed.batch((rows, 1, tokens), distinct, turn)).collect()
}

/// The base products of a layer and the head, decoding and reading prompts.
fn products<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    let (sequences, tokens) = PROMPTS[0];
    let prompts = bed.batch((sequences, tokens, tokens), 0, 0);
    let decoding = DECODING.map(|rows| bed.batch((rows, 1, PASTS[0]), 0, 0));
    for batch in decoding.into_iter().chain([prompts]) {
        let tokens = longest(&batch);
        let (rows, batch) = (batch.rows(), [batch]);
        let row = |kernel, [outputs, inputs]: [usize; 2], rows, seconds| Row {
            kernel,
            rows,
            tokens,
            adapters: None,
            seconds,
            bytes: 2 * outputs * inputs,
            flops: Some(2.0 * (rows * outputs * inputs) as f64),
        };
        for site in SITES {
            if table.is_open() {
                let seconds = bed.time(&batch, |bed, turn| bed.product(site, turn));
                table.push(&row(name(site), bed.shape.site(site), rows, seconds));
            }
        }
        if table.is_open() && rows <= LOGITS_MAX {
            let seconds = bed.time(&batch, |bed, _| bed.head());
            table.push(&row("head", [bed.shape.vocabulary, bed.shape.hidden], rows, seconds));
        }
    }
}

/// Tokens of the longest sequence.
fn longest(batch: &Batch) -> usize {
    batch.positions.iter().max().map_or(0, |&position| position as usize + 1)
}

fn name(site: Site) -> &'static str {
    match site {
        Site::Qkv => "qkv",
        Site::Output => "output",
        Site::GateUp => "gate_up",
        Site::Down => "down",
    }
}

/// What adds a pending product, with and without a delta; a layer's products with and without
/// their low rank.
fn consumers<B: Timed>(
    bed: &mut Bed<'_, B>,
    table: &mut Table,
    batches: &[Batch],
    adapters: Option<(usize, usize)>,
) {
    let lora = adapters.is_some();
    let (rows, tokens) = (batches[0].rows(), longest(&batches[0]));
    let shape = bed.shape;
    let tiles = |linears: &[Linear], end: usize| {
        let elements: usize = linears.iter().map(|&linear| shape.linear(linear)[end]).sum();
        adapters.map_or(0, |(distinct, rank)| 2 * distinct * rank * elements)
    };
    let push = |table: &Table, kernel, seconds, bytes| {
        table.push(&Row { kernel, rows, tokens, adapters, seconds, bytes, flops: None });
    };
    if !table.is_open() {
        return;
    }
    // Without adapters a step of decoding leaves it to attention, which is timed with it below.
    if lora || rows > batches[0].sequences() {
        let seconds = bed.time(batches, |bed, turn| bed.rope_store(turn, lora));
        push(table, "rope_store", seconds, tiles(Site::Qkv.linears(), 0));
    }
    let seconds = bed.time(batches, |bed, turn| bed.norm(Site::Down, turn, lora));
    push(table, "norm", seconds, tiles(Site::Down.linears(), 0));
    let seconds = bed.time(batches, |bed, turn| bed.activate(turn, lora));
    push(table, "activate", seconds, tiles(Site::GateUp.linears(), 0));
    let shrunk = tiles(&Linear::ALL, 1);
    if lora {
        let all = |bed: &mut Bed<'_, B>, turn| SITES.iter().for_each(|&s| bed.shrink(s, turn));
        push(table, "shrink x 4", bed.time(batches, all), shrunk);
    }
    let weights: usize = SITES.iter().map(|&site| shape.site(site).iter().product::<usize>()).sum();
    let seconds = bed.time(batches, |bed, turn| {
        for site in SITES {
            bed.product(site, turn);
            if lora {
                bed.shrink(site, turn);
            }
        }
    });
    let kernel = if lora { "products and shrinks" } else { "products x 4" };
    push(table, kernel, seconds, 2 * weights + shrunk);
}

fn without_adapters<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    for rows in DECODING {
        consumers(bed, table, &decoding(bed, (rows, PASTS[0]), 0), None);
    }
    let (sequences, tokens) = PROMPTS[0];
    consumers(bed, table, &[bed.batch((sequences, tokens, tokens), 0, 0)], None);
}

fn with_adapters<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table, rank: usize) {
    assert!(rank <= MAX_RANK, "a rank that is admitted");
    let most = SHARED.iter().map(|&(_, distinct)| distinct).max();
    bed.bind(rank, most.unwrap_or(0));
    for (rows, distinct) in SHARED {
        if distinct <= bed.bound() {
            let batches = decoding(bed, (rows, PASTS[0]), distinct);
            consumers(bed, table, &batches, Some((distinct, rank)));
        }
    }
    let (sequences, tokens) = PROMPTS[0];
    for distinct in PROMPTS_SHARED {
        if distinct <= bed.bound() {
            let batch = bed.batch((sequences, tokens, tokens), distinct, 0);
            consumers(bed, table, &[batch], Some((distinct, rank)));
        }
    }
}

fn attention<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    let shape = bed.shape;
    let head_bytes = 2 * shape.kv_heads * shape.head_dim * 2;
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
            bytes: sequences * tokens * head_bytes,
            flops: Some(flops),
        });
    }
}

fn sampling<B: Timed>(bed: &mut Bed<'_, B>, table: &mut Table) {
    for (kernel, temperature, top_p) in [("sample, greedy", 0.0, 1.0), ("sample, top_p", 1.0, 0.9)]
    {
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
            let seconds = bed.time(&batch, |bed, _| bed.sample(&ways));
            let bytes = rows * bed.shape.vocabulary * size_of::<f32>();
            let (tokens, adapters, flops) = (PASTS[0], None, None);
            table.push(&Row { kernel, rows, tokens, adapters, seconds, bytes, flops });
        }
    }
}
