//! The first half of a LoRA product: activations to ranks.

use super::{Context, Tensor, compiler::Source};
use crate::Site;

pub(super) const SOURCE: Source = Source { name: "shrink", text: include_str!("shrink.cu") };

pub(super) fn shrink(_cx: &mut Context, _x: &Tensor, _at: (usize, Site), _out: &mut Tensor) {
    todo!()
}
