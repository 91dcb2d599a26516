//! Rotary embedding, and keys and values into their pages.

use super::{Context, Cuda, Tensor, compiler::Source};
use crate::Pending;

pub(super) const SOURCE: Source =
    Source { name: "rope_store", text: include_str!("rope_store.cu") };

pub(super) fn rope_store(
    _cx: &mut Context,
    _layer: usize,
    _qkv: Pending<'_, Cuda>,
    _q: &mut Tensor,
) {
    todo!()
}
