//! A conversation as the JSON values that chat templates expect.

use serde_json::{Map, Value, json};

use super::TemplateInput;
use crate::chat::{Message, Role, Tool, ToolCall};

/// Every variable that comes with the request. Its own variables never hide the standard ones.
pub(super) fn values(input: &TemplateInput) -> Map<String, Value> {
    let mut values = input.kwargs.clone();
    let messages: Vec<Value> = input.messages.iter().map(message).collect();
    let tools: Vec<Value> = input.tools.iter().map(tool).collect();
    values.insert("messages".to_owned(), messages.into());
    values.insert("tools".to_owned(), if tools.is_empty() { Value::Null } else { tools.into() });
    values.insert("add_generation_prompt".to_owned(), input.add_generation_prompt.into());
    values.entry("documents").or_insert(Value::Null);
    values
}

fn message(message: &Message) -> Value {
    // Few templates know the newer name.
    let role = if message.role == Role::Developer { Role::System } else { message.role };
    let mut map = Map::new();
    map.insert("role".to_owned(), role.name().into());
    let calls_only = message.content.is_empty() && !message.tool_calls.is_empty();
    let content = if calls_only { Value::Null } else { message.content.as_str().into() };
    map.insert("content".to_owned(), content);
    if let Some(name) = &message.name {
        map.insert("name".to_owned(), name.as_str().into());
    }
    if let Some(reasoning) = &message.reasoning {
        map.insert("reasoning_content".to_owned(), reasoning.as_str().into());
        map.insert("thinking".to_owned(), reasoning.as_str().into());
    }
    if !message.tool_calls.is_empty() {
        let calls: Vec<Value> = message.tool_calls.iter().map(tool_call).collect();
        map.insert("tool_calls".to_owned(), calls.into());
    }
    if let Some(id) = &message.tool_call_id {
        map.insert("tool_call_id".to_owned(), id.as_str().into());
    }
    map.into()
}

/// Templates want the arguments as an object; text that is none stays text.
fn tool_call(call: &ToolCall) -> Value {
    let arguments = serde_json::from_str::<Map<String, Value>>(&call.arguments)
        .map_or_else(|_| call.arguments.as_str().into(), Value::Object);
    json!({
        "id": call.id,
        "type": "function",
        "function": {"name": call.name, "arguments": arguments},
    })
}

fn tool(tool: &Tool) -> Value {
    let mut function = Map::new();
    function.insert("name".to_owned(), tool.name.as_str().into());
    if let Some(description) = &tool.description {
        function.insert("description".to_owned(), description.as_str().into());
    }
    let schema = serde_json::from_str(&tool.schema);
    function.insert("parameters".to_owned(), schema.unwrap_or_else(|_| json!({})));
    json!({"type": "function", "function": function})
}
