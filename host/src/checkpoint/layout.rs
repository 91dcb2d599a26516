//! Which tensors a Llama checkpoint holds, and how they are stacked into a decoder's weights.

use std::sync::Arc;

use switchyard_kernels::Dtype;

use super::{
    CheckpointError,
    shards::Shards,
    stack::{Meter, TensorStack},
};
use crate::model::{HostLayer, HostWeights, ModelConfig};

const EMBEDDING: &str = "model.embed_tokens.weight";
const NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

/// Tensors of old exports that are computed, not loaded: they may be there and are left alone.
const COMPUTED: [&str; 1] = [".rotary_emb.inv_freq"];

/// Which optional tensors there are.
pub(super) struct Layout {
    /// Query, key, value and output have biases.
    pub(super) attention_bias: bool,
    /// Gate, up and down have biases.
    pub(super) mlp_bias: bool,
    /// The embedding serves as the head too.
    pub(super) tied: bool,
}

impl Layout {
    /// Refuses a checkpoint unless every tensor is there in its shape, and no other is.
    pub(super) fn check(
        &self,
        config: &ModelConfig,
        shards: &Shards,
    ) -> Result<(), CheckpointError> {
        let expected = self.tensors(config);
        for (name, shape) in &expected {
            let Some((file, entry)) = shards.find(name) else {
                return Err(CheckpointError::MissingTensor {
                    dir: shards.dir.clone(),
                    tensor: name.clone(),
                    expected: shape.clone(),
                });
            };
            if entry.shape != *shape {
                return Err(CheckpointError::Shape {
                    path: file.path().to_owned(),
                    tensor: name.clone(),
                    expected: shape.clone(),
                    found: entry.shape.clone(),
                });
            }
        }
        let known: std::collections::HashSet<&str> =
            expected.iter().map(|(name, _)| name.as_str()).collect();
        let unknown = |name: &&str| {
            !known.contains(name) && !COMPUTED.iter().any(|suffix| name.ends_with(suffix))
        };
        let mut unknown = shards.names().filter(unknown);
        match unknown.next() {
            None => Ok(()),
            Some(first) => Err(CheckpointError::UnknownTensors {
                dir: shards.dir.clone(),
                architecture: "LlamaForCausalLM with this config.json",
                first: first.to_owned(),
                count: 1 + unknown.count(),
            }),
        }
    }

    /// The element type in which the matrices lose nothing.
    pub(super) fn dtype(&self, config: &ModelConfig, shards: &Shards) -> Dtype {
        let tensors = self.tensors(config);
        let matrices = tensors.iter().filter(|(_, shape)| shape.len() == 2);
        shards.widest(matrices.map(|(name, _)| name.as_str()))
    }

    /// Every tensor with its shape.
    fn tensors(&self, config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
        let (hidden, intermediate) = (config.hidden, config.intermediate);
        let (q, kv) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        let linears = [
            ("self_attn.q_proj", q, hidden, self.attention_bias),
            ("self_attn.k_proj", kv, hidden, self.attention_bias),
            ("self_attn.v_proj", kv, hidden, self.attention_bias),
            ("self_attn.o_proj", hidden, q, self.attention_bias),
            ("mlp.gate_proj", intermediate, hidden, self.mlp_bias),
            ("mlp.up_proj", intermediate, hidden, self.mlp_bias),
            ("mlp.down_proj", hidden, intermediate, self.mlp_bias),
        ];
        let mut tensors = vec![
            (EMBEDDING.to_owned(), vec![config.vocabulary, hidden]),
            (NORM.to_owned(), vec![hidden]),
        ];
        if !self.tied {
            tensors.push((HEAD.to_owned(), vec![config.vocabulary, hidden]));
        }
        for layer in 0..config.layers {
            for norm in ["input_layernorm", "post_attention_layernorm"] {
                tensors.push((format!("model.layers.{layer}.{norm}.weight"), vec![hidden]));
            }
            for (linear, outputs, inputs, bias) in linears {
                let name = format!("model.layers.{layer}.{linear}");
                tensors.push((format!("{name}.weight"), vec![outputs, inputs]));
                if bias {
                    tensors.push((format!("{name}.bias"), vec![outputs]));
                }
            }
        }
        tensors
    }

