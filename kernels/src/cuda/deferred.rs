//! Operations that are put off until their reader is known, which then does their work in passing.
//!
//! What such an operation reads must stay as it is until the tensor that it writes has been read.

use std::cell::RefCell;

use super::{
    Context, Tensor, expand::Ending, matmul::Product, norm, rope_store::Rotation, shrink::Shrink,
};

/// What a tensor is going to hold.
pub(super) enum Deferred {
    /// The base product of few rows: whoever reads it says what becomes of its sums.
    Product(Product),
    /// Rotated queries, and keys and values in their pages: attention does both.
    Rotation(Rotation),
    /// Low ranks of few rows: the product of the same activations makes them by the way.
    Shrink(Shrink),
}

/// A tensor's deferred operation, if it has one; taken by the first reader.
#[derive(Default)]
pub(super) struct DeferredCell(RefCell<Option<Deferred>>);

impl DeferredCell {
    pub(super) fn set(&self, deferred: Deferred) {
        self.0.replace(Some(deferred));
    }

    pub(super) fn clear(&self) {
        self.0.take();
    }

    /// The operation, for a reader that does its work; nobody else will.
    pub(super) fn take(&self) -> Option<Deferred> {
        self.0.take()
    }

    /// The product that it is, left where it is.
    pub(super) fn product(&self) -> Option<Product> {
        match &*self.0.borrow() {
            Some(Deferred::Product(product)) => Some(product.clone()),
            Some(Deferred::Rotation(_) | Deferred::Shrink(_)) | None => None,
        }
    }

    /// The low ranks that it is, left where they are.
    pub(super) fn shrink(&self) -> Option<Shrink> {
        match *self.0.borrow() {
            Some(Deferred::Shrink(shrink)) => Some(shrink),
            Some(Deferred::Rotation(_) | Deferred::Product(_)) | None => None,
        }
    }

    /// [`Self::take`], where it can only be a rotation.
    pub(super) fn take_rotation(&self) -> Option<Rotation> {
        self.0.take().map(|deferred| match deferred {
            Deferred::Rotation(rotation) => rotation,
            Deferred::Product(_) | Deferred::Shrink(_) => unreachable!("these are no queries"),
        })
    }
}

/// Queues what a tensor waits for, and what its rows are yet to be multiplied with, for readers
/// that do nothing in passing.
pub(super) fn settle(cx: &mut Context, tensor: &Tensor) {
    match tensor.deferred.take() {
        None => {}
        Some(Deferred::Product(product)) => product.queue(cx, &Ending::NONE, tensor),
        Some(Deferred::Rotation(rotation)) => rotation.queue(cx, tensor),
        Some(Deferred::Shrink(shrink)) => shrink.queue(cx, tensor),
    }
    norm::settle_scale(cx, tensor);
}
