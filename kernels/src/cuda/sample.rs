//! Logits to tokens.

use super::{Context, Tensor, compiler::Source};
use crate::{SampleRow, Sampled};

pub(super) const SOURCE: Source = Source { name: "sample", text: include_str!("sample.cu") };

pub(super) fn sample(_cx: &mut Context, _logits: &Tensor, _rows: &[SampleRow]) -> Vec<Sampled> {
    todo!()
}