    /// The weights of a checked checkpoint.
    pub(super) fn weights(
        &self,
        config: &ModelConfig,
        shards: &Shards,
        dtype: Dtype,
        meter: Meter,
    ) -> Result<HostWeights<TensorStack>, CheckpointError> {
        let reader = Reader { shards, dtype, meter: Arc::new(meter) };
        let layers = (0..config.layers).map(|layer| self.layer(layer, &reader));
        Ok(HostWeights {
            embedding: reader.matrix("", &[EMBEDDING]),
            layers: layers.collect::<Result<_, _>>()?,
            norm: reader.vector("", &[NORM])?,
            head: (!self.tied).then(|| reader.matrix("", &[HEAD])),
        })
    }

    fn layer(
        &self,
        layer: usize,
        reader: &Reader,
    ) -> Result<HostLayer<TensorStack>, CheckpointError> {
        let at = format!("model.layers.{layer}.");
        let qkv = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
        let gate_up = ["mlp.gate_proj", "mlp.up_proj"];
        Ok(HostLayer {
            attention_norm: reader.vector(&at, &["input_layernorm.weight"])?,
            qkv: reader.weight(&at, &qkv),
            qkv_bias: reader.bias(&at, &qkv, self.attention_bias)?,
            output: reader.weight(&at, &["self_attn.o_proj"]),
            output_bias: reader.bias(&at, &["self_attn.o_proj"], self.attention_bias)?,
            mlp_norm: reader.vector(&at, &["post_attention_layernorm.weight"])?,
            gate_up: reader.weight(&at, &gate_up),
            gate_up_bias: reader.bias(&at, &gate_up, self.mlp_bias)?,
            down: reader.weight(&at, &["mlp.down_proj"]),
            down_bias: reader.bias(&at, &["mlp.down_proj"], self.mlp_bias)?,
        })
    }
}

/// Finds matrices and reads vectors.
struct Reader<'a> {
    shards: &'a Shards,
    dtype: Dtype,
    meter: Arc<Meter>,
}

impl Reader<'_> {
    /// The weights of linears, stacked along their outputs.
    fn weight(&self, at: &str, linears: &[&str]) -> TensorStack {
        let names: Vec<_> = linears.iter().map(|linear| format!("{linear}.weight")).collect();
        self.matrix(at, &names.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The biases of linears, one after the other.
    fn bias(
        &self,
        at: &str,
        linears: &[&str],
        present: bool,
    ) -> Result<Option<Vec<f32>>, CheckpointError> {
        if !present {
            return Ok(None);
        }
        let names: Vec<_> = linears.iter().map(|linear| format!("{linear}.bias")).collect();
        self.vector(at, &names.iter().map(String::as_str).collect::<Vec<_>>()).map(Some)
    }

    /// Matrices of equal width, stacked.
    fn matrix(&self, at: &str, names: &[&str]) -> TensorStack {
        let part = |name| {
            let name = format!("{at}{name}");
            let (file, entry) = self.shards.checked(&name);
            (Arc::clone(file), entry.clone(), name)
        };
        TensorStack::new(self.dtype, names.iter().map(part).collect(), Arc::clone(&self.meter))
    }

    /// Vectors, one after the other, in `f32`.
    fn vector(&self, at: &str, names: &[&str]) -> Result<Vec<f32>, CheckpointError> {
        let mut vector = Vec::new();
        for name in names {
            let tensor = format!("{at}{name}");
            let (file, entry) = self.shards.checked(&tensor);
            let read = file.read_f32(entry);
            vector.extend(read.map_err(|why| CheckpointError::Tensor { tensor, why })?);
            self.meter.advance(entry.bytes());
        }
        Ok(vector)
    }
}
