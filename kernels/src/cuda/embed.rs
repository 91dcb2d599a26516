//! Token rows of the embedding table.

use super::{
    Context, Matrix, Tensor,
    compiler::Source,
    launch::{Grid, Parameters},
};
use crate::Dtype;

pub(super) const SOURCE: Source = Source { name: "embed", text: include_str!("embed.cu") };

/// `out[row] = table[token of row]`: `table` `[vocabulary, hidden]`, `out` `[rows, hidden]` f32.
/// Tokens are below `vocabulary`.
pub(super) fn embed(cx: &mut Context, table: &Matrix, out: &mut Tensor) {
    assert_eq!(table.cols, out.cols, "the embedding's width is the hidden width");
    let rows = cx.step.rows();
    out.become_rows(rows, Dtype::F32);
    if rows.bound == 0 {
        return;
    }
    let kernel = format!("embed_{}", table.dtype.name());
    let parameters = Parameters::default()
        .with(cx.step.view())
        .with(cx.sampler.tokens())
        .with(table.data.address())
        .with(out.data.address())
        .with(table.cols as u32);
    // SAFETY: the parameters of `embed.cu`; table and `out` have the shapes asserted above, and
    // every token has a row of the table; drawn ones were written by the latest draw.
    unsafe { cx.launch(("embed", &kernel), Grid::flat(rows.bound as u32, 256), parameters) };
}
