//! What is asked of a generation, free of any wire format.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::{
    chat::{Message, Tool, ToolChoice},
    engine::Sampling,
};

/// Where a request came from, as routers see it.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Names the request in logs.
    pub request_id: String,
    /// The route, such as `/v1/chat/completions`.
    pub path: String,
    /// Lower-case names; credentials are left out.
    pub headers: Vec<(String, String)>,
    /// Whether the answer is streamed.
    pub streaming: bool,
}

/// A conversation to be continued.
#[derive(Clone, Debug)]
pub struct ChatInput {
    /// At least one turn.
    pub messages: Arc<[Message]>,
    /// Functions on offer; empty where the choice is `None`.
    pub tools: Arc<[Tool]>,
    /// `Auto` or `None`: the others need a grammar and are refused at the wire.
    pub tool_choice: ToolChoice,
    /// Whether the answer may hold more than one call.
    pub parallel_tool_calls: bool,
    /// Whether the prompt ends with the head of an assistant turn.
    pub add_generation_prompt: bool,
    /// Variables for the template.
    pub kwargs: Map<String, Value>,
}

/// A text to be continued.
#[derive(Clone, Debug)]
pub enum Prompt {
    /// Encoded as the model's tokenizer does it; control tokens are not read out of it.
    Text(String),
    /// Taken as it is.
    Tokens(Vec<u32>),
}

/// What is to be continued.
#[derive(Clone, Debug)]
pub enum Input {
    /// A conversation.
    Chat(ChatInput),
    /// Texts, each answered on its own.
    Prompts(Vec<Prompt>),
}

/// What ends an answer, besides its length.
#[derive(Clone, Debug, Default)]
pub struct StopRules {
    /// Texts; none is empty.
    pub strings: Vec<String>,
    /// Token ids.
    pub tokens: Vec<u32>,
    /// Whether the text that ended the answer is shown.
    pub include: bool,
    /// Whether the model's own end tokens, and those of the template, are passed over.
    pub ignore_eos: bool,
}

/// A request to generate.
#[derive(Clone, Debug)]
pub struct GenerationRequest {
    /// Where it came from.
    pub origin: Origin,
    /// The base, an adapter, or `auto`.
    pub model: String,
    /// What is to be continued.
    pub input: Input,
    /// Answers per prompt, at least 1.
    pub choices: u32,
    /// `None`, or more than the context has room for, means all that is left of the context.
    pub max_tokens: Option<u32>,
    /// How tokens are drawn; choice `i` of a prompt draws with `seed + i`.
    pub sampling: Sampling,
    /// What ends an answer.
    pub stop: StopRules,
    /// Whether control tokens are left out of the text.
    pub skip_specials: bool,
}
