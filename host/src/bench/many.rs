//! Many registered adapters, chosen by popularity, under more requests than run at once.
//!
//! All requests arrive together, as in vLLM's offline engine. A few adapters first, then all of
//! them, each cold (nothing of the set in host memory or in the pool) and then warm.

mod catalogue;
mod outcome;
mod pass;
mod zipf;

use std::{io::Write, ops::Range};

use clap::Args;
use switchyard_kernels::PAGE_TOKENS;

use super::{
    BenchError, Ranks,
    adapters::AdapterSource,
    base::{Base, BaseArgs},
};
use crate::{config::units, engine::EngineLimits};
use catalogue::SyntheticCatalogue;
use outcome::Title;
use pass::{Ask, Pass};
use zipf::Zipf;

/// How many adapters, requests and how much room.
#[derive(Args, Clone, Debug)]
pub(super) struct ManyArgs {
    #[command(flatten)]
    base: BaseArgs,
    /// Registered adapters, each with its own bytes
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    registered: u32,
    /// Registered adapters of the passes that the others are set beside
    #[arg(long, value_name = "N", default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1000))]
    few: u32,
    /// Requests of a pass, all submitted at once
    #[arg(long, value_name = "N", default_value_t = 768,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    requests: u32,
    /// Sequences that run side by side
    #[arg(long, value_name = "N", default_value_t = 96,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrent: u32,
    /// Rank of the adapters, on all seven linears, or `mixed`: 8 to 128
    #[arg(long, value_name = "N|mixed", default_value = "16")]
    rank: Ranks,
    /// Exponent of the popularity: the k-th adapter is asked for in proportion to k^-X
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    zipf: f64,
    /// Tokens of each prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    prompt: u32,
    /// Tokens drawn for each prompt
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    output: u32,
    /// Share of the registered adapters that the pool has room for beside the KV, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    fits: u32,
    /// Host memory for adapters that neither requests nor the pool hold, as 8GiB
    #[arg(long, value_name = "SIZE", default_value = "32GiB", value_parser = parse_size)]
    host_memory: usize,
}

/// Runs the four passes and prints a JSON line for each.
pub(super) fn run(args: &ManyArgs, out: &mut dyn Write) -> Result<(), BenchError> {
    let base = args.base.load()?;
    let source = AdapterSource::new(&base.config, base.dtype, args.rank, base.image_memory())?;
    let limits = limits(args, &base, &source);
    let started = base.start(limits)?;
    let (mut seed, mut few) = (0, None);
    for set in sets(args) {
        let registered = set.len() as u32;
        let catalogue = SyntheticCatalogue::new(&source, set, args.host_memory);
        for pass in ["cold", "warm"] {
            seed += 1;
            let asks = asks(args, registered, started.config.vocabulary, seed);
            let outcome = Pass { engine: &started.engine, catalogue: &catalogue }.run(asks)?;
            let beside = few.filter(|_| seed > 2);
            let line = outcome.line(Title { registered, pass }, (args, &started), beside);
            writeln!(out, "{line}").map_err(BenchError::Output)?;
            if seed == 2 {
                few = Some(outcome.verdict(&started));
            }
        }
    }
    started.engine.shutdown();
    Ok(())
}

/// Numbers of the few adapters and of all: different ones, so that each set is cold at first.
fn sets(args: &ManyArgs) -> [Range<usize>; 2] {
    let few = args.few as usize;
    [0..few, few..few + args.registered as usize]
}

/// The requests of a pass.
fn asks(args: &ManyArgs, registered: u32, vocabulary: usize, seed: u64) -> Vec<Ask> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let popularity = Zipf::new(registered as usize, args.zipf);
    let ask = |_| Ask {
        adapter: popularity.draw(rng.f64()),
        prompt: (0..args.prompt).map(|_| rng.u32(..vocabulary as u32)).collect(),
        max_tokens: args.output,
    };
    (0..args.requests).map(ask).collect()
}

/// Room for the KV of all that run, and for a share of the adapters.
fn limits(args: &ManyArgs, base: &Base, source: &AdapterSource) -> EngineLimits {
    let max_running = args.concurrent as usize;
    let pages = (args.prompt as usize + args.output as usize).div_ceil(PAGE_TOKENS) + 1;
    let [_, all] = sets(args);
    let slabs = || all.clone().map(|number| source.slabs(number));
    let share = (slabs().sum::<usize>() * args.fits as usize).div_ceil(100);
    let share = share.max(slabs().max().unwrap_or(0));
    EngineLimits {
        pool_bytes: Some((max_running * pages + share) * base.slab_bytes()),
        max_running,
        max_step_tokens: base.max_step_tokens.max(max_running),
        max_waiting: args.requests as usize,
    }
}

fn parse_size(text: &str) -> Result<usize, String> {
    let bytes = units::size(text).and_then(|bytes| usize::try_from(bytes).ok());
    bytes.ok_or_else(|| "use a size with a unit, as 8GiB".to_owned())
}
