//! Residual addition and RMS norm.

use super::{Context, Cuda, Tensor, Vector, compiler::Source};
use crate::Pending;

pub(super) const SOURCE: Source = Source { name: "norm", text: include_str!("norm.cu") };

pub(super) fn norm(
    _cx: &mut Context,
    _residual: &mut Tensor,
    _add: Option<Pending<'_, Cuda>>,
    _weight: (&Vector, f32),
    _out: &mut Tensor,
) {
    todo!()
}
