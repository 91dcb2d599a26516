//! The trait that the model is written against.

use std::{sync::Arc, time::Duration};

use crate::{
    AdapterSlot, Batch, DeviceMemory, Dtype, HostBuffer, HostMemory, MatrixSource, Pending,
    ResidentAdapter, SampleRow, Sampled, Site, SourceError,
};

/// Tokens per KV page. One page of one sequence, all layers, is one slab of the pool.
pub const PAGE_TOKENS: usize = 16;

/// What went wrong on a device. A wrong shape is a bug and asserts instead.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// The device cannot hold what was asked for.
    #[error("{what}: {bytes} bytes do not fit in {device}'s memory")]
    OutOfMemory {
        /// What the memory was for.
        what: &'static str,
        /// How much was asked for.
        bytes: usize,
        /// The device's name.
        device: String,
    },
    /// The machine lacks something that the request names.
    #[error("{0}")]
    Unavailable(String),
    /// A kernel does not compile or load: what the device runs is not what it was written for.
    #[error("{0}")]
    Kernel(String),
    /// Weights could not be read.
    #[error(transparent)]
    Weights(SourceError),
}

/// What every attention layer of a model shares; fixes the layout of a KV slab.
///
/// A slab holds one page: `[layers, 2, kv_heads, PAGE_TOKENS, head_dim]`, K before V.
#[derive(Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Decoder layers.
    pub layers: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Elements per head.
    pub head_dim: usize,
    /// Storage of K and V.
    pub dtype: Dtype,
    /// `[rotary_dim / 2]` radians per position of each rotated pair; element `i` of a head is
    /// paired with element `i + rotary_dim / 2` (the Hugging Face layout).
    pub inv_freq: Vec<f32>,
}

impl AttentionShape {
    /// Bytes of one slab.
    pub fn slab_bytes(&self) -> usize {
        PAGE_TOKENS * self.layers * 2 * self.kv_heads * self.head_dim * self.dtype.size()
    }

    /// Outputs of the fused query, key and value product.
    pub fn qkv_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }
}

