//! Token rows of the embedding table.

use super::{Context, Matrix, Tensor, compiler::Source};

pub(super) const SOURCE: Source = Source { name: "embed", text: include_str!("embed.cu") };

pub(super) fn embed(_cx: &mut Context, _table: &Matrix, _out: &mut Tensor) {
    todo!()
}
