//! A decoder's weights in host memory, as `checkpoint` reads them and a backend takes them over.

use switchyard_kernels::HostMatrix;

/// One decoder layer. Linears that share an input are stacked along their outputs.
pub struct HostLayer {
    /// `[hidden]`
    pub attention_norm: Vec<f32>,
    /// `[(heads + 2 kv_heads) * head_dim, hidden]` query, key, value.
    pub qkv: HostMatrix,
    /// `[(heads + 2 kv_heads) * head_dim]`
    pub qkv_bias: Option<Vec<f32>>,
    /// `[hidden, heads * head_dim]`
    pub output: HostMatrix,
    /// `[hidden]`
    pub output_bias: Option<Vec<f32>>,
    /// `[hidden]`
    pub mlp_norm: Vec<f32>,
    /// `[2 * intermediate, hidden]` gate, up.
    pub gate_up: HostMatrix,
    /// `[2 * intermediate]`
    pub gate_up_bias: Option<Vec<f32>>,
    /// `[hidden, intermediate]`
    pub down: HostMatrix,
    /// `[hidden]`
    pub down_bias: Option<Vec<f32>>,
}

/// A whole decoder. All matrices have one element type.
pub struct HostWeights {
    /// `[vocabulary, hidden]`
    pub embedding: HostMatrix,
    /// Input side first.
    pub layers: Vec<HostLayer>,
    /// `[hidden]`
    pub norm: Vec<f32>,
    /// `[vocabulary, hidden]`; `None` when the embedding serves as the head too.
    pub head: Option<HostMatrix>,
}
