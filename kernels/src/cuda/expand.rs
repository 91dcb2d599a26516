//! What is left of a product, for where it ends ([`Ending`]) or for the kernels that read it and
//! add it up (`expand.cuh`).

use super::{
    Context, Cuda, adapters::AdaptersView, deferred::settle, launch::Parameter,
    low_rank::LowRankView, matmul::Product,
};
use crate::{Delta, Dtype, Pending};

/// What a deferred product adds where it ends.
#[derive(Clone, Copy)]
pub(super) struct Ending {
    /// Of each output, or 0.
    pub(super) bias: u64,
    pub(super) low_rank: LowRankView,
}

impl Ending {
    /// Nothing.
    pub(super) const NONE: Self = Self { bias: 0, low_rank: LowRankView::NONE };

    /// Takes the product that waits, if it can make all that is to be added to it.
    pub(super) fn take(cx: &mut Context, pending: &Pending<'_, Cuda>) -> Option<(Product, Self)> {
        let product = pending.y.deferred.product()?;
        let low_rank = match delta(cx, pending) {
            None => LowRankView::NONE,
            Some(delta) => {
                let shrink = delta.shrunk.deferred.shrink()?;
                assert_eq!(
                    (shrink.x, shrink.layer, shrink.site),
                    (product.x(), delta.layer, delta.site),
                    "low ranks of the product's activations"
                );
                LowRankView::of_next(cx, &shrink)
            }
        };
        pending.y.deferred.clear();
        Some((product, Self { bias: bias(pending), low_rank }))
    }
}

/// `Pending` of `expand.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct PendingView {
    y: u64,
    bias: u64,
    shrunk: u64,
    adapters: AdaptersView,
    width: u32,
    ranks: u32,
    layer: u32,
    site: u32,
}

// SAFETY: the layout of `Pending` in `expand.cuh`.
unsafe impl Parameter for PendingView {}

impl PendingView {
    /// For kernels that read `y` as it lies: queues it first, if it is deferred, with all that is
    /// pending folded in where it can be.
    pub(super) fn settled(cx: &mut Context, pending: &Pending<'_, Cuda>) -> Self {
        let Some((product, ending)) = Ending::take(cx, pending) else {
            return Self::new(cx, pending);
        };
        product.queue(cx, &ending, pending.y);
        Self { y: pending.y.data.address(), width: pending.y.cols as u32, ..Self::none() }
    }

    /// For kernels. Queues what `y` and its low ranks wait for; asserts that all of it belongs to
    /// this step and fits together.
    pub(super) fn new(cx: &mut Context, pending: &Pending<'_, Cuda>) -> Self {
        settle(cx, pending.y);
        let mut view = Self {
            y: pending.y.data.address(),
            bias: bias(pending),
            width: pending.y.cols as u32,
            ..Self::none()
        };
        if let Some(Delta { shrunk, layer, site }) = delta(cx, pending) {
            settle(cx, shrunk);
            (view.shrunk, view.ranks) = (shrunk.data.address(), shrunk.cols as u32);
            view.adapters = cx.adapters.view();
            (view.layer, view.site) = (*layer as u32, *site as u32);
        }
        view
    }

    /// Nothing to add.
    pub(super) fn none() -> Self {
        let adapters = AdaptersView::NONE;
        Self { y: 0, bias: 0, shrunk: 0, adapters, width: 0, ranks: 0, layer: 0, site: 0 }
    }

    /// Where the product lies.
    pub(super) fn y(&self) -> u64 {
        self.y
    }

    /// Whether nothing is to be added to the product.
    pub(super) fn is_bare(&self) -> bool {
        self.bias == 0 && self.shrunk == 0
    }

    /// Whether any row has a delta.
    pub(super) fn has_delta(&self) -> bool {
        self.shrunk != 0
    }
}

fn bias(pending: &Pending<'_, Cuda>) -> u64 {
    assert!(pending.bias.is_none_or(|bias| bias.len == pending.y.cols), "one bias per output");
    pending.bias.map_or(0, |bias| bias.data.address())
}

/// What is to be added if any row has an adapter: low ranks of the product's step.
fn delta<'a>(cx: &Context, pending: &'a Pending<'_, Cuda>) -> Option<&'a Delta<'a, Cuda>> {
    let rows = cx.step.rows().live;
    assert_eq!(pending.y.rows.live, rows, "a product of this step");
    let delta = pending.delta.as_ref().filter(|_| cx.step.extent.has_lora)?;
    let shrunk = delta.shrunk;
    assert_eq!((shrunk.rows.live, shrunk.dtype), (rows, Dtype::F32), "low ranks of this step");
    assert_eq!(shrunk.cols % 8, 0, "ranks come in eights");
    assert!(delta.layer < cx.pool.shape().layers, "a layer of the model");
    Some(delta)
}

/// The kernel of an operation for the elements of tiles and KV and those of the product.
pub(super) fn variant(cx: &Context, operation: &str, y: Dtype) -> String {
    assert!(y != Dtype::F16, "products are f32 or bf16");
    format!("{operation}_{}_{}", cx.pool.shape().dtype.name(), y.name())
}

/// Blocks that share so many items, `resident` of them on each multiprocessor at most.
pub(super) fn blocks_for(cx: &Context, items: u32, resident: u32) -> u32 {
    items.min(cx.device.processors * resident)
}
