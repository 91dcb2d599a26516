//! A Llama-family decoder over any [`switchyard_kernels::Backend`].
//!
//! [`Model`] owns the backend, the weights it took over and the activations of one step; the
//! engine owns the model. A forward pass writes keys and values into the pool's slabs that the
//! batch names and nothing else outlives it.

mod config;
mod lora;
mod pack;
mod random;
mod scratch;
mod weights;

use std::{sync::Arc, time::Duration};

use switchyard_kernels::{
    AdapterSlot, AttentionShape, Backend, Batch, DeviceError, DeviceMemory, MatrixSource,
    ResidentAdapter, SampleRow, Sampled, Site,
};

pub use config::{ModelConfig, RopeScaling};
pub use lora::{AdapterId, AdapterImage, ImageMemory, LoraLinear, LoraWeights};
pub use pack::PackError;
pub use random::RandomMatrix;
use scratch::{Place, Scratch};
use weights::Weights;
pub use weights::{HostLayer, HostWeights};

/// The largest step that a model makes room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModelLimits {
    /// Token rows of a batch.
    pub rows: usize,
    /// Rows of a batch whose logits are wanted.
    pub logits: usize,
}

/// A decoder ready to run.
pub struct Model<B: Backend> {
    backend: B,
    config: ModelConfig,
    shape: AttentionShape,
    limits: ModelLimits,
    weights: Weights<B>,
    scratch: Scratch<B>,
}

impl<B: Backend> Model<B> {
    /// Hands the weights to the backend, which reads what has not been read, and makes room for
    /// steps of up to `limits`.
    pub fn new<M: MatrixSource>(
        mut backend: B,
        config: &ModelConfig,
        weights: HostWeights<M>,
        limits: ModelLimits,
    ) -> Result<Self, DeviceError> {
        let shape = config.attention_shape(weights.dtype());
        let weights = Weights::take_over(&mut backend, weights)?;
        let scratch = Scratch::new(&mut backend, config, limits)?;
        Ok(Self { backend, config: config.clone(), shape, limits, weights, scratch })
    }

    /// What runs the kernels.
    pub fn device(&self) -> String {
        self.backend.name()
    }

    /// Whether a step's draw is to be collected after the next step has been queued.
    pub fn runs_behind(&self) -> bool {
        self.backend.runs_behind()
    }

    /// The decoder's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The largest step.
    pub fn limits(&self) -> ModelLimits {
        self.limits
    }

    /// Bytes of one slab of the pool.
    pub fn slab_bytes(&self) -> usize {
        self.shape.slab_bytes()
    }

    /// Bytes for a pool whose size nobody has chosen.
    pub fn spare_bytes(&self) -> usize {
        self.backend.spare_bytes()
    }

    /// Allocates the pool. Called once, before the first forward pass.
    pub fn reserve(&mut self, slabs: usize) -> Result<(), DeviceError> {
        self.backend.reserve(&self.shape, slabs)
    }

    /// What the device holds, by owner.
    pub fn memory(&self) -> DeviceMemory {
        self.backend.memory()
    }

    /// Begins to copy an adapter into pool slabs, one of the image's slabs into each. Until the
    /// copy is complete the slabs are nobody else's; see [`Backend::load`].
    pub fn begin_load(&mut self, image: &AdapterImage, slabs: &[u32]) -> B::Load {
        assert_eq!(slabs.len(), image.map.slabs as usize, "one pool slab per slab of the image");
        self.backend.load(Arc::clone(&image.bytes), slabs)
    }

    /// How long a copy took, once it is complete.
    pub fn loaded(&mut self, load: &B::Load) -> Option<Duration> {
        self.backend.loaded(load)
    }

    /// Waits until a copy is complete.
    pub fn await_load(&mut self, load: &B::Load) {
        self.backend.await_load(load);
    }

    /// Makes an adapter that has been copied usable, from the next step on.
    pub fn bind_adapter(&mut self, slot: AdapterSlot, image: &AdapterImage, slabs: Vec<u32>) {
        self.backend.bind(slot, ResidentAdapter { map: Arc::clone(&image.map), slabs });
    }

    /// All of it at once: copies an adapter, waits and binds it.
    pub fn load_adapter(&mut self, slot: AdapterSlot, image: &AdapterImage, slabs: &[u32]) {
        let load = self.begin_load(image, slabs);
        self.await_load(&load);
        self.bind_adapter(slot, image, slabs.to_vec());
    }

    /// Computes one step: keys and values of every row, logits of `batch.logit_rows`.
    pub fn forward(&mut self, batch: &Batch) {
        batch.assert_consistent();
        assert!(batch.rows() <= self.limits.rows, "step budget: rows");
        assert!(batch.logit_rows.len() <= self.limits.logits, "step budget: logits");
        let lora = batch.has_lora();
        let (backend, weights, s) = (&mut self.backend, &self.weights, &mut self.scratch);
        let eps = self.config.norm_eps;

        backend.begin(batch);
        backend.embed(&weights.embedding, &mut s.residual);
        let mut pending = None;
        for (layer, w) in weights.layers.iter().enumerate() {
            let at = |site| Place { layer, site, lora };
            backend.norm(&mut s.residual, pending, (&w.attention_norm, eps), &mut s.normed);
            let qkv = s.qkv.multiply(backend, &s.normed, &w.qkv, at(Site::Qkv));
            backend.rope_store(layer, qkv, &mut s.queries);
            backend.attention(layer, &s.queries, &mut s.attended);
            let output = s.branch.multiply(backend, &s.attended, &w.output, at(Site::Output));
            backend.norm(&mut s.residual, Some(output), (&w.mlp_norm, eps), &mut s.normed);
            let gate_up = s.gate_up.multiply(backend, &s.normed, &w.gate_up, at(Site::GateUp));
            backend.activate(gate_up, &mut s.activated);
            pending = Some(s.branch.multiply(backend, &s.activated, &w.down, at(Site::Down)));
        }
        if batch.logit_rows.is_empty() {
            return;
        }
        backend.norm(&mut s.residual, pending, (&weights.norm, eps), &mut s.normed);
        backend.gather(&s.normed, &mut s.gathered);
        backend.matmul(&s.gathered, weights.head(), &mut s.logits);
    }

    /// Queues the drawing of one token for each of the last batch's `logit_rows`.
    pub fn sample(&mut self, rows: &[SampleRow]) -> B::Draw {
        self.backend.sample(&self.scratch.logits, rows)
    }

    /// Waits for the step of a draw; its tokens, in order of the rows.
    pub fn collect(&mut self, draw: B::Draw) -> Vec<Sampled> {
        self.backend.collect(draw)
    }

    /// Logits of the last batch that wanted any, `[logit_rows, vocabulary]`.
    pub fn logits(&mut self) -> Vec<f32> {
        self.backend.read(&self.scratch.logits)
    }
}

#[cfg(test)]
impl<B: Backend> Model<B> {
    pub(crate) fn backend(&self) -> &B {
        &self.backend
    }
}

#[cfg(test)]
pub(crate) mod tests;
