//! A matrix product whose last additions are left to whoever reads it next.

use crate::{Backend, Site};

/// The low-rank half of a LoRA product, `s = x A`, before `y += scale * s B`.
pub struct Delta<'a, B: Backend> {
    /// `[rows, ranks]`; each row holds the ranks of the site's slices one after the other, at the
    /// widths of that row's own adapter. Unspecified for base rows.
    pub shrunk: &'a B::Tensor,
    /// Layer of the weights.
    pub layer: usize,
    /// Which fused product it belongs to.
    pub site: Site,
}

/// `y + bias + delta`, not yet added up. The kernel that reads `y` next folds the rest in, so that
/// `y` is not written and read again and no kernel needs a variant for it.
pub struct Pending<'a, B: Backend> {
    /// `[rows, out]` the bare product.
    pub y: &'a B::Tensor,
    /// `[out]`, if the linear has one.
    pub bias: Option<&'a B::Vector>,
    /// Present when any row of the batch uses an adapter.
    pub delta: Option<Delta<'a, B>>,
}
