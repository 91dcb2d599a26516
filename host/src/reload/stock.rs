//! Plugins and adapters as loaded, and what a configuration makes of them.

use std::sync::Arc;

use crate::{
    adapters::{Catalogue, Registry},
    config::LiveConfig,
    generation::Snapshot,
    plugins::{Plugin, PluginChain, PluginError, PluginHost, PluginSpec},
};

/// What has been loaded; the only owner of the registry and the plugin host.
pub struct Stock {
    host: PluginHost,
    registry: Registry,
    loaded: Vec<Loaded>,
}

/// A plugin and what it was loaded by.
#[derive(Clone)]
struct Loaded {
    spec: PluginSpec,
    plugin: Arc<Plugin>,
}

/// What a snapshot is made of, apart from limits.
pub struct Supply {
    /// The plugins by role.
    pub chain: PluginChain,
    /// The adapters.
    pub catalogue: Arc<Catalogue>,
    /// Whether any of it differs from the supply before.
    pub changed: bool,
    /// One line for each plugin that was loaded.
    pub news: Vec<String>,
}

impl Supply {
    /// The snapshot that this supply and a configuration make.
    pub fn snapshot(&self, generation: u64, live: &LiveConfig) -> Snapshot {
        Snapshot {
            generation,
            limits: live.limits.clone(),
            plugins: self.chain.clone(),
            catalogue: Arc::clone(&self.catalogue),
        }
    }
}

impl Stock {
    /// Nothing loaded yet.
    pub fn new(host: PluginHost, registry: Registry) -> Self {
        Self { host, registry, loaded: Vec::new() }
    }

    /// Loads what the configuration names and has changed. A plugin whose file alone is broken
    /// stays as it was; one whose entry is new or changed and that does not load refuses the whole
    /// configuration (`None`), and then nothing here has changed. What is wrong is added to
    /// `problems`.
    pub fn restock(&mut self, live: &LiveConfig, problems: &mut Vec<String>) -> Option<Supply> {
        let loaded: Vec<_> = live.plugins.iter().map(|spec| self.load(spec, problems)).collect();
        let loaded: Vec<Loaded> = loaded.into_iter().collect::<Option<_>>()?;
        let chain = match chain(&loaded) {
            Ok(chain) => chain,
            Err(error) => {
                problems.push(error.to_string());
                return None;
            }
        };
        self.registry.store().set_budget(live.adapters.host_memory);
        let refresh = self.registry.refresh(&live.adapters.dirs, &live.adapters.options);
        problems.extend(refresh.problems.iter().map(ToString::to_string));
        let news: Vec<_> = loaded.iter().filter_map(|now| self.news(now)).collect();
        let changed = refresh.changed || !news.is_empty() || loaded.len() != self.loaded.len();
        self.loaded = loaded;
        Some(Supply { chain, catalogue: refresh.catalogue, changed, news })
    }

    fn load(&self, spec: &PluginSpec, problems: &mut Vec<String>) -> Option<Loaded> {
        let previous = self.loaded.iter().find(|loaded| loaded.spec.name == spec.name);
        match self.host.load(spec, previous.map(|loaded| &loaded.plugin)) {
            Ok(plugin) => Some(Loaded { spec: spec.clone(), plugin }),
            Err(error) => {
                let good = previous.filter(|loaded| loaded.spec == *spec).cloned();
                let rest = if good.is_some() { "; its last good generation is kept" } else { "" };
                problems.push(format!("{error}{rest}"));
                good
            }
        }
    }

    /// One line about a plugin, unless it is the one that ran before.
    fn news(&self, now: &Loaded) -> Option<String> {
        let before = self.loaded.iter().find(|loaded| loaded.spec.name == now.spec.name);
        if before.is_some_and(|before| Arc::ptr_eq(&before.plugin, &now.plugin)) {
            return None;
        }
        let Plugin { name, version, digest, role, .. } = &*now.plugin;
        let digest = digest.get(..8).unwrap_or(digest);
        Some(format!("{role} {name} {version} ({digest})"))
    }
}

fn chain(loaded: &[Loaded]) -> Result<PluginChain, PluginError> {
    PluginChain::assemble(loaded.iter().map(|loaded| Arc::clone(&loaded.plugin)))
}
