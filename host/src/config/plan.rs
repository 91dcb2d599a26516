//! What a new configuration would change, and whether it can be applied without a restart.

use super::{Config, Setting, schema::Applies};

/// The difference between two configurations, as names of keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Changed keys that apply at once.
    pub live: Vec<String>,
    /// Changed keys that need a restart.
    pub restart: Vec<String>,
}

impl Plan {
    /// From what runs to what is wanted; a key that appears or goes counts as changed.
    pub fn between(running: &Config, wanted: &Config) -> Self {
        let mut plan = Self::default();
        let keys = running.settings.keys().chain(wanted.settings.keys());
        for key in keys.collect::<std::collections::BTreeSet<_>>() {
            let (old, new) = (running.settings.get(key), wanted.settings.get(key));
            let value = |setting: Option<&Setting>| setting.map(|setting| setting.value.clone());
            if value(old) == value(new) {
                continue;
            }
            match old.or(new).map(|setting| setting.applies) {
                Some(Applies::AtRestart) => plan.restart.push(key.clone()),
                _ => plan.live.push(key.clone()),
            }
        }
        plan
    }
}
