//! The conversation's vocabulary on its way into a guest, and a guest's refusal on its way out.

use super::{FaultKind, Refusal, bindings::switchyard::plugin::types, fault::guest_text};
use crate::chat::{Message, Role, Tool, ToolChoice};

pub(super) fn message(message: &Message) -> types::Message {
    let calls = message.tool_calls.iter().map(|call| types::ToolCall {
        id: call.id.clone(),
        name: call.name.clone(),
        arguments: call.arguments.clone(),
    });
    types::Message {
        role: match message.role {
            Role::System => types::Role::System,
            Role::Developer => types::Role::Developer,
            Role::User => types::Role::User,
            Role::Assistant => types::Role::Assistant,
            Role::Tool => types::Role::Tool,
        },
        content: message.content.clone(),
        name: message.name.clone(),
        reasoning: message.reasoning.clone(),
        tool_calls: calls.collect(),
        tool_call_id: message.tool_call_id.clone(),
        ext: Vec::new(),
    }
}

pub(super) fn tool(tool: &Tool) -> types::Tool {
    types::Tool {
        name: tool.name.clone(),
        description: tool.description.clone(),
        schema: tool.schema.clone(),
        strict: tool.strict,
    }
}

pub(super) fn tool_choice(choice: &ToolChoice) -> types::ToolChoice {
    match choice {
        ToolChoice::Auto => types::ToolChoice::Auto,
        ToolChoice::None => types::ToolChoice::None,
        ToolChoice::Required => types::ToolChoice::Required,
        ToolChoice::Named(name) => types::ToolChoice::Named(name.clone()),
    }
}

pub(super) fn pairs(pairs: &[(String, String)]) -> Vec<types::Kv> {
    let kv = |(key, value): &(String, String)| types::Kv { key: key.clone(), value: value.clone() };
    pairs.iter().map(kv).collect()
}

pub(super) fn refused(error: &types::PluginError) -> FaultKind {
    FaultKind::Refused(match error {
        types::PluginError::InvalidInput(why) => Refusal::InvalidInput(guest_text(why)),
        types::PluginError::Unsupported(why) => Refusal::Unsupported(guest_text(why)),
        types::PluginError::Unavailable(why) => Refusal::Unavailable(guest_text(why)),
        types::PluginError::Internal(why) => Refusal::Internal(guest_text(why)),
    })
}
