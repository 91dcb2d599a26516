//! Reads answers in the Hermes form: `<think>…</think>` is reasoning, `<tool_call>{"name": …,
//! "arguments": {…}}</tool_call>` is a call whose arguments are streamed while they are written.
//!
//! A call that is not JSON, or ends before its name is known, comes back as content, markers
//! included. White space between text and a marker is layout and dropped; nothing else is lost.
//! Where a request has no tools, or forbids them, `<tool_call>` is plain text.
//!
//! Configuration: `stamp = "..."` begins every answer with an annotation of that value.

use serde::Deserialize;
use switchyard_plugin::{AnswerParams, Config, Parser, Plugin, PluginError};

mod answer;
mod call;
mod prose;
#[cfg(test)]
mod tests;

use answer::Answer;

/// The plugin's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Hermes {
    /// The value of the annotation `stamp` that begins every answer.
    stamp: Option<String>,
}

impl Plugin for Hermes {
    const DOC: Option<&'static str> = Some("Hermes tool calls and <think> reasoning");
    const NEEDS_SPECIAL_TOKENS: bool = true;

    fn configure(config: Config) -> Result<Self, String> {
        config.parse()
    }
}

impl Parser for Hermes {
    type Stream = Answer;

    fn open(&self, params: AnswerParams) -> Result<Answer, PluginError> {
        Ok(Answer::new(self.stamp.clone(), &params))
    }
}

switchyard_plugin::export!(parser: Hermes);
