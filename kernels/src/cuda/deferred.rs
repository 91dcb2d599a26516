//! Operations that are put off until their reader is known, which then does their work in passing.
//!
//! What such an operation reads must stay as it is until the tensor that it writes has been read.

use std::cell::Cell;

use super::{Context, Tensor, rope_store::Rotation};

/// What a tensor is going to hold.
#[derive(Clone, Copy)]
pub(super) enum Deferred {
    /// Rotated queries, and keys and values in their pages: attention does both.
    Rotation(Rotation),
}

/// A tensor's deferred operation, if it has one; taken by the first reader.
#[derive(Default)]
pub(super) struct DeferredCell(Cell<Option<Deferred>>);

impl DeferredCell {
    pub(super) fn set(&self, deferred: Deferred) {
        self.0.set(Some(deferred));
    }

    pub(super) fn clear(&self) {
        self.0.set(None);
    }

    /// The operation, for a reader that does its work; nobody else will.
    pub(super) fn take(&self) -> Option<Deferred> {
        self.0.take()
    }
}

/// Queues what a tensor waits for, for readers that do nothing in passing.
pub(super) fn settle(cx: &mut Context, tensor: &Tensor) {
    match tensor.deferred.take() {
        None => {}
        Some(Deferred::Rotation(rotation)) => rotation.queue(cx, tensor),
    }
}
