//! One choice's text turned into parts: by a parser plugin, or as plain content.
//!
//! At most one `feed` is under way; the caller gathers what arrives meanwhile into the next one. A
//! parser that faults is dropped: its open calls are closed, what it had not given back becomes
//! content, and so does the rest of the answer.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use super::Part;
use crate::plugins::{AnswerParams, AnswerParser, Event, ParseEnd, Plugin, PluginFault};

/// Characters of a call id after `call_`.
const CALL_ID_LENGTH: usize = 24;

/// Where a choice's text goes.
pub(super) struct Answer {
    parser: Option<Parser>,
    calls: Calls,
}

/// A parser's stream and what it still owes.
struct Parser {
    plugin: String,
    stream: AnswerParser,
    /// Tokens without text, kept for the next feed.
    tokens: Vec<u32>,
    /// Text fed but not yet seen in an event.
    owed: String,
}

/// The function calls of a choice.
#[derive(Default)]
struct Calls {
    /// Whether the answer ends with its first call.
    single: bool,
    any: bool,
    /// Index of each open call, and whether it has arguments yet.
    open: Vec<(u32, bool)>,
}

/// What a piece of text became.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// Pieces in order; neighbours of one kind are joined.
    pub(super) parts: Vec<Part>,
    /// Set where the answer shall end here, with the parser's reason.
    pub(super) stop: Option<Option<String>>,
}

impl Answer {
    /// Text becomes content as it is.
    pub(super) fn raw() -> Self {
        Self { parser: None, calls: Calls::default() }
    }

    /// Opens a stream of the parser, if there is one; one that cannot open leaves raw content.
    pub(super) async fn open(
        parser: Option<&Arc<Plugin>>,
        params: AnswerParams,
        parallel_calls: bool,
    ) -> Self {
        let Some(plugin) = parser else { return Self::raw() };
        let name = plugin.name.clone();
        let parser = match plugin.open(params).await {
            Ok(stream) => {
                Some(Parser { plugin: name, stream, tokens: Vec::new(), owed: String::new() })
            }
            Err(fault) => {
                warn_of(&name, &fault);
                None
            }
        };
        Self { parser, calls: Calls { single: !parallel_calls, ..Calls::default() } }
    }

    /// Whether a function call has begun.
    pub(super) fn has_calls(&self) -> bool {
        self.calls.any
    }

    /// Takes the next tokens and the text that they completed.
    pub(super) async fn feed(&mut self, tokens: impl Iterator<Item = u32>, text: String) -> Parsed {
        let Some(parser) = &mut self.parser else { return Parsed::content(text) };
        parser.tokens.extend(tokens);
        if text.is_empty() {
            return Parsed::default();
        }
        parser.owed.push_str(&text);
        let events = parser.stream.feed(std::mem::take(&mut parser.tokens), text).await;
        self.settle(events)
    }

    /// Tells the parser that the answer is over; what comes later would be raw content.
    pub(super) async fn finish(&mut self, why: ParseEnd) -> Parsed {
        let Some(parser) = &mut self.parser else { return Parsed::default() };
        let events = parser.stream.finish(why).await;
        let parsed = self.settle(events);
        self.parser = None;
        parsed
    }

    fn settle(&mut self, events: Result<Vec<Event>, PluginFault>) -> Parsed {
        let Some(parser) = &mut self.parser else { return Parsed::default() };
        let mut parsed = Parsed::default();
        match events {
            Ok(events) => {
                for event in events {
                    settle_debt(&mut parser.owed, &event);
                    self.calls.take(event, &mut parsed);
                    if parsed.stop.is_some() {
                        break;
                    }
                }
            }
            Err(fault) => {
                warn_of(&parser.plugin, &fault);
                self.calls.close_all(&mut parsed);
                parsed.push(Part::Content(std::mem::take(&mut parser.owed)));
                self.parser = None;
            }
        }
        parsed
    }
}

fn warn_of(plugin: &str, fault: &PluginFault) {
    tracing::warn!(plugin, %fault, "parser failed: the answer goes on as raw content");
}

/// Crosses off the text an event gave back, and the markers before it.
fn settle_debt(owed: &mut String, event: &Event) {
    let given = match event {
        Event::Content(text) | Event::Reasoning(text) => text,
        Event::ToolBegin { name, .. } => name,
        Event::ToolDelta { fragment, .. } => fragment,
        _ => return,
    };
    if let Some(at) = owed.find(given.as_str()) {
        owed.drain(..at + given.len());
    }
}

impl Calls {
    fn take(&mut self, event: Event, parsed: &mut Parsed) {
        match event {
            Event::Content(text) => parsed.push(Part::Content(text)),
            Event::Reasoning(text) => parsed.push(Part::Reasoning(text)),
            Event::ToolBegin { .. } if self.single && self.any => parsed.stop = Some(None),
            Event::ToolBegin { index, id, name } => {
                self.any = true;
                self.open.push((index, false));
                let id = id.unwrap_or_else(call_id);
                parsed.push(Part::ToolBegin { index, id, name });
            }
            Event::ToolDelta { index, fragment } => {
                let open = self.open.iter_mut().filter(|(open, _)| *open == index);
                open.for_each(|(_, arguments)| *arguments |= !fragment.is_empty());
                parsed.push(Part::ToolArguments { index, fragment });
            }
            Event::ToolEnd(index) => {
                self.close(index, parsed);
                if self.single {
                    parsed.stop = Some(None);
                }
            }
            Event::Structured { name, json, complete } => {
                parsed.push(Part::Structured { name, json, complete });
            }
            Event::Annotation { key, value } => parsed.push(Part::Annotation { key, value }),
            Event::Stop(reason) => parsed.stop = Some(reason),
        }
    }

    /// A call without arguments gets the empty object: clients parse what they are given.
    fn close(&mut self, index: u32, parsed: &mut Parsed) {
        let Some(at) = self.open.iter().position(|(open, _)| *open == index) else { return };
        let (_, arguments) = self.open.swap_remove(at);
        if !arguments {
            parsed.push(Part::ToolArguments { index, fragment: "{}".to_owned() });
        }
    }

    fn close_all(&mut self, parsed: &mut Parsed) {
        while let Some(&(index, _)) = self.open.first() {
            self.close(index, parsed);
        }
    }
}

impl Parsed {
    fn content(text: String) -> Self {
        let mut parsed = Self::default();
        parsed.push(Part::Content(text));
        parsed
    }

    fn push(&mut self, part: Part) {
        match (self.parts.last_mut(), part) {
            (Some(Part::Content(last)), Part::Content(text)) => last.push_str(&text),
            (Some(Part::Reasoning(last)), Part::Reasoning(text)) => last.push_str(&text),
            (
                Some(Part::ToolArguments { index: open, fragment: last }),
                Part::ToolArguments { index, fragment },
            ) if *open == index => last.push_str(&fragment),
            (_, Part::Content(text) | Part::Reasoning(text)) if text.is_empty() => {}
            (_, part) => self.parts.push(part),
        }
    }

    /// Appends what came later.
    pub(super) fn extend(&mut self, later: Self) {
        later.parts.into_iter().for_each(|part| self.push(part));
        self.stop = self.stop.take().or(later.stop);
    }
}

fn call_id() -> String {
    let letters = std::iter::repeat_with(fastrand::alphanumeric).take(CALL_ID_LENGTH);
    format!("call_{}", letters.collect::<String>())
}
