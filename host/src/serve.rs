//! The composition root of a serving process: read, check, wire bottom-up, run until told to stop.

mod base;
mod logging;
mod progress;
mod signals;

use std::{error::Error, io, net::SocketAddr, sync::Arc, thread::available_parallelism};

use arc_swap::ArcSwap;
use switchyard_kernels::{DeviceError, HostMemory};
use tokio::{net::TcpListener, runtime::Runtime};

pub use base::Base;

use crate::{
    adapters::{AdapterStore, Registry},
    checkpoint::CheckpointError,
    config::{Config, ConfigError, Given},
    generation::Host,
    http,
    plugins::{PluginError, PluginHost},
    reload::{Reload, Start, Stock},
    startup::Startup,
    template::TemplateError,
    tokenizer::TokenizerError,
};

/// Why the process does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The base model's files are.
    #[error("{place}: {why}")]
    Checkpoint {
        /// The key that names them, and where it stands.
        place: String,
        /// What is wrong.
        why: Box<CheckpointError>,
    },
    /// Its weights can't be read.
    #[error("{place}: {why}")]
    Weights {
        /// Where they lie.
        place: String,
        /// What went wrong, in which file.
        why: Box<dyn Error + Send + Sync>,
    },
    /// Its tokenizer is.
    #[error("{place}: {why}")]
    Tokenizer {
        /// The key that names the model, and where it stands.
        place: String,
        /// What is wrong.
        why: TokenizerError,
    },
    /// Its chat template is.
    #[error("{place}: {why}")]
    Template {
        /// The key that names the model, and where it stands.
        place: String,
        /// What is wrong.
        why: TemplateError,
    },
    /// Tokenizer and weights belong to different models.
    #[error(
        "{place}: the tokenizer has {tokens} tokens, the model only {rows}; \
         take both from the same model"
    )]
    Vocabulary {
        /// The key that names the model, and where it stands.
        place: String,
        /// Of the tokenizer.
        tokens: usize,
        /// Of the embedding.
        rows: usize,
    },
    /// The device can't run it.
    #[error("[engine]: {0}")]
    Device(#[from] DeviceError),
    /// The plugin host does not start.
    #[error(transparent)]
    PluginHost(#[from] PluginError),
    /// Plugins or adapters were refused.
    #[error("{}", .0.join("\n"))]
    Refused(Vec<String>),
    /// The address can't be listened on.
    #[error("{place}: cannot listen on {address}: {why}")]
    Listen {
        /// The key, and where it stands.
        place: String,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: io::Error,
    },
    /// The system refuses threads or signals.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

/// Serves until a signal, then drains.
pub fn serve(given: Given) -> Result<(), StartError> {
    let startup = Startup::begin();
    let config = given.load()?;
    let set_log_level = logging::start(&config);
    let (host, stock) = assemble(&config, &startup)?;
    let runtime = Runtime::new()?;
    let listener = runtime.block_on(listen(&config))?;
    let (listen, drain_timeout) = (listener.local_addr()?, config.fixed.drain_timeout);
    let start = Start { given, config, stock, host: Arc::clone(&host), set_log_level };
    let reload = Arc::new(Reload::start(start)?);
    runtime.block_on(async {
        signals::reload_on_hangup(Arc::clone(&reload))?;
        let shutdown = signals::shutdown()?;
        startup.end("listening");
        tracing::info!("ready in {startup}");
        println!("listening on http://{listen}");
        http::serve(listener, Arc::clone(&host), shutdown, drain_timeout).await
    })?;
    runtime.shutdown_background();
    drop(reload);
    host.engine.shutdown();
    tracing::info!("stopped");
    Ok(())
}

/// Checks all that [`serve`] would, short of reading the weights; gives a summary.
pub fn check(given: &Given) -> Result<String, StartError> {
    let config = given.load()?;
    let base = Base::open(&config)?;
    let store = open_store(&base, &config, HostMemory::pageable());
    let mut stock = stock(&base, store)?;
    let mut problems = Vec::new();
    let supply = stock.restock(&config.live, &mut problems);
    let supply = supply.filter(|_| problems.is_empty()).ok_or(StartError::Refused(problems))?;
    let adapters: Vec<_> = supply.catalogue.iter().map(|adapter| adapter.name.clone()).collect();
    let list = |items: &[String]| if items.is_empty() { "none".into() } else { items.join(", ") };
    let lines = [
        format!("model     {}", base.summary()),
        format!("adapters  {}", list(&adapters)),
        format!("plugins   {}", list(&supply.news)),
        "all is well".to_owned(),
    ];
    Ok(lines.join("\n"))
}

/// Everything that requests need, in one process, on the first snapshot. Broken plugins refuse the
/// start; broken adapters are logged and left out.
pub fn assemble(config: &Config, startup: &Startup) -> Result<(Arc<Host>, Stock), StartError> {
    let base = Base::open(config)?;
    startup.end("files checked");
    let device = base::open_device(&config.fixed)?;
    startup.end("device");
    let (adapters, monitor) = (open_store(&base, config, device.host_memory()), device.monitor());
    let mut stock = stock(&base, Arc::clone(&adapters))?;
    let mut problems = Vec::new();
    let Some(supply) = stock.restock(&config.live, &mut problems) else {
        return Err(StartError::Refused(problems));
    };
    for problem in problems {
        tracing::error!("{problem}");
    }
    startup.end("plugins and adapters");
    let engine = base.start_engine(device, &config.fixed, startup)?;
    let snapshot = ArcSwap::from_pointee(supply.snapshot(1, &config.live));
    let Base { tokenizer, template, info, .. } = base;
    let host = Host { engine, monitor, adapters, tokenizer, template, base: info, snapshot };
    Ok((Arc::new(host), stock))
}

fn open_store(base: &Base, config: &Config, memory: HostMemory) -> Arc<AdapterStore> {
    let (cache, budget) = (config.fixed.adapter_cache.clone(), config.live.adapters.host_memory);
    AdapterStore::new(base.identity.clone(), cache, (memory, budget))
}

fn stock(base: &Base, adapters: Arc<AdapterStore>) -> Result<Stock, StartError> {
    // Guests are short; the model's threads need the cores.
    let threads = available_parallelism().map_or(1, |cores| cores.get()).div_ceil(4).max(2);
    let plugins = PluginHost::new(base.tokenizer.clone(), threads)?;
    Ok(Stock::new(plugins, Registry::new(adapters)))
}

async fn listen(config: &Config) -> Result<TcpListener, StartError> {
    let address = config.fixed.listen;
    let place = || config.place("server.listen");
    let listener = TcpListener::bind(address).await;
    listener.map_err(|why| StartError::Listen { place: place(), address, why })
}

#[cfg(test)]
mod tests;
