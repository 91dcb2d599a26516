//! Prints what `matmul` reaches on each path of this machine, beside the read bandwidth that the
//! same threads reach in the same run: `cargo bench -p switchyard-kernels [threads]`.

use std::{hint::black_box, time::Instant};

use switchyard_kernels::{
    Backend, Batch, Dtype, HostMatrix, RowToken, Segment,
    cpu::{Cpu, Isa, Tensor},
};

const INPUTS: usize = 2048;
const OUTPUTS: usize = 5632;
/// Matrices cycled through, so that none stays in cache.
const COPIES: usize = 12;

fn main() {
    let threads = std::env::args().skip(1).find_map(|arg| arg.parse().ok()).unwrap_or(2);
    let read = read_bandwidth(threads);
    println!("{threads} threads, [{OUTPUTS}, {INPUTS}]; plain reads: {read:.1} GB/s");
    let paths = Isa::ALL.into_iter().filter(|&isa| isa != Isa::Reference && isa.available());
    for (isa, dtype) in paths.flat_map(|isa| [(isa, Dtype::Bf16), (isa, Dtype::F32)]) {
        for rows in [1, 8, 32, 128] {
            let seconds = time(isa, threads, dtype, rows);
            let gigabytes = (OUTPUTS * INPUTS * dtype.size()) as f64 / seconds / 1e9;
            let gigaflops = (2 * OUTPUTS * INPUTS * rows) as f64 / seconds / 1e9;
            println!(
                "{:12} {:4} rows {rows:3}: {:7.3} ms {gigabytes:6.1} GB/s \
                 ({:4.2} of reads) {gigaflops:7.1} GFLOP/s",
                isa.name(),
                dtype.name(),
                seconds * 1e3,
                gigabytes / read,
            );
        }
    }
}

/// Best of some runs of at least half a second in all.
fn best(mut run: impl FnMut()) -> f64 {
    let (start, mut best, mut runs) = (Instant::now(), f64::MAX, 0);
    while runs < 5 || start.elapsed().as_secs_f64() < 0.5 {
        let run_start = Instant::now();
        run();
        best = best.min(run_start.elapsed().as_secs_f64());
        runs += 1;
    }
    best
}

/// GB/s of combining a buffer that no cache holds, as eight streams per thread.
fn read_bandwidth(threads: usize) -> f64 {
    const STREAMS: usize = 8;
    const LINE: usize = 8;
    let lines = (1usize << 22) / (threads * STREAMS);
    let words = vec![1u64; threads * STREAMS * lines * LINE];
    let combine = |part: &[u64]| {
        let streams: Vec<_> = part.chunks(lines * LINE).map(|s| s.as_chunks::<LINE>().0).collect();
        let mut sums = [[0; LINE]; STREAMS];
        for line in 0..lines {
            for (sums, stream) in sums.iter_mut().zip(&streams) {
                sums.iter_mut().zip(&stream[line]).for_each(|(sum, word)| *sum ^= word);
            }
        }
        sums
    };
    let seconds = best(|| {
        std::thread::scope(|scope| {
            for part in words.chunks(words.len() / threads) {
                scope.spawn(move || black_box(combine(part)));
            }
        });
    });
    (words.len() * size_of::<u64>()) as f64 / seconds / 1e9
}

fn time(isa: Isa, threads: usize, dtype: Dtype, rows: usize) -> f64 {
    let mut cpu = Cpu::new(isa, threads).expect("an available path");
    let weights: Vec<HostMatrix> = (0..COPIES).map(|_| matrix(dtype, OUTPUTS)).collect();
    let x = activations(&mut cpu, rows);
    let mut y = cpu.tensor(rows, OUTPUTS).expect("room for a few rows");
    let mut turn = 0;
    best(|| {
        cpu.matmul(&x, &weights[turn % COPIES], &mut y);
        turn += 1;
    })
}

/// A matrix of small numbers, `[rows, INPUTS]`.
fn matrix(dtype: Dtype, rows: usize) -> HostMatrix {
    let mut matrix = HostMatrix::zeroed(dtype, rows, INPUTS);
    for (i, element) in matrix.data.bytes_mut().chunks_mut(dtype.size()).enumerate() {
        // The high byte of small positive numbers in every type.
        element[dtype.size() - 1] = 0x3c;
        element[0] = i as u8;
    }
    matrix
}

fn activations(cpu: &mut Cpu, rows: usize) -> Tensor {
    let table = matrix(Dtype::F32, rows);
    cpu.begin(&Batch {
        tokens: (0..rows as u32).map(RowToken::Known).collect(),
        positions: vec![0; rows],
        seq_indptr: vec![0, rows as u32],
        page_indptr: vec![0, 0],
        page_indices: Vec::new(),
        segments: vec![Segment { rows: 0..rows as u32, adapter: None }],
        logit_rows: Vec::new(),
    });
    let mut x = cpu.tensor(rows, INPUTS).expect("room for a few rows");
    cpu.embed(&table, &mut x);
    x
}
