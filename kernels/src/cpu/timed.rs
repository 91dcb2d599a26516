//! Times by the clock: work is done when its call returns.

use std::time::Instant;

use super::{Cpu, Tensor};
use crate::Timed;

impl Timed for Cpu {
    type Mark = Instant;

    fn mark(&mut self) -> Instant {
        Instant::now()
    }

    fn seconds(&mut self, from: &Instant, to: &Instant) -> f64 {
        (*to - *from).as_secs_f64()
    }

    fn hold_back(&mut self) {}

    fn is_deferred(&self, _: &Tensor) -> bool {
        false
    }
}
