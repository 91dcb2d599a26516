//! Log lines on standard error, with a level that may change while the process runs.

use std::io;

use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use crate::{
    config::{Config, LogFormat},
    reload::SetLogLevel,
};

/// Starts logging; gives what changes the level.
pub(super) fn start(config: &Config) -> SetLogLevel {
    let (filter, handle) = reload::Layer::new(EnvFilter::new(&config.live.log_level));
    let lines = fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<_> + Send + Sync> = match config.fixed.log_format {
        LogFormat::Text => Box::new(lines.with_ansi(io::IsTerminal::is_terminal(&io::stderr()))),
        LogFormat::Json => Box::new(lines.json()),
    };
    let subscriber = Registry::default().with(filter).with(lines);
    if subscriber.try_init().is_err() {
        tracing::debug!("the process logs already");
    }
    Box::new(move |level| {
        if let Err(error) = handle.reload(EnvFilter::new(level)) {
            tracing::error!(%error, "the log level stays");
        }
    })
}
