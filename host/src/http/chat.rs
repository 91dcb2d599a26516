//! `POST /v1/chat/completions`.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Map, Value};

use super::{
    ApiError, App,
    call::Call,
    fields::Fields,
    joined::{Joined, JoinedCall},
    logprobs::TokenView,
    messages,
    openai::{
        ChatChoice, ChatChunkChoice, ChatDelta, ChatMessage, Extension, Function, FunctionDelta,
        Structured, ToolCall, ToolCallDelta,
    },
    reply::{self, Answering, Wire, finish},
    sampling::{Form, Shared},
    tools, unsupported,
};
use crate::generation::{
    ChatInput, Delta, Generation, GenerationRequest, Input, Origin, Part, RequestLimits,
};

/// Answers a conversation.
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let Call { permit, snapshot, origin, fields } = app.admit(request).await?;
    let (request, form) = read(fields, origin, &snapshot.limits)?;
    let model = request.model.clone();
    let logprobs = request.sampling.logprobs.map(|most| most as usize);
    let generation = Generation::start(&app.host, snapshot, request).await?;
    let tokenizer = app.host.tokenizer.clone();
    let prompt = form.token_ids.then(|| generation.prompts().concat());
    let view = TokenView { tokenizer, logprobs, ids: form.token_ids };
    let wire = ChatWire { view, prompt, begun: Vec::new() };
    let answering = Answering { generation, permit, model, form };
    reply::respond(answering, &app.host.base, wire).await
}

fn read(
    mut fields: Fields,
    origin: Origin,
    limits: &RequestLimits,
) -> Result<(GenerationRequest, Form), ApiError> {
    unsupported::refuse_in_chat(&fields)?;
    let shared = Shared::read(&mut fields, limits)?;
    let messages = messages::read(&mut fields, limits.max_messages)?;
    let (tools, tool_choice) = tools::read(&mut fields, limits.max_tools)?;
    let mut sampling = shared.sampling;
    sampling.logprobs = logprobs(&mut fields, limits.max_logprobs)?;
    let chat = ChatInput {
        messages: messages.into(),
        tools: tools.into(),
        tool_choice,
        parallel_tool_calls: fields.take("parallel_tool_calls")?.unwrap_or(true),
        add_generation_prompt: fields.take("add_generation_prompt")?.unwrap_or(true),
        kwargs: fields.take::<Map<String, Value>>("chat_template_kwargs")?.unwrap_or_default(),
    };
    let older = fields.within("max_tokens", &(1..=u32::MAX))?;
    let max_tokens = fields.within("max_completion_tokens", &(1..=u32::MAX))?.or(older);
    let request = GenerationRequest {
        origin: Origin { streaming: shared.form.stream, ..origin },
        model: shared.model,
        input: Input::Chat(chat),
        choices: shared.choices,
        max_tokens,
        sampling,
        stop: shared.stop,
        skip_specials: shared.skip_specials,
    };
    Ok((request, shared.form))
}

