//! Wire types of replies, field for field as the OpenAI API has them, and vLLM's additions
//! (`stop_reason`, `token_ids`, `prompt_token_ids`, `reasoning_content`).
//!
//! Requests have no types here: they are read field by field ([`fields`](super::fields)).

use std::{borrow::Cow, collections::BTreeMap};

use serde::Serialize;
use serde_json::{Map, Value};

/// The body of every refusal.
#[derive(Debug, Serialize)]
pub(super) struct ErrorBody {
    pub(super) error: ErrorDetail,
}

/// What is wrong.
#[derive(Debug, Serialize)]
pub(super) struct ErrorDetail {
    pub(super) message: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) param: Option<String>,
    pub(super) code: Option<Cow<'static, str>>,
}

/// A whole reply or one chunk of it, of either route.
#[derive(Serialize)]
pub(super) struct Completion<C> {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) model: String,
    pub(super) system_fingerprint: String,
    pub(super) choices: Vec<C>,
    /// `Some(None)` is the `null` of a stream that ends with a usage chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) usage: Option<Option<Usage>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt_token_ids: Option<Vec<u32>>,
}

/// Tokens counted.
#[derive(Serialize)]
pub(super) struct Usage {
    pub(super) prompt_tokens: usize,
    pub(super) completion_tokens: usize,
    pub(super) total_tokens: usize,
    pub(super) prompt_tokens_details: PromptTokensDetails,
}

/// How many prompt tokens cost nothing.
#[derive(Serialize)]
pub(super) struct PromptTokensDetails {
    pub(super) cached_tokens: usize,
}

/// One answer of a chat.
#[derive(Serialize)]
pub(super) struct ChatChoice {
    pub(super) index: u32,
    pub(super) message: ChatMessage,
    pub(super) logprobs: Option<ChatLogprobs>,
    pub(super) finish_reason: &'static str,
    pub(super) stop_reason: StopReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Extension::is_empty")]
    pub(super) switchyard: Extension,
}

/// What the model said.
#[derive(Serialize)]
pub(super) struct ChatMessage {
    pub(super) role: &'static str,
    /// `null` where there is nothing but calls.
    pub(super) content: Option<String>,
    pub(super) refusal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCall>,
}

/// A function the model calls.
#[derive(Serialize)]
pub(super) struct ToolCall {
    pub(super) id: String,
    #[serde(rename = "type")]
    pub(super) kind: &'static str,
    pub(super) function: Function,
}

/// Which function, with what.
#[derive(Serialize)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) arguments: String,
}

/// One piece of one answer of a chat.
#[derive(Default, Serialize)]
pub(super) struct ChatChunkChoice {
    pub(super) index: u32,
    pub(super) delta: ChatDelta,
    pub(super) logprobs: Option<ChatLogprobs>,
    pub(super) finish_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Extension::is_empty")]
    pub(super) switchyard: Extension,
}

/// What the piece adds.
#[derive(Default, Serialize)]
pub(super) struct ChatDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reasoning_content: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) tool_calls: Vec<ToolCallDelta>,
}

/// A piece of a call: `index` always, identity in the first piece only.
#[derive(Serialize)]
pub(super) struct ToolCallDelta {
    pub(super) index: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(super) kind: Option<&'static str>,
    pub(super) function: FunctionDelta,
}

/// More of a call's arguments.
#[derive(Serialize)]
pub(super) struct FunctionDelta {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) arguments: String,
}

/// What parser plugins say beside the answer, as `switchyard` in a choice: `annotations`, key to
/// text, and `structured`, name to `{json, complete}`. In a stream the latest of a name counts.
#[derive(Default, Serialize)]
pub(super) struct Extension {
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub(super) annotations: Map<String, Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) structured: BTreeMap<String, Structured>,
}

/// A result in a form of the parser's own.
#[derive(Serialize)]
pub(super) struct Structured {
    pub(super) json: String,
    pub(super) complete: bool,
}

impl Extension {
    fn is_empty(&self) -> bool {
        self.annotations.is_empty() && self.structured.is_empty()
    }
}

/// Log-probabilities of a chat's tokens.
#[derive(Serialize)]
pub(super) struct ChatLogprobs {
    pub(super) content: Vec<ChatTokenLogprob>,
    pub(super) refusal: Option<Vec<ChatTokenLogprob>>,
}

/// A token with its alternatives.
#[derive(Serialize)]
pub(super) struct ChatTokenLogprob {
    #[serde(flatten)]
    pub(super) token: TokenLogprob,
    pub(super) top_logprobs: Vec<TokenLogprob>,
}

/// A token with its log-probability.
#[derive(Serialize)]
pub(super) struct TokenLogprob {
    pub(super) token: String,
    pub(super) logprob: f32,
    pub(super) bytes: Vec<u8>,
}

/// One answer of a completion, or one piece of it.
#[derive(Serialize)]
pub(super) struct TextChoice {
    pub(super) index: u32,
    pub(super) text: String,
    pub(super) logprobs: Option<TextLogprobs>,
    pub(super) finish_reason: Option<&'static str>,
    pub(super) stop_reason: StopReason,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) prompt_token_ids: Option<Vec<u32>>,
}

/// Log-probabilities of a completion's tokens, one item per token in each list.
#[derive(Serialize)]
pub(super) struct TextLogprobs {
    pub(super) tokens: Vec<String>,
    pub(super) token_logprobs: Vec<f32>,
    pub(super) top_logprobs: Vec<Map<String, Value>>,
    pub(super) text_offset: Vec<usize>,
}

/// What ended an answer: a stop string, a stop token's id, or `null`.
#[derive(Default, Serialize)]
#[serde(untagged)]
pub(super) enum StopReason {
    /// The model's own end, or the length.
    #[default]
    None,
    /// A stop string.
    Text(String),
    /// A stop token.
    Token(u32),
}

/// `GET /v1/models`.
#[derive(Serialize)]
pub(super) struct ModelList {
    pub(super) object: &'static str,
    pub(super) data: Vec<ModelCard>,
}

/// The base or an adapter.
#[derive(Serialize)]
pub(super) struct ModelCard {
    pub(super) id: String,
    pub(super) object: &'static str,
    pub(super) created: u64,
    pub(super) owned_by: &'static str,
    pub(super) root: String,
    pub(super) parent: Option<String>,
    pub(super) max_model_len: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) switchyard: Option<AdapterCard>,
}

/// What else is known of an adapter.
#[derive(Serialize)]
pub(super) struct AdapterCard {
    pub(super) generation: String,
    pub(super) rank: u32,
    pub(super) tags: BTreeMap<String, String>,
}
