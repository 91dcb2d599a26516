//! Decode steps at fixed batch sizes, with and without adapters.

use std::{
    collections::BTreeMap,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use switchyard_kernels::PAGE_TOKENS;

use super::{
    BenchError, Ranks,
    adapters::AdapterSource,
    base::{Base, BaseArgs, Started},
    measurement::Measurement,
};
use crate::{
    engine::{EngineLimits, NewSequence, Sampling, SubmitError, TokenStream},
    model::AdapterImage,
};

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(super) struct DecodeArgs {
    #[command(flatten)]
    pub(super) base: BaseArgs,
    /// Sequences that run side by side
    #[arg(long, value_name = "N,..", value_delimiter = ',', default_value = "1,8",
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub(super) batch: Vec<u32>,
    /// Adapters of a batch: none, one for all rows, a distinct one for each, or as many in the
    /// pool that no row uses
    #[arg(
        long,
        value_name = "MODE,..",
        value_delimiter = ',',
        default_value = "none,one,distinct"
    )]
    pub(super) adapters: Vec<AdapterMode>,
    /// Rank of the adapters, on all seven linears, or `mixed`: 8 to 128
    #[arg(long, value_name = "N|mixed", default_value = "16")]
    pub(super) rank: Ranks,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) prompt: u32,
    /// Tokens drawn for each prompt
    #[arg(long, default_value_t = 129, value_parser = clap::value_parser!(u32).range(2..))]
    pub(super) output: u32,
    /// Runs of each kind; the fastest counts
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) repeat: u32,
}

/// Which adapters the rows of a batch use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AdapterMode {
    /// The base alone, before any adapter of that many rows was in the pool.
    None,
    /// The base alone, beside adapters in the pool.
    Unused,
    /// All rows the same.
    One,
    /// Each row its own, with its own bytes.
    Distinct,
}

impl AdapterMode {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Unused => "unused",
            Self::One => "one",
            Self::Distinct => "distinct",
        }
    }

    /// Different adapters that the rows of a batch use.
    pub(super) fn used(self, batch: usize) -> usize {
        match self {
            Self::None | Self::Unused => 0,
            Self::One => 1,
            Self::Distinct => batch,
        }
    }

    /// Adapters in the pool.
    fn resident(self, batch: usize) -> usize {
        if self == Self::Unused { batch } else { self.used(batch) }
    }
}

/// A model in an engine with adapters at hand.
struct Workload {
    started: Started,
    adapters: Vec<Arc<AdapterImage>>,
}

/// Measures every batch size in every adapter mode and prints a JSON line for each.
pub(super) fn run(args: &DecodeArgs, out: &mut dyn Write) -> Result<(), BenchError> {
    let workload = Workload::start(args)?;
    let mut bare: BTreeMap<u32, Measurement> = BTreeMap::new();
    for &mode in &args.adapters {
        for &batch in &args.batch {
            let measured = workload.measure(args, mode, batch as usize)?;
            let line = measured.line(&workload.started, args, bare.get(&batch));
            writeln!(out, "{line}").map_err(BenchError::Output)?;
            if mode == AdapterMode::None {
                bare.insert(batch, measured);
            }
        }
    }
    workload.started.engine.shutdown();
    Ok(())
}

impl Workload {
    fn start(args: &DecodeArgs) -> Result<Self, BenchError> {
        let base = args.base.load()?;
        let largest = largest(args);
        let count = args.adapters.iter().map(|mode| mode.resident(largest)).max().unwrap_or(0);
        let start = Instant::now();
        let source = AdapterSource::new(&base.config, base.dtype, args.rank, base.image_memory())?;
        let adapters = source.images(count);
        eprintln!("{count} adapters after {:.1} s", start.elapsed().as_secs_f64());
        let limits = limits(args, &base, &adapters);
        Ok(Self { started: base.start(limits)?, adapters })
    }

    /// Times one batch size in one mode.
    fn measure(
        &self,
        args: &DecodeArgs,
        mode: AdapterMode,
        batch: usize,
    ) -> Result<Measurement, BenchError> {
        // Brings adapters into the pool and pages into memory.
        self.generate(args, batch, 2, &self.adapters[..mode.resident(batch)])?;
        let adapters = &self.adapters[..mode.used(batch)];
        self.generate(args, batch, 2, adapters)?;
        let mut best = [Duration::MAX; 2];
        for _ in 0..args.repeat {
            for (best, output) in best.iter_mut().zip([1, args.output]) {
                *best = self.generate(args, batch, output, adapters)?.min(*best);
            }
        }
        let adapter_bytes = adapters.iter().map(|image| image.bytes.len()).sum();
        let [prefill, total] = best;
        Ok(Measurement { mode, batch, prefill, total, adapter_bytes })
    }

    /// Runs `batch` prompts to their end; `adapters` are dealt out in turn.
    fn generate(
        &self,
        args: &DecodeArgs,
        batch: usize,
        output: u32,
        adapters: &[Arc<AdapterImage>],
    ) -> Result<Duration, BenchError> {
        let Started { config, engine, .. } = &self.started;
        let mut rng = fastrand::Rng::with_seed(batch as u64);
        let mut request = |i: usize| NewSequence {
            prompt: (0..args.prompt).map(|_| rng.u32(..config.vocabulary as u32)).collect(),
            adapter: (!adapters.is_empty()).then(|| adapters[i % adapters.len()].clone()),
            sampling: Sampling::greedy(),
            max_tokens: output,
            stop_tokens: Vec::new(),
        };
        // Made before the clock starts, so that they arrive as one burst.
        let requests: Vec<_> = (0..batch).map(&mut request).collect();
        let start = Instant::now();
        let refused = |error: SubmitError| BenchError::Submit {
            prompt: args.prompt,
            output: args.output,
            error,
        };
        let streams = requests.into_iter().map(|request| engine.submit(request).map_err(refused));
        for stream in streams.collect::<Result<Vec<_>, _>>()? {
            self.wait(stream)?;
        }
        Ok(start.elapsed())
    }

    fn wait(&self, mut stream: TokenStream) -> Result<(), BenchError> {
        let mut finished = false;
        while let Some(token) = stream.blocking_recv() {
            finished = token.finish.is_some();
        }
        if finished {
            return Ok(());
        }
        Err(BenchError::stopped(&self.started.engine))
    }
}

fn largest(args: &DecodeArgs) -> usize {
    args.batch.iter().copied().max().unwrap_or(1) as usize
}

/// Room for the largest batch with all its adapters, so that nothing is evicted or preempted.
fn limits(args: &DecodeArgs, base: &Base, adapters: &[Arc<AdapterImage>]) -> EngineLimits {
    let batch = largest(args);
    let pages = (args.prompt as usize + args.output as usize).div_ceil(PAGE_TOKENS) + 1;
    let tiles: usize = adapters.iter().map(|image| image.map.slabs as usize).sum();
    let pool_bytes = Some((batch * pages + tiles) * base.slab_bytes());
    let all_prompts = batch * args.prompt as usize;
    let max_step_tokens = all_prompts.clamp(batch, base.max_step_tokens.max(batch));
    EngineLimits { pool_bytes, max_running: batch, max_step_tokens, max_waiting: batch }
}
