//! `switchyard bench`: how fast the engine is, with and without adapters, without HTTP.
//!
//! Each line of output is one JSON object. A decode step's time is the time of a run that draws
//! `output` tokens minus that of one that draws a single token, divided by the tokens between; it
//! is set beside the time the bytes it must read would take at the read bandwidth measured in the
//! same run.

mod adapters;
mod base;
mod decode;
mod floor;
mod many;
mod measurement;
mod profile;
mod shape;

use std::io::{self, Write};

use clap::{Args, Subcommand};
use switchyard_kernels::DeviceError;

use crate::{
    checkpoint::CheckpointError,
    engine::{EngineHandle, SubmitError},
    model::PackError,
};
use adapters::Ranks;
use decode::DecodeArgs;
use many::ManyArgs;
use profile::ProfileArgs;

/// What to measure.
#[derive(Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    other: Option<OtherBench>,
    #[command(flatten)]
    decode: DecodeArgs,
}

/// What can be measured beside decode steps.
#[derive(Subcommand, Clone, Debug)]
enum OtherBench {
    /// Many registered adapters, chosen by popularity
    Many(ManyArgs),
    /// One decode step, stage by stage
    Profile(ProfileArgs),
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
    /// No step of the model has such sequences.
    #[error(
        "--context {context} --tokens {tokens}: a sequence of the model has at most {positions} \
         tokens, and those that are computed are among them"
    )]
    Sequence {
        /// As given.
        context: u32,
        /// As given.
        tokens: u32,
        /// Of the model.
        positions: usize,
    },
    /// The engine died on the way.
    #[error("the engine stopped: {0}")]
    Stopped(String),
    /// Nobody reads the results.
    #[error("results cannot be written: {0}")]
    Output(io::Error),
}

impl BenchError {
    fn stopped(engine: &EngineHandle) -> Self {
        Self::Stopped(engine.status().failed.unwrap_or_else(|| "shut down".to_owned()))
    }
}

/// Measures what the arguments ask for and writes a JSON line for each result.
pub fn run(args: &BenchArgs, out: &mut dyn Write) -> Result<(), BenchError> {
    match &args.other {
        None => decode::run(&args.decode, out),
        Some(OtherBench::Many(args)) => many::run(args, out),
        Some(OtherBench::Profile(args)) => profile::run(args, out),
    }
}

#[cfg(test)]
mod tests;
