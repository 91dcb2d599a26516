//! A decoder's weights as `checkpoint` finds them, not yet read, and as a backend holds them.

use switchyard_kernels::{Backend, DeviceError, Dtype, HostMatrix, MatrixSource, SourceError};

/// One decoder layer, each matrix an `M`. Linears that share an input are stacked along their
/// outputs.
pub struct HostLayer<M = HostMatrix> {
    /// `[hidden]`
    pub attention_norm: Vec<f32>,
    /// `[(heads + 2 kv_heads) * head_dim, hidden]` query, key, value.
    pub qkv: M,
    /// `[(heads + 2 kv_heads) * head_dim]`
    pub qkv_bias: Option<Vec<f32>>,
    /// `[hidden, heads * head_dim]`
    pub output: M,
    /// `[hidden]`
    pub output_bias: Option<Vec<f32>>,
    /// `[hidden]`
    pub mlp_norm: Vec<f32>,
    /// `[2 * intermediate, hidden]` gate, up.
    pub gate_up: M,
    /// `[2 * intermediate]`
    pub gate_up_bias: Option<Vec<f32>>,
    /// `[hidden, intermediate]`
    pub down: M,
    /// `[hidden]`
    pub down_bias: Option<Vec<f32>>,
}

/// A whole decoder, each matrix an `M`: in host memory, or a source yet to be read. All matrices
/// have one element type.
pub struct HostWeights<M = HostMatrix> {
    /// `[vocabulary, hidden]`
    pub embedding: M,
    /// Input side first.
    pub layers: Vec<HostLayer<M>>,
    /// `[hidden]`
    pub norm: Vec<f32>,
    /// `[vocabulary, hidden]`; `None` when the embedding serves as the head too.
    pub head: Option<M>,
}

impl<M: MatrixSource> HostLayer<M> {
    fn into_host(self) -> Result<HostLayer, SourceError> {
        Ok(HostLayer {
            attention_norm: self.attention_norm,
            qkv: self.qkv.into_host()?,
            qkv_bias: self.qkv_bias,
            output: self.output.into_host()?,
            output_bias: self.output_bias,
            mlp_norm: self.mlp_norm,
            gate_up: self.gate_up.into_host()?,
            gate_up_bias: self.gate_up_bias,
            down: self.down.into_host()?,
            down_bias: self.down_bias,
        })
    }
}

impl<M: MatrixSource> HostWeights<M> {
    /// The element type of all matrices.
    pub fn dtype(&self) -> Dtype {
        self.embedding.dtype()
    }

    /// Reads every matrix into host memory.
    pub fn into_host(self) -> Result<HostWeights, SourceError> {
        let layers = self.layers.into_iter().map(HostLayer::into_host);
        Ok(HostWeights {
            embedding: self.embedding.into_host()?,
            layers: layers.collect::<Result<_, _>>()?,
            norm: self.norm,
            head: self.head.map(M::into_host).transpose()?,
        })
    }
}

/// A matrix product with an optional bias, on the device.
pub(super) struct DeviceLinear<B: Backend> {
    /// `[out, in]`
    pub(super) weight: B::Matrix,
    /// `[out]`
    pub(super) bias: Option<B::Vector>,
}

impl<B: Backend> DeviceLinear<B> {
    fn take_over(
        backend: &mut B,
        weight: impl MatrixSource,
        bias: Option<&[f32]>,
    ) -> Result<Self, DeviceError> {
        let bias = bias.map(|bias| backend.vector(bias)).transpose()?;
        Ok(Self { weight: backend.matrix(weight)?, bias })
    }
}

/// One decoder layer on the device; shapes as in [`HostLayer`].
pub(super) struct DeviceLayer<B: Backend> {
    pub(super) attention_norm: B::Vector,
    pub(super) qkv: DeviceLinear<B>,
    pub(super) output: DeviceLinear<B>,
    pub(super) mlp_norm: B::Vector,
    pub(super) gate_up: DeviceLinear<B>,
    pub(super) down: DeviceLinear<B>,
}

impl<B: Backend> DeviceLayer<B> {
    fn take_over<M: MatrixSource>(
        backend: &mut B,
        host: HostLayer<M>,
    ) -> Result<Self, DeviceError> {
        let mut linear = |weight, bias: Option<Vec<f32>>| {
            DeviceLinear::take_over(backend, weight, bias.as_deref())
        };
        let qkv = linear(host.qkv, host.qkv_bias)?;
        let output = linear(host.output, host.output_bias)?;
        let gate_up = linear(host.gate_up, host.gate_up_bias)?;
        let down = linear(host.down, host.down_bias)?;
        let attention_norm = backend.vector(&host.attention_norm)?;
        let mlp_norm = backend.vector(&host.mlp_norm)?;
        Ok(Self { attention_norm, qkv, output, mlp_norm, gate_up, down })
    }
}

/// A whole decoder on the device; shapes as in [`HostWeights`].
pub(super) struct Weights<B: Backend> {
    pub(super) embedding: B::Matrix,
    pub(super) layers: Vec<DeviceLayer<B>>,
    pub(super) norm: B::Vector,
    head: Option<B::Matrix>,
}

impl<B: Backend> Weights<B> {
    /// Moves every weight to the backend, one matrix after the other.
    pub(super) fn take_over<M: MatrixSource>(
        backend: &mut B,
        host: HostWeights<M>,
    ) -> Result<Self, DeviceError> {
        let layers = host.layers.into_iter().map(|layer| DeviceLayer::take_over(backend, layer));
        Ok(Self {
            layers: layers.collect::<Result<_, _>>()?,
            embedding: backend.matrix(host.embedding)?,
            norm: backend.vector(&host.norm)?,
            head: host.head.map(|head| backend.matrix(head)).transpose()?,
        })
    }

    /// `[vocabulary, hidden]` the output head.
    pub(super) fn head(&self) -> &B::Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }
}
