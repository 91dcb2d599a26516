//! The template's call: a conversation in, typed segments of the prompt out.

use std::sync::Arc;

use super::{
    FaultKind,
    bindings::exports::switchyard::plugin::template as wit,
    instance::{Instance, RoleGuest},
    messages,
};
use crate::{
    chat::{Message, Tool, ToolChoice},
    tokenizer::{Segment, Tokenizer},
};

/// Stop strings and stop tokens of one rendering.
const STOPS_MAX: usize = 64;
/// Counted for every segment and stop on top of its text.
const ITEM_COST: usize = 16;

/// What a template renders.
#[derive(Clone)]
pub struct RenderInput {
    /// The base model's id.
    pub model: String,
    /// The adapter that serves, if any.
    pub adapter: Option<String>,
    /// The conversation.
    pub messages: Arc<[Message]>,
    /// Functions the model may call.
    pub tools: Arc<[Tool]>,
    /// Whether it may, must or must not.
    pub tool_choice: ToolChoice,
    /// Whether the prompt ends where the assistant's turn begins.
    pub add_generation_prompt: bool,
    /// The date, as 2026-11-22.
    pub today: String,
    /// The client's `chat_template_kwargs`, values as JSON text.
    pub kwargs: Vec<(String, String)>,
}

/// A rendered prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// Text that cannot forge control tokens, and control tokens by name or id.
    pub segments: Vec<Segment>,
    /// Strings that end the answer, next to the client's.
    pub stop: Vec<String>,
    /// Tokens that end the answer.
    pub stop_tokens: Vec<u32>,
    /// Handed to the parser as it is.
    pub parser_init: Option<String>,
}

/// Asks a template.
pub(super) fn render(instance: &mut Instance, input: &RenderInput) -> Result<Rendered, FaultKind> {
    let asked = wit::Input {
        model: input.model.clone(),
        adapter: input.adapter.clone(),
        messages: input.messages.iter().map(messages::message).collect(),
        tools: input.tools.iter().map(messages::tool).collect(),
        tool_choice: messages::tool_choice(&input.tool_choice),
        add_generation_prompt: input.add_generation_prompt,
        today: input.today.clone(),
        kwargs: messages::pairs(&input.kwargs),
        ext: Vec::new(),
    };
    let answer = instance.call(|store, guest| match guest {
        RoleGuest::Template(guest) => guest.call_render(store, &asked).map(Some),
        RoleGuest::Router(_) | RoleGuest::Parser(_) => Ok(None),
    })?;
    let answer = answer.ok_or_else(|| FaultKind::Protocol("it is not a template".into()))?;
    let rendered = answer.map_err(|error| messages::refused(&error))?;
    check_bytes(&rendered, instance.limits().output_bytes)?;
    checked(rendered, &instance.grant().tokenizer)
}

fn check_bytes(rendered: &wit::Rendered, limit: usize) -> Result<(), FaultKind> {
    let segments = rendered.segments.iter().map(|segment| {
        ITEM_COST
            + match segment {
                wit::Segment::Text(text) | wit::Segment::Special(text) => text.len(),
                wit::Segment::Tokens(tokens) => size_of_val(tokens.as_slice()),
            }
    });
    let stops = rendered.stop.iter().map(|stop| ITEM_COST + stop.len());
    let init = rendered.parser_init.as_ref().map_or(0, String::len);
    let bytes = segments.chain(stops).sum::<usize>() + init;
    if limit < bytes { Err(FaultKind::Output(limit)) } else { Ok(()) }
}

/// Every token and every special must be one of the model's.
fn checked(rendered: wit::Rendered, tokenizer: &Tokenizer) -> Result<Rendered, FaultKind> {
    let wit::Rendered { segments, stop, stop_tokens, parser_init, .. } = rendered;
    if STOPS_MAX < stop.len() + stop_tokens.len() {
        return Err(FaultKind::Protocol(format!("more than {STOPS_MAX} stops")));
    }
    if stop.iter().any(String::is_empty) {
        return Err(FaultKind::Protocol("an empty stop string".into()));
    }
    check_tokens(&stop_tokens, tokenizer)?;
    let segments = segments.into_iter().map(|segment| self::segment(segment, tokenizer));
    Ok(Rendered { segments: segments.collect::<Result<_, _>>()?, stop, stop_tokens, parser_init })
}

fn segment(segment: wit::Segment, tokenizer: &Tokenizer) -> Result<Segment, FaultKind> {
    match segment {
        wit::Segment::Text(text) => Ok(Segment::Text(text)),
        wit::Segment::Special(name) if tokenizer.special_id(&name).is_some() => {
            Ok(Segment::Special(name))
        }
        wit::Segment::Special(name) => {
            let name = super::fault::guest_text(&name);
            Err(FaultKind::Protocol(format!("the model has no special token `{name}`")))
        }
        wit::Segment::Tokens(tokens) => {
            check_tokens(&tokens, tokenizer)?;
            Ok(Segment::Tokens(tokens))
        }
    }
}

fn check_tokens(tokens: &[u32], tokenizer: &Tokenizer) -> Result<(), FaultKind> {
    let vocabulary = tokenizer.vocabulary();
    match tokens.iter().find(|&&token| vocabulary <= token as usize) {
        None => Ok(()),
        Some(token) => {
            Err(FaultKind::Protocol(format!("token {token} where the vocabulary has {vocabulary}")))
        }
    }
}
