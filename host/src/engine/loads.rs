//! Copies of adapters into the pool that run beside the steps.
//!
//! They complete in the order in which they begin. Between two steps the engine asks for those that
//! have, binds them and tells the scheduler; only when no step can run does it wait for one.

use std::{collections::VecDeque, time::Duration};

use switchyard_kernels::Backend;

use super::{AdapterTraffic, residency::AdapterLoad, scheduler::Scheduler};
use crate::model::Model;

/// Loads that have begun.
pub(super) struct Loads<B: Backend> {
    /// Oldest first.
    under_way: VecDeque<(B::Load, AdapterLoad)>,
    loaded: u64,
    bytes: u64,
    time: Duration,
    waits: u64,
}

impl<B: Backend> Default for Loads<B> {
    fn default() -> Self {
        let (under_way, time) = (VecDeque::new(), Duration::ZERO);
        Self { under_way, loaded: 0, bytes: 0, time, waits: 0 }
    }
}

impl<B: Backend> Loads<B> {
    /// Whether none is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    pub(super) fn begin(&mut self, model: &mut Model<B>, adapter: AdapterLoad) {
        let load = model.begin_load(&adapter.image, &adapter.slabs);
        self.under_way.push_back((load, adapter));
    }

    /// Makes adapters that have been copied usable by the next step.
    pub(super) fn take_up(&mut self, model: &mut Model<B>, scheduler: &mut Scheduler) {
        while let Some((load, _)) = self.under_way.front() {
            let Some(time) = model.loaded(load) else { return };
            let Some((_, adapter)) = self.under_way.pop_front() else { return };
            let AdapterLoad { slot, image, slabs } = adapter;
            model.bind_adapter(slot, &image, slabs);
            scheduler.loaded(image.id);
            self.loaded += 1;
            self.bytes += image.bytes.len() as u64;
            self.time += time;
        }
    }

    /// Waits for the oldest, if there is any.
    pub(super) fn wait(&mut self, model: &mut Model<B>) {
        if let Some((load, _)) = self.under_way.front() {
            model.await_load(load);
            self.waits += 1;
        }
    }

    /// Fills in what is counted here.
    pub(super) fn report(&self, traffic: &mut AdapterTraffic) {
        let Self { loaded, bytes, time, waits, .. } = *self;
        (traffic.loaded, traffic.load_bytes) = (loaded, bytes);
        (traffic.load_time, traffic.load_waits) = (time, waits);
    }
}
