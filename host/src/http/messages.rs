//! The turns of a chat request.

use serde_json::Value;

use super::{
    ApiError,
    fields::{Fields, kind},
};
use crate::chat::{Message, Role, ToolCall};

/// Takes `messages` out of a chat request: at least one, at most `most`.
pub(super) fn read(fields: &mut Fields, most: usize) -> Result<Vec<Message>, ApiError> {
    if fields.peek("messages").is_none() {
        let error = ApiError::bad_request("`messages` is required");
        return Err(error.param("messages"));
    }
    let turns = fields.list("messages", most)?;
    if turns.is_empty() {
        return Err(ApiError::invalid("messages", "must hold at least one message"));
    }
    let turns = turns.into_iter().enumerate();
    turns.map(|(at, turn)| message(turn, &format!("messages[{at}]"))).collect()
}

fn message(value: Value, path: &str) -> Result<Message, ApiError> {
    let mut fields = Fields::nested(value, path)?;
    let role = role(&mut fields)?;
    let tool_calls = tool_calls(&mut fields, role)?;
    let content_path = fields.path("content");
    let content = match fields.value("content") {
        Some(content) => content_text(content, &content_path)?,
        None if role == Role::Assistant => String::new(),
        None => {
            let message = format!("`{content_path}` is required for role `{}`", role.name());
            return Err(ApiError::bad_request(message).param(content_path));
        }
    };
    let reasoning = match fields.take("reasoning_content")? {
        None => fields.take("reasoning")?,
        reasoning => reasoning,
    };
    let tool_call_id = match role {
        Role::Tool => Some(fields.required("tool_call_id")?),
        _ => None,
    };
    Ok(Message { role, content, name: fields.take("name")?, reasoning, tool_calls, tool_call_id })
}

fn role(fields: &mut Fields) -> Result<Role, ApiError> {
    let name: String = fields.required("role")?;
    match name.as_str() {
        "system" => Ok(Role::System),
        "developer" => Ok(Role::Developer),
        "user" => Ok(Role::User),
        "assistant" => Ok(Role::Assistant),
        "tool" => Ok(Role::Tool),
        _ => {
            let problem =
                format!("`{name}` is none of system, developer, user, assistant and tool");
            Err(ApiError::invalid(&fields.path("role"), problem))
        }
    }
}

/// A string, or parts of text that are read as one.
fn content_text(content: Value, path: &str) -> Result<String, ApiError> {
    let parts = match content {
        Value::String(text) => return Ok(text),
        Value::Array(parts) => parts,
        other => {
            let problem = format!("must be a string or an array of parts, found {}", kind(&other));
            return Err(ApiError::invalid(path, problem));
        }
    };
    let parts = parts.into_iter().enumerate();
    parts.map(|(at, part)| part_text(part, &format!("{path}[{at}]"))).collect()
}

fn part_text(part: Value, path: &str) -> Result<String, ApiError> {
    let mut part = Fields::nested(part, path)?;
    let kind: String = part.required("type")?;
    match kind.as_str() {
        "text" => part.required("text"),
        "refusal" => part.required("refusal"),
        _ => {
            Err(ApiError::unsupported(path, format_args!(": this model reads text, not `{kind}`")))
        }
    }
}

fn tool_calls(fields: &mut Fields, role: Role) -> Result<Vec<ToolCall>, ApiError> {
    if fields.peek("function_call").is_some() {
        let path = fields.path("function_call");
        return Err(ApiError::unsupported(&path, "; use `tool_calls`"));
    }
    let path = fields.path("tool_calls");
    let calls = fields.take::<Vec<Value>>("tool_calls")?.unwrap_or_default();
    if role != Role::Assistant && !calls.is_empty() {
        let problem = format!("is only allowed for role `assistant`, not `{}`", role.name());
        return Err(ApiError::invalid(&path, problem));
    }
    let calls = calls.into_iter().enumerate();
    calls.map(|(at, call)| tool_call(call, &format!("{path}[{at}]"))).collect()
}

fn tool_call(call: Value, path: &str) -> Result<ToolCall, ApiError> {
    let mut call = Fields::nested(call, path)?;
    let id = call.required("id")?;
    let kind: String = call.take("type")?.unwrap_or_else(|| "function".to_owned());
    if kind != "function" {
        let problem = format!("`{kind}` is not `function`");
        return Err(ApiError::invalid(&call.path("type"), problem));
    }
    let path = call.path("function");
    let mut function = Fields::nested(call.required("function")?, &path)?;
    let name = function.required("name")?;
    let arguments = function.take("arguments")?.unwrap_or_default();
    Ok(ToolCall { id, name, arguments })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(messages: &Value) -> Result<Vec<Message>, ApiError> {
        let body = json!({"messages": messages}).to_string();
        read(&mut Fields::parse(body.as_bytes())?, 4)
    }

    #[test]
    fn bad_turns_are_refused_by_place() {
        let user = json!({"role": "user", "content": "x"});
        for (messages, param) in [
            (json!(null), "messages"),
            (json!("x"), "messages"),
            (json!([]), "messages"),
            (json!([user, user, user, user, user]), "messages"),
            (json!(["x"]), "messages[0]"),
            (json!([{"content": "x"}]), "messages[0].role"),
            (json!([{"role": "robot", "content": "x"}]), "messages[0].role"),
            (json!([{"role": 1, "content": "x"}]), "messages[0].role"),
            (json!([user, {"role": "user"}]), "messages[1].content"),
            (json!([{"role": "user", "content": 1}]), "messages[0].content"),
            (
                json!([{"role": "user", "content": [{"type": "text", "text": "x"},
                    {"type": "image_url", "image_url": {"url": "x"}}]}]),
                "messages[0].content[1]",
            ),
            (
                json!([{"role": "user", "content": [{"type": "text"}]}]),
                "messages[0].content[0].text",
            ),
            (json!([{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
            (
                json!([{"role": "user", "content": "x", "tool_calls": [{}]}]),
                "messages[0].tool_calls",
            ),
            (
                json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {}}]}]),
                "messages[0].tool_calls[0].function.name",
            ),
            (
                json!([{"role": "assistant", "function_call": {"name": "f"}}]),
                "messages[0].function_call",
            ),
        ] {
            let error = read_all(&messages).expect_err("a bad turn").into_body().error;
            assert_eq!(error.param.as_deref(), Some(param), "{messages}: {}", error.message);
        }
    }

    #[test]
    fn a_conversation_with_a_call_is_read_whole() {
        let messages = read_all(&json!([
            {"role": "user", "content": [
                {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "done"},
        ]));
        let messages = messages.expect("valid");
        assert_eq!(messages[0].content, "ab");
        assert_eq!(messages[1].reasoning.as_deref(), Some("hm"));
        let call = ToolCall { id: "call_1".into(), name: "f".into(), arguments: String::new() };
        assert_eq!(messages[1].tool_calls, [call]);
        assert_eq!(messages[2].tool_call_id.as_deref(), Some("call_1"));
    }
}
