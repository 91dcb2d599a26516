//! The names of tensors in a PEFT file.

use switchyard_kernels::Linear;

/// `A` or `B`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Half {
    A,
    B,
}

/// What a tensor's name says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TensorKey<'a> {
    pub(super) layer: usize,
    pub(super) linear: Linear,
    pub(super) half: Half,
    /// The adapter's name within the file, as in `lora_A.default.weight`.
    pub(super) adapter: Option<&'a str>,
}

/// Path of a linear within a decoder layer.
pub(super) fn path(linear: Linear) -> &'static str {
    match linear {
        Linear::Query => "self_attn.q_proj",
        Linear::Key => "self_attn.k_proj",
        Linear::Value => "self_attn.v_proj",
        Linear::Output => "self_attn.o_proj",
        Linear::Gate => "mlp.gate_proj",
        Linear::Up => "mlp.up_proj",
        Linear::Down => "mlp.down_proj",
    }
}

/// The name by which PEFT's patterns know a linear.
pub(super) fn module(layer: usize, linear: Linear) -> String {
    format!("model.layers.{layer}.{}", path(linear))
}

/// Reads `[base_model.model.]model.layers.N.<linear>.lora_A[.<adapter>].weight`, or says why a
/// name is refused.
pub(super) fn parse(key: &str) -> Result<TensorKey<'_>, &'static str> {
    let unknown = || Err(refusal(key));
    let name = key.strip_prefix("base_model.model.").unwrap_or(key);
    let Some((layer, rest)) = name.strip_prefix("model.layers.").and_then(|r| r.split_once('.'))
    else {
        return unknown();
    };
    // Plain digits only: no sign, and no second way to write a number.
    let canonical = layer == "0" || !layer.starts_with('0');
    let digits = canonical && layer.bytes().all(|byte| byte.is_ascii_digit());
    let Some(layer) = layer.parse().ok().filter(|_| digits) else { return unknown() };
    let of = |linear: &Linear| rest.strip_prefix(path(*linear)).map(|rest| (*linear, rest));
    let Some((linear, rest)) = Linear::ALL.iter().find_map(of) else { return unknown() };
    let (half, rest) = match (rest.strip_prefix(".lora_A."), rest.strip_prefix(".lora_B.")) {
        (Some(rest), _) => (Half::A, rest),
        (_, Some(rest)) => (Half::B, rest),
        _ => return unknown(),
    };
    let adapter = match rest.strip_suffix("weight").map(|rest| rest.strip_suffix('.')) {
        Some(Some(adapter)) if !adapter.is_empty() && !adapter.contains('.') => Some(adapter),
        Some(None) if rest == "weight" => None,
        _ => return unknown(),
    };
    Ok(TensorKey { layer, linear, half, adapter })
}

/// Why a name that does not parse is refused.
fn refusal(key: &str) -> &'static str {
    const REASONS: [(&str, &str); 9] = [
        ("lora_embedding_", "LoRA on embeddings is not supported"),
        ("lora_magnitude_vector", "it belongs to DoRA, which is not supported"),
        ("modules_to_save", "fully trained modules are not supported"),
        ("trainable_tokens", "trained tokens are not supported"),
        (".base_layer.", "it is a weight of the base, not of an adapter"),
        (".bias", "trained biases are not supported"),
        ("lm_head", "adapting the output head is not supported"),
        ("embed_tokens", "adapting or resizing the embedding is not supported"),
        ("qkv_proj", "fused query, key and value projections are not supported"),
    ];
    let known = REASONS.iter().find(|(part, _)| key.contains(part));
    known.map_or("it names no LoRA weight of a Llama decoder's linear", |(_, reason)| reason)
}
