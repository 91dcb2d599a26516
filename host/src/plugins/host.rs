//! The plugin host: what all plugins share, and the way a plugin comes into service.

use std::{fmt::Display, sync::Arc};

use wasmtime::{Engine, component::Component};

use super::{
    Plugin, PluginError, PluginFault, PluginRole, PluginSpec,
    deadline::Ticker,
    engine,
    executor::Executor,
    fault::FaultKind,
    imports,
    instance::{Blueprint, Instance},
    load::{self, Artifact},
    plugin::Candidate,
    sandbox::Grant,
};
use crate::tokenizer::Tokenizer;

/// One engine, one ticker and a few threads for every plugin of the process.
pub struct PluginHost {
    engine: Engine,
    ticker: Arc<Ticker>,
    executor: Arc<Executor>,
    tokenizer: Tokenizer,
}

impl PluginHost {
    /// Starts `threads` threads for guests, and the ticker.
    pub fn new(tokenizer: Tokenizer, threads: usize) -> Result<Self, PluginError> {
        let host = |error: &dyn Display| PluginError::Host(error.to_string());
        let engine = engine::engine().map_err(|error| host(&format_args!("{error:#}")))?;
        let ticker = Ticker::start(&engine).map_err(|error| host(&error))?;
        let executor = Executor::start(threads).map_err(|error| host(&error))?;
        Ok(Self { engine, ticker: Arc::new(ticker), executor: Arc::new(executor), tokenizer })
    }

    /// Loads a plugin and proves it on an instance of its own: `describe`, `configure`,
    /// `self-test`. Blocks for as long as compiling takes, so not for an async thread. Gives
    /// `previous` back if nothing has changed; compiles again only if the bytes have.
    pub fn load(
        &self,
        spec: &PluginSpec,
        previous: Option<&Arc<Plugin>>,
    ) -> Result<Arc<Plugin>, PluginError> {
        let artifact = Artifact::read(spec)?;
        let digest = artifact.digest.clone();
        let compiled = previous.filter(|plugin| plugin.digest == digest);
        let component = match compiled {
            Some(plugin) if plugin.serves(spec, &digest) => return Ok(Arc::clone(plugin)),
            Some(plugin) => plugin.blueprint().component().clone(),
            None => artifact.compile(&self.engine, spec)?,
        };
        drop(artifact);
        let role = load::inspect(&component, &self.engine, spec)?;
        let blueprint = self.blueprint(&component, role, spec)?;
        let canary = Canary { spec, role };
        let mut instance = canary.passes("instantiate", blueprint.instantiate())?;
        let info = canary.passes("describe", instance.describe())?;
        canary.passes("configure", instance.configure())?;
        canary.passes("self-test", instance.self_test())?;
        let spare: Instance = canary.passes("configure", blueprint.configured())?;
        let candidate = Candidate { spec: spec.clone(), role, digest, info, blueprint };
        Ok(Arc::new(Plugin::new(candidate, spare, Arc::clone(&self.executor))))
    }

    fn blueprint(
        &self,
        component: &Component,
        role: PluginRole,
        spec: &PluginSpec,
    ) -> Result<Blueprint, PluginError> {
        let linked = imports::linker(&self.engine, spec.grant_prompt)
            .and_then(|linker| linker.instantiate_pre(component))
            .and_then(|pre| {
                let grant = Grant::new(spec, self.tokenizer.clone());
                let ticker = Arc::clone(&self.ticker);
                Blueprint::new(pre, role, grant, spec.limits.clone(), ticker)
            });
        linked.map_err(|error| load::unfit(spec, format!("does not fit the ABI: {error:#}")))
    }
}

/// Names the plugin in whatever its first instance does wrong.
struct Canary<'a> {
    spec: &'a PluginSpec,
    role: PluginRole,
}

impl Canary<'_> {
    fn passes<T>(
        &self,
        hook: &'static str,
        outcome: Result<T, FaultKind>,
    ) -> Result<T, PluginFault> {
        let plugin = || self.spec.name.clone();
        outcome.map_err(|kind| PluginFault { plugin: plugin(), role: self.role, hook, kind })
    }
}
