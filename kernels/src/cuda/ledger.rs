//! Whose the device's memory is: every buffer is entered here by what it is for.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use super::monitor::Monitor;
use crate::{DeviceMemory, DeviceReading};

/// What buffers of these owners are for, as errors say it; all others are workspace.
pub(super) const WEIGHTS: &str = "weights";
pub(super) const ACTIVATIONS: &str = "activations";
pub(super) const POOL: &str = "the pool of KV pages and adapters";
pub(super) const ADAPTER_TABLES: &str = "adapter tables";

/// Bytes by what they are for, and what the driver sees beside them.
pub(super) struct Ledger {
    bytes: Mutex<BTreeMap<&'static str, usize>>,
    monitor: Option<Monitor>,
    /// Before there was a context.
    before: Option<DeviceReading>,
    /// Of the driver's own.
    driver: OnceLock<usize>,
}

impl Ledger {
    /// An empty ledger. Made before the device's context.
    pub(super) fn new(monitor: Option<Monitor>) -> Self {
        let before = monitor.as_ref().and_then(Monitor::read);
        Self { bytes: Mutex::default(), monitor, before, driver: OnceLock::new() }
    }

    pub(super) fn add(&self, what: &'static str, bytes: usize) {
        *self.entries().entry(what).or_default() += bytes;
    }

    pub(super) fn remove(&self, what: &'static str, bytes: usize) {
        let mut entries = self.entries();
        let entry = entries.get_mut(what).expect("a buffer was entered");
        *entry = entry.checked_sub(bytes).expect("a buffer is removed once");
    }

    /// Takes what the driver sees and nobody has entered for the driver's own. Without a figure for
    /// this process it is what the whole device has more in use than before the context, whoever
    /// else works there.
    pub(super) fn settle(&self) {
        let Some(now) = self.monitor.as_ref().and_then(Monitor::read) else { return };
        let grown = || self.before.map(|before| now.used.saturating_sub(before.used));
        let Some(seen) = now.process.or_else(grown) else { return };
        let entered: usize = self.entries().values().sum();
        // Settled before: a pool is reserved once.
        let _ = self.driver.set(seen.saturating_sub(entered));
    }

    pub(super) fn memory(&self) -> DeviceMemory {
        let mut memory = DeviceMemory { driver: self.driver.get().copied(), ..Default::default() };
        for (&what, bytes) in self.entries().iter() {
            let owner = match what {
                WEIGHTS => &mut memory.weights,
                ACTIVATIONS => &mut memory.activations,
                POOL => &mut memory.pool,
                ADAPTER_TABLES => &mut memory.adapter_tables,
                _ => &mut memory.workspace,
            };
            *owner += bytes;
        }
        memory
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_its_owners_until_it_is_given_up() {
        let ledger = Ledger::new(None);
        for (what, bytes) in [(WEIGHTS, 7), (WEIGHTS, 5), (POOL, 100), ("a step's batch", 3)] {
            ledger.add(what, bytes);
        }
        ledger.remove(WEIGHTS, 7);
        ledger.settle();
        let expected = DeviceMemory { weights: 5, pool: 100, workspace: 3, ..Default::default() };
        assert_eq!(ledger.memory(), expected);
        assert_eq!(expected.total(), 108);
    }
}
