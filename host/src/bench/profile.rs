//! One step, stage by stage: what each takes, and what it reads.
//!
//! The model runs without an engine, on batches made for it. Operations are timed one by one, so
//! that the sum is more than a step takes where operations overlap.

mod stage;
mod step;

use std::{
    io::Write,
    sync::{Arc, PoisonError},
};

use clap::Args;
use serde::Serialize;
use switchyard_kernels::{AdapterSlot, DeviceError, PAGE_TOKENS, Profile, Profiled, Timed};

use super::{
    BenchError, Ranks,
    adapters::AdapterSource,
    base::{BaseArgs, Weights},
    decode::AdapterMode,
    measurement::round,
};
use crate::{
    device::OnBackend,
    model::{AdapterImage, ModelConfig, ModelLimits},
};
use stage::StageLine;
use step::Steps;

/// Which steps.
#[derive(Args, Clone, Debug)]
pub(super) struct ProfileArgs {
    #[command(flatten)]
    base: BaseArgs,
    /// Sequences of a step
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    batch: Vec<u32>,
    /// Adapters of a batch: none, one for all rows, a distinct one for each
    #[arg(long, value_name = "MODE,..", value_delimiter = ',', default_value = "none,distinct")]
    adapters: Vec<AdapterMode>,
    /// Rank of the adapters, on all seven linears, or `mixed`: 8 to 128
    #[arg(long, value_name = "N|mixed", default_value = "16")]
    rank: Ranks,
    /// Tokens of each sequence, those that are computed among them
    #[arg(long, default_value_t = 192, value_parser = clap::value_parser!(u32).range(1..))]
    context: u32,
    /// Tokens of each sequence that a step computes: one to decode, more to prefill
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8192))]
    tokens: u32,
    /// Steps that are timed; the median counts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    steps: u32,
}

#[derive(Serialize)]
struct Line<'a> {
    model: &'a str,
    mode: &'static str,
    #[serde(rename = "B")]
    batch: u32,
    context: u32,
    tokens: u32,
    rank: Ranks,
    /// All stages together.
    sum_ms: f64,
    stages: Vec<StageLine>,
    device: String,
    read_gb_s: f64,
}

/// A model to be profiled, with its adapters.
struct Task<'a> {
    args: &'a ProfileArgs,
    config: &'a ModelConfig,
    weights: Weights,
    adapters: &'a [Arc<AdapterImage>],
}

/// Profiles every batch size in every adapter mode and prints a JSON line for each.
pub(super) fn run(args: &ProfileArgs, out: &mut dyn Write) -> Result<(), BenchError> {
    let base = args.base.load()?;
    let (config, dtype, read_bandwidth) = (base.config.clone(), base.dtype, base.read_bandwidth);
    let ProfileArgs { context, tokens, .. } = *args;
    let positions = config.max_positions;
    if tokens > context || context as usize > positions {
        return Err(BenchError::Sequence { context, tokens, positions });
    }
    let largest = args.batch.iter().copied().max().unwrap_or(1) as usize;
    let count = args.adapters.iter().map(|mode| mode.used(largest)).max().unwrap_or(0);
    let adapters =
        AdapterSource::new(&config, dtype, args.rank, base.image_memory())?.images(count);
    let task = |weights| Task { args, config: &config, weights, adapters: &adapters };
    for (mode, batch, profile) in base.on_backend(task)? {
        let used = &adapters[..mode.used(batch as usize)];
        let reads = stage::Reads { config: &config, dtype, sequences: batch, context, tokens };
        let stages = stage::lines(&profile, |stage| reads.bytes(stage, used));
        let line = Line {
            model: &args.base.model,
            mode: mode.name(),
            batch,
            context,
            tokens,
            rank: args.rank,
            sum_ms: round(stages.iter().map(|stage| stage.us).sum::<f64>() / 1e3, 3),
            stages,
            device: args.base.device.to_string(),
            read_gb_s: round(read_bandwidth / 1e9, 1),
        };
        let line = serde_json::to_string(&line).expect("numbers and strings always serialise");
        writeln!(out, "{line}").map_err(BenchError::Output)?;
    }
    Ok(())
}

impl OnBackend for Task<'_> {
    type Output = Vec<(AdapterMode, u32, Vec<switchyard_kernels::StepTimes>)>;

    fn run<B: Timed>(self, backend: B) -> Result<Self::Output, DeviceError> {
        let Self { args, config, weights, adapters } = self;
        let largest = args.batch.iter().copied().max().unwrap_or(1) as usize;
        let profile = Profile::default();
        let backend = Profiled::new(backend, Arc::clone(&profile));
        let limits = ModelLimits { rows: largest * args.tokens as usize, logits: largest };
        let mut model = weights.model(backend, config, limits)?;
        let pages = largest * (args.context as usize).div_ceil(PAGE_TOKENS);
        let tiles: usize = adapters.iter().map(|image| image.map.slabs as usize).sum();
        model.reserve(pages + tiles)?;
        let mut steps = Steps::new(config.vocabulary, args, pages + tiles);
        for (slot, image) in adapters.iter().enumerate() {
            let slabs = steps.take_slabs(image.map.slabs as usize);
            model.load_adapter(AdapterSlot(slot as u32), image, &slabs);
        }
        let mut profiles = Vec::new();
        for &mode in &args.adapters {
            for &batch in &args.batch {
                steps.run(&mut model, (mode, batch), args.steps);
                let mut times = profile.lock().unwrap_or_else(PoisonError::into_inner);
                profiles.push((mode, batch, std::mem::take(&mut *times)));
            }
        }
        Ok(profiles)
    }
}
