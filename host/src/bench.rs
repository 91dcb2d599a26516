//! `switchyard bench`: how fast a model decodes, with and without adapters, without HTTP.
//!
//! Each line of output is one JSON object for one batch size and adapter mode. A step's time is
//! the time of a run that draws `output` tokens minus that of one that draws a single token,
//! divided by the tokens between; it is set beside the time the bytes it must read would take at
//! the read bandwidth measured in the same run.

mod floor;
mod measurement;
mod shape;
mod workload;

use std::{num::NonZero, thread};

use clap::{Args, ValueEnum};
use switchyard_kernels::{DeviceError, Dtype, cpu::Isa};

use crate::{checkpoint::CheckpointError, device::Device, engine::SubmitError, model::PackError};
use workload::Workload;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub struct BenchArgs {
    /// A checkpoint's directory, or a shape with random weights: tiny, tinyllama-1.1b, llama-3-8b
    #[arg(long, value_name = "DIR|SHAPE", default_value = "tinyllama-1.1b")]
    model: String,
    /// Sequences that run side by side
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Vec<u32>,
    /// Adapters of a batch: none, one for all rows, a distinct one for each
    #[arg(
        long,
        value_name = "MODE,..",
        value_delimiter = ',',
        default_value = "none,one,distinct"
    )]
    adapters: Vec<AdapterMode>,
    /// Rank of the adapters, on all seven linears
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    rank: u32,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens drawn for each prompt
    #[arg(long, default_value_t = 129, value_parser = clap::value_parser!(u32).range(2..))]
    output: u32,
    /// Element type of weights, adapters and KV [default: the checkpoint's; bf16 for a shape]
    #[arg(long, value_parser = parse_dtype)]
    dtype: Option<Dtype>,
    /// What runs the model: auto, cpu, or cuda:N
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// Threads of the CPU backend [default: one per processor]
    #[arg(long)]
    threads: Option<NonZero<usize>>,
    /// Instructions of the CPU backend [default: the fastest of this machine]
    #[arg(long)]
    isa: Option<Isa>,
    /// Runs of each kind; the fastest counts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
}

/// Which adapters the rows of a batch use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum AdapterMode {
    /// The base alone.
    None,
    /// All rows the same.
    One,
    /// Each row its own, with its own bytes.
    Distinct,
}

impl AdapterMode {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::One => "one",
            Self::Distinct => "distinct",
        }
    }

    /// Different adapters in a batch of `batch` rows.
    fn distinct(self, batch: usize) -> usize {
        match self {
            Self::None => 0,
            Self::One => 1,
            Self::Distinct => batch,
        }
    }
}

fn parse_dtype(name: &str) -> Result<Dtype, String> {
    let known = [Dtype::F32, Dtype::F16, Dtype::Bf16].into_iter().find(|d| d.name() == name);
    known.ok_or_else(|| "use f32, f16 or bf16".to_owned())
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// Neither a shape nor a checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The backend refused.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// No adapter of that rank fits the model's slabs.
    #[error("--rank {rank}: {error}")]
    Pack {
        /// As given.
        rank: u32,
        /// What does not fit.
        error: PackError,
    },
    /// The model cannot hold such a sequence.
    #[error("--prompt {prompt} --output {output}: {error}")]
    Submit {
        /// As given.
        prompt: u32,
        /// As given.
        output: u32,
        /// What does not fit.
        error: SubmitError,
    },
    /// The engine died on the way.
    #[error("the engine stopped: {0}")]
    Stopped(String),
}

/// Measures every batch size in every adapter mode and prints a JSON line for each.
pub fn run(args: BenchArgs) -> Result<(), BenchError> {
    let processors = thread::available_parallelism().unwrap_or(NonZero::<usize>::MIN);
    let threads = args.threads.unwrap_or(processors).get();
    let read_bandwidth = floor::read_bandwidth(threads);
    eprintln!("{}: {threads} threads read {:.1} GB/s", args.model, read_bandwidth / 1e9);
    let workload = Workload::start(&args)?;
    for &mode in &args.adapters {
        for &batch in &args.batch {
            let measured = workload.measure(&args, mode, batch as usize)?;
            println!("{}", measured.line(&workload, &args, read_bandwidth));
        }
    }
    workload.shut_down();
    Ok(())
}
