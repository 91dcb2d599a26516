//! Attention over paged keys and values.

use super::{Context, Tensor, compiler::Source};

pub(super) const DECODE: Source =
    Source { name: "attention_decode", text: include_str!("attention_decode.cu") };
pub(super) const PREFILL: Source =
    Source { name: "attention_prefill", text: include_str!("attention_prefill.cu") };

pub(super) fn attention(_cx: &mut Context, _layer: usize, _q: &Tensor, _out: &mut Tensor) {
    todo!()
}
