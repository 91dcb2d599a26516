//! Backends whose work can be timed on their own clock.

use crate::Backend;

/// A backend that marks points in the order of its work.
pub trait Timed: Backend {
    /// A point between two operations.
    type Mark: Send;

    /// Marks the point behind all that was queued so far.
    fn mark(&mut self) -> Self::Mark;
    /// Seconds between two marks; waits for the later one.
    fn seconds(&mut self, from: &Self::Mark, to: &Self::Mark) -> f64;
    /// Keeps the device waiting for a few milliseconds, where work is queued, so that what is
    /// queued meanwhile runs without the gaps of a slow caller.
    fn hold_back(&mut self);
    /// Whether what the tensor is to hold is computed only by its reader.
    fn is_deferred(&self, tensor: &Self::Tensor) -> bool;
}