/// `logprobs` is a switch, `top_logprobs` the number of alternatives.
fn logprobs(fields: &mut Fields, most: usize) -> Result<Option<u32>, ApiError> {
    let most = u32::try_from(most).unwrap_or(u32::MAX);
    let wanted = fields.flag("logprobs")?;
    let top = fields.within("top_logprobs", &(0..=most))?;
    match (wanted, top) {
        (true, top) => Ok(Some(top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => {
            let problem = "is only allowed where `logprobs` is true";
            Err(ApiError::invalid("top_logprobs", problem))
        }
    }
}

/// How a chat's choices look.
struct ChatWire {
    view: TokenView,
    prompt: Option<Vec<u32>>,
    /// Which choices have sent their role.
    begun: Vec<u32>,
}

impl Wire for ChatWire {
    const ID_PREFIX: &str = "chatcmpl-";
    const OBJECT: &str = "chat.completion";
    const CHUNK_OBJECT: &str = "chat.completion.chunk";
    type Choice = ChatChoice;
    type Chunk = ChatChunkChoice;

    fn chunks(&mut self, delta: Delta) -> Vec<ChatChunkChoice> {
        let Delta { choice: index, parts, tokens, finish: end } = delta;
        let mut chunks = Vec::new();
        if !self.begun.contains(&index) {
            self.begun.push(index);
            let (role, content) = (Some("assistant"), Some(String::new()));
            let delta = ChatDelta { role, content, ..ChatDelta::default() };
            chunks.push(ChatChunkChoice { index, delta, ..ChatChunkChoice::default() });
        }
        let first = chunks.len();
        chunks.extend(parts.into_iter().map(|part| chunk(index, part)));
        if let Some(end) = end {
            let (reason, stop_reason) = finish(end);
            let (finish_reason, stop_reason) = (Some(reason), Some(stop_reason));
            let end = ChatChunkChoice { index, finish_reason, stop_reason, ..Default::default() };
            chunks.push(end);
        } else if chunks.len() == first && self.view.is_wanted() {
            chunks.push(ChatChunkChoice { index, ..ChatChunkChoice::default() });
        }
        if let Some(chunk) = chunks.get_mut(first) {
            chunk.logprobs = self.view.chat(&tokens);
            chunk.token_ids = self.view.ids(&tokens);
        }
        chunks
    }

    fn choice(&self, index: u32, joined: Joined) -> ChatChoice {
        let Joined { content, reasoning, calls, remarks, tokens, finish: end } = joined;
        let only_calls = content.is_empty() && !calls.is_empty();
        let (finish_reason, stop_reason) = end.map(finish).unwrap_or_default();
        let mut switchyard = Extension::default();
        remarks.into_iter().for_each(|remark| note(&mut switchyard, remark));
        ChatChoice {
            index,
            message: ChatMessage {
                role: "assistant",
                content: (!only_calls).then_some(content),
                refusal: None,
                reasoning_content: (!reasoning.is_empty()).then_some(reasoning),
                tool_calls: calls.into_iter().map(tool_call).collect(),
            },
            logprobs: self.view.chat(&tokens),
            finish_reason,
            stop_reason,
            token_ids: self.view.ids(&tokens),
            switchyard,
        }
    }

    fn prompt_token_ids(&self) -> Option<Vec<u32>> {
        self.prompt.clone()
    }
}

fn chunk(index: u32, part: Part) -> ChatChunkChoice {
    let mut chunk = ChatChunkChoice { index, ..ChatChunkChoice::default() };
    match part {
        Part::Content(text) => chunk.delta.content = Some(text),
        Part::Reasoning(text) => chunk.delta.reasoning_content = Some(text),
        Part::ToolBegin { index, id, name } => {
            let function = FunctionDelta { name: Some(name), arguments: String::new() };
            let call = ToolCallDelta { index, id: Some(id), kind: Some("function"), function };
            chunk.delta.tool_calls.push(call);
        }
        Part::ToolArguments { index, fragment } => {
            let function = FunctionDelta { name: None, arguments: fragment };
            let call = ToolCallDelta { index, id: None, kind: None, function };
            chunk.delta.tool_calls.push(call);
        }
        remark @ (Part::Structured { .. } | Part::Annotation { .. }) => {
            note(&mut chunk.switchyard, remark);
        }
    }
    chunk
}

/// Writes a remark down; a later one of the same name replaces it.
fn note(extension: &mut Extension, remark: Part) {
    match remark {
        Part::Structured { name, json, complete } => {
            extension.structured.insert(name, Structured { json, complete });
        }
        Part::Annotation { key, value } => {
            extension.annotations.insert(key, Value::String(value));
        }
        Part::Content(_)
        | Part::Reasoning(_)
        | Part::ToolBegin { .. }
        | Part::ToolArguments { .. } => unreachable!("text and calls are no remarks"),
    }
}

fn tool_call(call: JoinedCall) -> ToolCall {
    let JoinedCall { id, name, arguments, .. } = call;
    ToolCall { id, kind: "function", function: Function { name, arguments } }
}
