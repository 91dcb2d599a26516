//! The arguments, as clap reads them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::{
    bench::BenchArgs,
    compare::Comparison,
    config::{Given, Override},
    plugins::build::BuildArgs,
};

/// Read where no other file is named.
const DEFAULT_FILE: &str = "config.toml";

/// Serves one language model with many LoRA adapters in a batch and policy in Wasm plugins.
#[derive(Parser)]
#[command(name = "switchyard", version, args_conflicts_with_subcommands = true)]
pub(super) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Option<Command>,
    #[command(flatten)]
    pub(super) serve: ConfigArgs,
}

#[derive(Subcommand)]
pub(super) enum Command {
    /// Serve over HTTP (the default)
    Serve(ConfigArgs),
    /// Check configuration, model, adapters and plugins without serving
    Check(ConfigArgs),
    /// Answer one prompt with the base and with adapters, side by side
    Compare(CompareArgs),
    /// Measure the engine without a network
    Bench(BenchArgs),
    /// Work on plugins
    #[command(subcommand)]
    Plugin(PluginCommand),
}

#[derive(Subcommand)]
pub(super) enum PluginCommand {
    /// Build a plugin's folder into a component
    Build(BuildArgs),
}

/// Where the configuration comes from.
#[derive(Args, Clone)]
pub(super) struct ConfigArgs {
    /// Configuration file [default: config.toml, unless --model is given]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Directory of the base model; sets model.path
    #[arg(long, value_name = "DIR")]
    model: Option<String>,
    /// Directory of adapters; sets adapters.dirs; may be repeated
    #[arg(long, value_name = "DIR")]
    adapters: Vec<String>,
    /// Address to listen on; sets server.listen; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Any key, as --set engine.memory=1GiB; may be repeated
    #[arg(long, value_name = "TABLE.KEY=VALUE")]
    set: Vec<String>,
}

impl ConfigArgs {
    /// The file and the overrides, `--set` after the flags.
    pub(super) fn given(self, cache_home: Option<PathBuf>) -> Given {
        // Another model has little use for the names, adapters and plugins of a file that happens
        // to lie here.
        let default = || self.model.is_none().then(|| PathBuf::from(DEFAULT_FILE));
        let file = self.config.clone().or_else(default);
        let flag = |flag, key, value: Option<String>| {
            value.map(|value| Override::Flag { flag, key, value })
        };
        let adapters = (!self.adapters.is_empty()).then_some(self.adapters);
        let adapters = adapters.map(|values| Override::List {
            flag: "--adapters",
            key: "adapters.dirs",
            values,
        });
        let flags = [
            flag("--model", "model.path", self.model),
            adapters,
            flag("--listen", "server.listen", self.listen),
        ];
        let set = self.set.into_iter().map(Override::Set);
        let overrides = flags.into_iter().flatten().chain(set).collect();
        Given { file, overrides, cache_home }
    }
}

#[derive(Args)]
pub(super) struct CompareArgs {
    /// What the user says
    prompt: String,
    /// Adapter to ask, beside the base; may be repeated [default: all]
    #[arg(long = "adapter", value_name = "NAME")]
    names: Vec<String>,
    /// Longest answer, in tokens
    #[arg(long, default_value_t = 128)]
    max_tokens: u32,
    /// Columns of the table, in characters
    #[arg(long, default_value_t = 120)]
    width: usize,
    #[command(flatten)]
    config: ConfigArgs,
}

impl CompareArgs {
    pub(super) fn split(self, cache_home: Option<PathBuf>) -> (Given, Comparison) {
        let Self { prompt, names, max_tokens, width, config } = self;
        (config.given(cache_home), Comparison { prompt, names, max_tokens, width })
    }
}
