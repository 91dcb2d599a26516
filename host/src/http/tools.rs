//! The functions of a chat request, and which of them may be called.

use serde_json::Value;

use super::{
    ApiError,
    fields::{Fields, kind},
};
use crate::chat::{Tool, ToolChoice};

/// Longest name of a function.
const NAME_LENGTH: usize = 64;

/// Takes `tools` and `tool_choice` out of a chat request; no tools where none may be called.
pub(super) fn read(fields: &mut Fields, most: usize) -> Result<(Vec<Tool>, ToolChoice), ApiError> {
    let tools = fields.list("tools", most)?.into_iter().enumerate();
    let tools = tools.map(|(at, value)| tool(value, &format!("tools[{at}]")));
    let tools = tools.collect::<Result<Vec<_>, _>>()?;
    match (choice(fields.value("tool_choice"), &tools)?, tools) {
        (ToolChoice::None, _) => Ok((Vec::new(), ToolChoice::None)),
        (choice, tools) => Ok((tools, choice)),
    }
}

fn tool(value: Value, path: &str) -> Result<Tool, ApiError> {
    let mut fields = Fields::nested(value, path)?;
    let kind: String = fields.required("type")?;
    if kind != "function" {
        return Err(ApiError::unsupported(&fields.path("type"), ": only `function` is"));
    }
    let path = fields.path("function");
    let mut function = Fields::nested(fields.required("function")?, &path)?;
    let name: String = function.required("name")?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if name.is_empty() || name.len() > NAME_LENGTH || !name.bytes().all(allowed) {
        let problem = format!("must be 1 to {NAME_LENGTH} letters, digits, `_`, `-` and `.`");
        return Err(ApiError::invalid(&function.path("name"), problem));
    }
    if function.flag("strict")? {
        let path = function.path("strict");
        return Err(ApiError::unsupported(&path, ": arguments are not held to the schema"));
    }
    let path = function.path("parameters");
    let parameters = function.value("parameters");
    if let Some(other) = parameters.as_ref().filter(|schema| !schema.is_object()) {
        let problem = format!("must be a JSON Schema object, found {}", self::kind(other));
        return Err(ApiError::invalid(&path, problem));
    }
    let schema = parameters.map_or_else(|| "{}".to_owned(), |schema| schema.to_string());
    Ok(Tool { name, description: function.take("description")?, schema, strict: false })
}

fn choice(value: Option<Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    const FIELD: &str = "tool_choice";
    let Some(value) = value else {
        return Ok(if tools.is_empty() { ToolChoice::None } else { ToolChoice::Auto });
    };
    let forced = ": the model is free to call or not; use `auto` or `none`";
    match value.as_str() {
        Some("none") => return Ok(ToolChoice::None),
        _ if tools.is_empty() => {
            return Err(ApiError::invalid(FIELD, "is only allowed where `tools` are given"));
        }
        Some("auto") => return Ok(ToolChoice::Auto),
        Some("required") => return Err(ApiError::unsupported(FIELD, forced)),
        Some(other) => {
            let problem = format!("`{other}` is none of none, auto and required");
            return Err(ApiError::invalid(FIELD, problem));
        }
        None => {}
    }
    let mut named = Fields::nested(value, FIELD)?;
    let kind: String = named.required("type")?;
    if kind != "function" {
        return Err(ApiError::unsupported(FIELD, format_args!(" of type `{kind}`")));
    }
    let path = named.path("function");
    let mut function = Fields::nested(named.required("function")?, &path)?;
    let name: String = function.required("name")?;
    if !tools.iter().any(|tool| tool.name == name) {
        return Err(ApiError::invalid(FIELD, format!("`{name}` is not one of the `tools`")));
    }
    Err(ApiError::unsupported(FIELD, forced))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(body: &Value) -> Result<(Vec<Tool>, ToolChoice), ApiError> {
        read(&mut Fields::parse(body.to_string().as_bytes())?, 2)
    }

    fn function(fields: Value) -> Value {
        json!({"type": "function", "function": fields})
    }

    fn named(name: &str) -> Value {
        function(json!({"name": name}))
    }

    #[test]
    fn tools_and_choices_are_checked() {
        let f = named("f");
        for (body, param, code) in [
            (json!({"tools": 1}), "tools", "invalid_value"),
            (json!({"tools": [f, f, f]}), "tools", "invalid_value"),
            (json!({"tools": ["f"]}), "tools[0]", "invalid_value"),
            (json!({"tools": [{"type": "x"}]}), "tools[0].type", "unsupported_parameter"),
            (json!({"tools": [f, named("a b")]}), "tools[1].function.name", "invalid_value"),
            (
                json!({"tools": [function(json!({"name": "f", "parameters": 1}))]}),
                "tools[0].function.parameters",
                "invalid_value",
            ),
            (
                json!({"tools": [function(json!({"name": "f", "strict": true}))]}),
                "tools[0].function.strict",
                "unsupported_parameter",
            ),
            (json!({"tool_choice": "auto"}), "tool_choice", "invalid_value"),
            (json!({"tool_choice": f}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "tool_choice": "maybe"}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "tool_choice": 1}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "tool_choice": named("g")}), "tool_choice", "invalid_value"),
            (json!({"tools": [f], "tool_choice": f}), "tool_choice", "unsupported_parameter"),
            (
                json!({"tools": [f], "tool_choice": "required"}),
                "tool_choice",
                "unsupported_parameter",
            ),
        ] {
            let error = read_all(&body).expect_err("a bad request").into_body().error;
            let found = (error.param.as_deref(), error.code.as_deref());
            assert_eq!(found, (Some(param), Some(code)), "{body}: {}", error.message);
        }
        let missing = read_all(&json!({"tools": [f], "tool_choice": {}})).expect_err("no type");
        assert_eq!(missing.into_body().error.param.as_deref(), Some("tool_choice.type"));
    }

    #[test]
    fn no_tools_are_shown_where_none_may_be_called() {
        let check = |body: Value, tools: usize, choice: ToolChoice| {
            let (found, found_choice) = read_all(&body).expect("valid");
            assert_eq!((found.len(), found_choice), (tools, choice), "{body}");
        };
        check(json!({}), 0, ToolChoice::None);
        check(json!({"tools": [], "tool_choice": "none"}), 0, ToolChoice::None);
        check(json!({"tools": [named("f")]}), 1, ToolChoice::Auto);
        check(json!({"tools": [named("f")], "tool_choice": "auto"}), 1, ToolChoice::Auto);
        check(json!({"tools": [named("f")], "tool_choice": "none"}), 0, ToolChoice::None);
    }

    #[test]
    fn a_schema_keeps_its_order() {
        let schema = json!({"type": "object", "properties": {"z": {}, "a": {}}});
        let fields = json!({"name": "f", "description": "d", "parameters": schema});
        let body = json!({"tools": [function(fields)]});
        let (tools, _) = read_all(&body).expect("valid");
        assert_eq!(tools[0].schema, schema.to_string());
        assert!(tools[0].schema.find("\"z\"") < tools[0].schema.find("\"a\""));
        assert_eq!(tools[0].description.as_deref(), Some("d"));
    }
}
