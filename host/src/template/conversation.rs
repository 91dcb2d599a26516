//! A conversation as the JSON values that chat templates expect.

use serde_json::{Map, Value, json};

use super::TemplateInput;
use crate::chat::{Message, Role, Tool, ToolCall};

/// Where a text from outside stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// A name or an id, which templates like to put between brackets.
    Name,
    /// Something said or described.
    Text,
    /// A key or a string in a JSON value, which templates like to compare.
    Json,
}

/// Builds the variables that come with a request; every text from outside passes through `edit`.
pub(super) struct Conversation<'a> {
    pub(super) edit: &'a mut dyn FnMut(Origin, &str) -> String,
}

impl Conversation<'_> {
    /// Every variable. Those of the request never hide the standard ones.
    pub(super) fn values(&mut self, input: &TemplateInput) -> Map<String, Value> {
        let mut values: Map<_, _> =
            input.kwargs.iter().map(|(name, value)| (name.clone(), self.json(value))).collect();
        let messages: Vec<Value> = input.messages.iter().map(|m| self.message(m)).collect();
        let tools: Vec<Value> = input.tools.iter().map(|tool| self.tool(tool)).collect();
        let tools = if tools.is_empty() { Value::Null } else { tools.into() };
        values.insert("messages".to_owned(), messages.into());
        values.insert("tools".to_owned(), tools);
        values.insert("add_generation_prompt".to_owned(), input.add_generation_prompt.into());
        values.entry("documents").or_insert(Value::Null);
        values
    }

    fn edit(&mut self, origin: Origin, text: &str) -> Value {
        (self.edit)(origin, text).into()
    }

    /// Keys in the order in which transformers leaves them: templates may print a whole message.
    fn message(&mut self, message: &Message) -> Value {
        // Few templates know the newer name.
        let role = if message.role == Role::Developer { Role::System } else { message.role };
        let reasoning = message.reasoning.as_deref().map(|text| self.edit(Origin::Text, text));
        let mut map = Map::new();
        if let Some(reasoning) = &reasoning {
            map.insert("thinking".to_owned(), reasoning.clone());
        }
        map.insert("role".to_owned(), role.name().into());
        if !message.content.is_empty() || message.tool_calls.is_empty() {
            map.insert("content".to_owned(), self.edit(Origin::Text, &message.content));
        }
        if let Some(name) = &message.name {
            map.insert("name".to_owned(), self.edit(Origin::Name, name));
        }
        if let Some(reasoning) = reasoning {
            map.insert("reasoning_content".to_owned(), reasoning);
        }
        if !message.tool_calls.is_empty() {
            let calls: Vec<_> = message.tool_calls.iter().map(|c| self.tool_call(c)).collect();
            map.insert("tool_calls".to_owned(), calls.into());
        }
        if let Some(id) = &message.tool_call_id {
            map.insert("tool_call_id".to_owned(), self.edit(Origin::Name, id));
        }
        map.into()
    }

    /// Templates want the arguments as an object; text that is none stays text.
    fn tool_call(&mut self, call: &ToolCall) -> Value {
        let arguments = match serde_json::from_str::<Map<String, Value>>(&call.arguments) {
            Ok(arguments) => self.json(&arguments.into()),
            Err(_) => self.edit(Origin::Text, &call.arguments),
        };
        json!({
            "id": self.edit(Origin::Name, &call.id),
            "type": "function",
            "function": {"name": self.edit(Origin::Name, &call.name), "arguments": arguments},
        })
    }

    fn tool(&mut self, tool: &Tool) -> Value {
        let mut function = Map::new();
        function.insert("name".to_owned(), self.edit(Origin::Name, &tool.name));
        if let Some(description) = &tool.description {
            function.insert("description".to_owned(), self.edit(Origin::Text, description));
        }
        let schema = serde_json::from_str(&tool.schema).unwrap_or_else(|_| json!({}));
        function.insert("parameters".to_owned(), self.json(&schema));
        json!({"type": "function", "function": function})
    }

    fn json(&mut self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.edit(Origin::Json, text),
            Value::Array(list) => list.iter().map(|value| self.json(value)).collect(),
            Value::Object(map) => {
                let edited = map
                    .iter()
                    .map(|(key, value)| ((self.edit)(Origin::Json, key), self.json(value)));
                Value::Object(edited.collect())
            }
            other => other.clone(),
        }
    }
}
