//! What is left of a product, for the kernels that add it up (`expand.cuh`).

use super::{Context, Cuda, adapters::AdaptersView, launch::Parameter, signals::Beside};
use crate::{Dtype, Pending};

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

/// `LowRank` of `low_rank.cuh`.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct LowRankView {
    s: u64,
    adapters: AdaptersView,
    beside: Beside,
    ranks: u32,
    layer: u32,
    site: u32,
    padding: u32,
}

impl LowRankView {
    pub(super) fn is_none(&self) -> bool {
        self.s == 0
    }

    /// With the shrink that runs beside the product.
    pub(super) fn beside(self, shrink: Beside) -> Self {
        Self { beside: shrink, ..self }
    }
}

impl PendingView {
    /// For kernels that read `y` as it lies: queues it first, if it is deferred, with all that is
    /// pending folded in.
    pub(super) fn settled(cx: &mut Context, pending: &Pending<'_, Cuda>) -> Self {
        let view = Self::new(cx, pending);
        let Some(product) = pending.y.deferred.take_product() else { return view };
        product.queue(cx, &view, pending.y);
        Self { y: view.y, width: view.width, ..Self::none() }
    }

    /// For kernels. Asserts that all of it belongs to this step and fits together.
    pub(super) fn new(cx: &Context, pending: &Pending<'_, Cuda>) -> Self {
        let Pending { y, bias, delta } = pending;
        let rows = cx.step.rows().live;
        assert_eq!(y.rows.live, rows, "a product of this step");
        assert!(bias.is_none_or(|bias| bias.len == y.cols), "one bias per output");
        let mut view = Self {
            y: y.data.address(),
            bias: bias.map_or(0, |bias| bias.data.address()),
            width: y.cols as u32,
            ..Self::none()
        };
        if let Some(delta) = delta.as_ref().filter(|_| cx.step.extent.has_lora) {
            let shrunk = delta.shrunk;
            assert_eq!(
                (shrunk.rows.live, shrunk.dtype),
                (rows, Dtype::F32),
                "low ranks of this step"
            );
            let product = y.deferred.product();
            let scale = product.and_then(|product| product.scale());
            assert_eq!(shrunk.scale.get(), scale, "low ranks of the product's activations");
            assert_eq!(shrunk.cols % 8, 0, "ranks come in eights");
            assert!(delta.layer < cx.pool.shape().layers, "a layer of the model");
            (view.shrunk, view.ranks) = (shrunk.data.address(), shrunk.cols as u32);
            view.adapters = cx.adapters.view();
            (view.layer, view.site) = (delta.layer as u32, delta.site as u32);
        }
        view
    }

    /// Nothing to add.
    pub(super) fn none() -> Self {
        let adapters = AdaptersView::NONE;
        Self { y: 0, bias: 0, shrunk: 0, adapters, width: 0, ranks: 0, layer: 0, site: 0 }
    }

    /// Of each output, or 0.
    pub(super) fn bias(&self) -> u64 {
        self.bias
    }

    /// What `low_rank.cuh` needs of it.
    pub(super) fn low_rank(&self) -> LowRankView {
        let Self { shrunk: s, adapters, ranks, layer, site, .. } = *self;
        let beside = Beside::default();
        LowRankView { s, adapters, beside, ranks, layer, site, padding: 0 }
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

/// The kernel of an operation for the elements of tiles and KV and those of the product.
pub(super) fn variant(cx: &Context, operation: &str, y: Dtype) -> String {
    assert!(y != Dtype::F16, "products are f32 or bf16");
    format!("{operation}_{}_{}", cx.pool.shape().dtype.name(), y.name())
}

/// Blocks that share so many items, `resident` of them on each multiprocessor at most.
pub(super) fn blocks_for(cx: &Context, items: u32, resident: u32) -> u32 {
    items.min(cx.device.processors * resident)
}
