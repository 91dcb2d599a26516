//! The traits a plugin implements: [`Plugin`] and the one of its role. A value of the plugin's type
//! is the configured instance; the host makes a fresh one for each call of a router or a template
//! and for each stream of a parser, so it is no place to remember anything between requests.

use crate::{
    AnswerParams, Chunk, Config, Decision, Event, FinishReason, PluginError, Rendered,
    TemplateInput, router,
};

/// What every plugin is, whatever its role.
pub trait Plugin: Sized + 'static {
    /// One sentence for the operator.
    const DOC: Option<&'static str> = None;
    /// Whether the text of an answer must show special tokens such as `<tool_call>`.
    const NEEDS_SPECIAL_TOKENS: bool = false;

    /// Makes the instance; an error refuses the plugin, or its new version, with this text.
    fn configure(config: Config) -> Result<Self, String>;

    /// Checks what the plugin ships against itself, once, before it gets any request.
    fn self_test(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Chooses the adapter that serves a request.
pub trait Router: Plugin {
    /// Decides on one request, or passes it on to the next router.
    fn route(&self, request: router::Request) -> Result<Decision, PluginError>;
}

/// Turns messages into a prompt.
pub trait Template: Plugin {
    /// Renders one conversation.
    fn render(&self, input: TemplateInput) -> Result<Rendered, PluginError>;
}

/// Turns the text of an answer into events.
pub trait Parser: Plugin {
    /// The state of one answer.
    type Stream: Stream;

    /// Starts on one answer.
    fn open(&self, params: AnswerParams) -> Result<Self::Stream, PluginError>;
}

/// One answer on its way through a parser.
///
/// However the same text is cut into chunks, the events are the same once neighbouring deltas are
/// joined.
pub trait Stream: 'static {
    /// Takes the next text, appends what is certain now to `events`.
    fn feed(&mut self, chunk: &Chunk, events: &mut Vec<Event>) -> Result<(), PluginError>;

    /// Ends the answer: appends everything that was held back.
    fn finish(&mut self, why: FinishReason, events: &mut Vec<Event>) -> Result<(), PluginError> {
        let _ = (why, events);
        Ok(())
    }
}
