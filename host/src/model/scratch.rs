//! The activations of one step, allocated once at the sizes of the largest step.

use switchyard_kernels::{Backend, Delta, DeviceError, MAX_RANK, Pending, Site};

use super::{ModelConfig, ModelLimits, weights::DeviceLinear};

/// Buffers of a forward pass; `rows` is the number of token rows of the batch.
pub(super) struct Scratch<B: Backend> {
    /// `[rows, hidden]`
    pub(super) residual: B::Tensor,
    /// `[rows, hidden]` the residual, normalised.
    pub(super) normed: B::Tensor,
    /// `[rows, (heads + 2 kv_heads) * head_dim]`
    pub(super) qkv: Product<B>,
    /// `[rows, heads * head_dim]` rotated.
    pub(super) queries: B::Tensor,
    /// `[rows, heads * head_dim]`
    pub(super) attended: B::Tensor,
    /// `[rows, hidden]` what attention or the MLP adds to the residual next.
    pub(super) branch: Product<B>,
    /// `[rows, 2 * intermediate]`
    pub(super) gate_up: Product<B>,
    /// `[rows, intermediate]`
    pub(super) activated: B::Tensor,
    /// `[logits, hidden]`
    pub(super) gathered: B::Tensor,
    /// `[logits, vocabulary]`
    pub(super) logits: B::Tensor,
}

impl<B: Backend> Scratch<B> {
    pub(super) fn new(
        backend: &mut B,
        config: &ModelConfig,
        limits: ModelLimits,
    ) -> Result<Self, DeviceError> {
        let ModelLimits { rows, logits } = limits;
        let query_width = config.heads * config.head_dim;
        let qkv_width = query_width + 2 * config.kv_heads * config.head_dim;
        Ok(Self {
            residual: backend.tensor(rows, config.hidden)?,
            normed: backend.tensor(rows, config.hidden)?,
            qkv: Product::new(backend, rows, qkv_width, Site::Qkv)?,
            queries: backend.tensor(rows, query_width)?,
            attended: backend.tensor(rows, query_width)?,
            branch: Product::new(backend, rows, config.hidden, Site::Output)?,
            gate_up: Product::new(backend, rows, 2 * config.intermediate, Site::GateUp)?,
            activated: backend.tensor(rows, config.intermediate)?,
            gathered: backend.tensor(logits, config.hidden)?,
            logits: backend.tensor(logits, config.vocabulary)?,
        })
    }
}

/// Where a product stands in the decoder, and whether the batch has adapters at all.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) layer: usize,
    pub(super) site: Site,
    pub(super) lora: bool,
}

/// A base product and the low-rank half that goes with it.
pub(super) struct Product<B: Backend> {
    /// `[rows, out]`
    y: B::Tensor,
    /// `[rows, MAX_RANK * linears of the site]`
    shrunk: B::Tensor,
}

impl<B: Backend> Product<B> {
    fn new(backend: &mut B, rows: usize, out: usize, site: Site) -> Result<Self, DeviceError> {
        let ranks = MAX_RANK * site.linears().len();
        Ok(Self { y: backend.tensor(rows, out)?, shrunk: backend.tensor(rows, ranks)? })
    }

    /// `x w^T` and, if the batch has adapters, `x A^T`; bias and expand are left to the reader.
    pub(super) fn multiply<'a>(
        &'a mut self,
        backend: &mut B,
        x: &B::Tensor,
        linear: &'a DeviceLinear<B>,
        at: Place,
    ) -> Pending<'a, B> {
        backend.matmul(x, &linear.weight, &mut self.y);
        if at.lora {
            backend.shrink(x, at.layer, at.site, &mut self.shrunk);
        }
        let Place { layer, site, lora } = at;
        let delta = lora.then_some(Delta { shrunk: &self.shrunk, layer, site });
        Pending { y: &self.y, bias: linear.bias.as_ref(), delta }
    }
}
