//! Base products.

use super::{Context, Matrix, Tensor, compiler::Source};

pub(super) const PLAIN: Source =
    Source { name: "matmul_plain", text: include_str!("matmul_plain.cu") };

pub(super) fn matmul(_cx: &mut Context, _x: &Tensor, _w: &Matrix, _y: &mut Tensor) {
    todo!()
}