/// A device that runs the kernels of a decoder.
///
/// Rows flow with tensors: an operation sets the row count of what it writes from what it reads,
/// and columns are fixed when a tensor is made. Shapes that do not fit together are bugs and
/// assert. Invariant *row invariance*: what an operation writes to a row depends on that row, its
/// sequence's pages and its adapter alone, bit for bit, whatever else is in the batch.
pub trait Backend: Sized + Send + 'static {
    /// A weight matrix `[out, in]` on the device.
    type Matrix: Send;
    /// A weight vector `[n]` in f32 on the device.
    type Vector: Send;
    /// Activations `[rows, cols]`.
    type Tensor: Send;
    /// Tokens being drawn.
    type Draw: Send;
    /// An image being copied into the pool. Dropped early, it waits for the copy.
    type Load: Send;

    /// What runs the kernels, for logs: "cpu (amx-bf16, 2 threads)".
    fn name(&self) -> String;
    /// Whether a draw should be collected only after the next step has been queued, so that the
    /// device never waits for its caller.
    fn runs_behind(&self) -> bool;

    /// Takes a matrix over: without a copy where it lies in memory that the device works from, else
    /// in pieces.
    fn matrix<S: MatrixSource>(&mut self, source: S) -> Result<Self::Matrix, DeviceError>;
    /// Takes a vector over.
    fn vector(&mut self, host: &[f32]) -> Result<Self::Vector, DeviceError>;
    /// Activations of up to `rows` rows; contents unspecified.
    fn tensor(&mut self, rows: usize, cols: usize) -> Result<Self::Tensor, DeviceError>;
    /// Copies a tensor's rows to the host.
    fn read(&mut self, tensor: &Self::Tensor) -> Vec<f32>;

    /// Bytes for a pool whose size nobody has chosen: what can be spared now, with the weights in
    /// place.
    fn spare_bytes(&self) -> usize;
    /// Allocates the unified pool: `slabs` slabs of `shape.slab_bytes()`. Called once.
    fn reserve(&mut self, shape: &AttentionShape, slabs: usize) -> Result<(), DeviceError>;
    /// What it holds by now; the driver's own part is known once the pool is reserved.
    fn memory(&self) -> DeviceMemory;

    /// Memory of the host that images are loaded from at full speed. From any other a load may keep
    /// its caller waiting.
    fn host_memory(&self) -> HostMemory;
    /// Begins to copy an image into pool slabs, one of its slabs into each, beside the steps that
    /// run meanwhile and ordered with none of them. So until it is complete the slabs belong to the
    /// load alone: no step that uses them is queued, and every one that did has been collected.
    fn load(&mut self, image: Arc<HostBuffer>, slabs: &[u32]) -> Self::Load;
    /// How long the copy took, once it is complete: what is queued from here on reads the image.
    fn loaded(&mut self, load: &Self::Load) -> Option<Duration>;
    /// Waits until a load is complete.
    fn await_load(&mut self, load: &Self::Load);
    /// Makes the adapter whose image has been loaded usable as `slot`, from the next step on;
    /// replaces what was there, which no step in flight uses.
    fn bind(&mut self, slot: AdapterSlot, adapter: ResidentAdapter);

    /// Starts a step: the batch all operations up to the next `begin` refer to.
    fn begin(&mut self, batch: &Batch);

    /// `out[row] = table[token of row]`, `[rows, hidden]`.
    fn embed(&mut self, table: &Self::Matrix, out: &mut Self::Tensor);
    /// `residual += add`, then `out = rms_norm(residual) * weight`, both `[rows, hidden]`.
    fn norm(
        &mut self,
        residual: &mut Self::Tensor,
        add: Option<Pending<'_, Self>>,
        weight: (&Self::Vector, f32),
        out: &mut Self::Tensor,
    );
    /// `y = x w^T`: `x` `[rows, in]`, `w` `[out, in]`, `y` `[rows, out]`. It may be put off until
    /// `y` is read: until then `x` stays as it is.
    fn matmul(&mut self, x: &Self::Tensor, w: &Self::Matrix, y: &mut Self::Tensor);
    /// `out[row] = scale * x[row] A^T` of the row's adapter for every linear of the site; the
    /// layout is that of [`crate::Delta::shrunk`]. It may be put off until the product of the same
    /// `x` is read with this as its delta: until then `x` stays as it is.
    fn shrink(&mut self, x: &Self::Tensor, layer: usize, site: Site, out: &mut Self::Tensor);
    /// Finishes the fused product `[rows, qkv_width]`, rotates queries and keys, stores keys and
    /// values into their pages and writes the queries to `q` `[rows, heads * head_dim]`. All of it
    /// may wait until `q` is read, which is within the step; until then `qkv` stays as it is.
    fn rope_store(&mut self, layer: usize, qkv: Pending<'_, Self>, q: &mut Self::Tensor);
    /// Causal attention of each row's query over its sequence's pages up to the row's own
    /// position, scaled by `1 / sqrt(head_dim)`; `[rows, heads * head_dim]`.
    fn attention(&mut self, layer: usize, q: &Self::Tensor, out: &mut Self::Tensor);
    /// Finishes the fused product `[rows, 2 * intermediate]` (gate, then up) and writes
    /// `silu(gate) * up`, `[rows, intermediate]`.
    fn activate(&mut self, gate_up: Pending<'_, Self>, out: &mut Self::Tensor);
    /// `out[i] = x[batch.logit_rows[i]]`.
    fn gather(&mut self, x: &Self::Tensor, out: &mut Self::Tensor);
    /// Queues the drawing of one token per row of `logits` `[logits, vocabulary]`, the end of a
    /// step. Without rows nothing is drawn and `logits` may be those of an earlier step.
    fn sample(&mut self, logits: &Self::Tensor, rows: &[SampleRow]) -> Self::Draw;
    /// Waits until the step of the draw has run and gives its tokens, `[rows]`. Draws are
    /// collected in the order they were queued; newer steps may have been queued since.
    fn collect(&mut self, draw: Self::Draw) -> Vec<Sampled>;
}
