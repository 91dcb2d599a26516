//! Renders a conversation as ChatML, with tools in the Hermes form.
//!
//! ```text
//! <|im_start|>system
//! Be brief.
//!
//! # Tools
//! <tools>
//! {"type": "function", "function": {"name": "get_weather", "parameters": {...}}}
//! </tools><|im_end|>
//! <|im_start|>user
//! Will it rain in Rome?<|im_end|>
//! <|im_start|>assistant
//! ```
//!
//! Configuration: `think = true` makes the model begin inside `<think>`, and the parser know it;
//! `stamp = "..."` is handed on with every prompt. Reasoning of earlier turns is dropped.

use serde::Deserialize;
use switchyard_plugin::{
    Config, Kv, Message, Plugin, PluginError, Rendered, Role, Segment, Template, TemplateInput,
    Tool, tokenizer,
};

mod prompt;
mod python_json;
#[cfg(test)]
mod tests;

use prompt::Prompt;
use python_json::{python, quoted};

/// The plugin's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ChatMl {
    /// Whether answers begin inside `<think>`.
    #[serde(default)]
    think: bool,
    /// Put into `ext` of every prompt, so that one can see which configuration made it.
    stamp: Option<String>,
}

/// The system turn's text: what the operator says, then the tools.
fn system_text(content: &str, tools: &[Tool]) -> Result<String, PluginError> {
    let mut text = content.to_owned();
    if tools.is_empty() {
        return Ok(text);
    }
    text.push_str(if text.is_empty() { "# Tools\n<tools>\n" } else { "\n\n# Tools\n<tools>\n" });
    for tool in tools {
        text.push_str(&tool_line(tool)?);
        text.push('\n');
    }
    text.push_str("</tools>");
    Ok(text)
}

/// A tool as OpenAI's JSON, in one line.
fn tool_line(tool: &Tool) -> Result<String, PluginError> {
    let mut function = format!("\"name\": {}", quoted(&tool.name));
    if let Some(description) = &tool.description {
        function.push_str(&format!(", \"description\": {}", quoted(description)));
    }
    if !tool.schema.is_empty() {
        function.push_str(&format!(", \"parameters\": {}", python(&tool.schema)?));
    }
    Ok(format!("{{\"type\": \"function\", \"function\": {{{function}}}}}"))
}

/// The assistant's own turn: what it said, then what it called.
/// Arguments that are not JSON (a call cut short) are shown as they are.
fn assistant_text(message: &Message) -> String {
    let mut text = message.content.clone();
    for call in &message.tool_calls {
        if !text.is_empty() {
            text.push('\n');
        }
        let name = quoted(&call.name);
        let arguments = python(&call.arguments).unwrap_or_else(|_| call.arguments.clone());
        text.push_str(&format!(
            "<tool_call>\n{{\"name\": {name}, \"arguments\": {arguments}}}\n</tool_call>"
        ));
    }
    text
}

impl ChatMl {
    fn prompt(&self, input: &TemplateInput) -> Result<Vec<Segment>, PluginError> {
        let mut prompt = Prompt::default();
        let is_system = |m: &&Message| matches!(m.role, Role::System | Role::Developer);
        let system = input.messages.first().filter(is_system);
        let system_content = system.map_or("", |message| &message.content);
        if system.is_some() || !input.tools.is_empty() {
            prompt.turn("system", &system_text(system_content, &input.tools)?);
        }
        for message in &input.messages[usize::from(system.is_some())..] {
            match message.role {
                Role::System | Role::Developer => prompt.turn("system", &message.content),
                Role::User => prompt.turn("user", &message.content),
                Role::Assistant => prompt.turn("assistant", &assistant_text(message)),
                Role::Tool => prompt.turn(
                    "user",
                    &format!("<tool_response>\n{}\n</tool_response>", message.content),
                ),
            }
        }
        if input.add_generation_prompt {
            prompt.begin("assistant");
            prompt.text(if self.think { "<think>\n" } else { "" });
        }
        Ok(prompt.finish())
    }
}

impl Plugin for ChatMl {
    const DOC: Option<&'static str> = Some("ChatML with tools in the Hermes form");

    fn configure(config: Config) -> Result<Self, String> {
        config.parse()
    }
}

impl Template for ChatMl {
    fn render(&self, input: TemplateInput) -> Result<Rendered, PluginError> {
        let mut rendered = Rendered::new(self.prompt(&input)?);
        rendered.stop_tokens.extend(tokenizer::special_id("<|im_end|>"));
        rendered.parser_init =
            (self.think && input.add_generation_prompt).then(|| "think".to_owned());
        rendered.ext.extend(self.stamp.as_ref().map(|stamp| Kv::new("stamp", stamp)));
        Ok(rendered)
    }
}

switchyard_plugin::export!(template: ChatMl);
