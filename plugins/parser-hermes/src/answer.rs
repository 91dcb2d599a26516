//! One answer on its way through the parser: which text comes now, and what ends it.

use switchyard_plugin::markers::{Piece, Scanner};
use switchyard_plugin::{
    AnswerParams, Chunk, Event, FinishReason, Kv, PluginError, Stream, ToolChoice,
};

use crate::call::{Call, Progress};
use crate::prose::Prose;

/// One answer.
pub(crate) struct Answer {
    stamp: Option<String>,
    tools: bool,
    calls: u32,
    scanner: Scanner,
    prose: Prose,
    at: At,
}

/// Which text comes now.
enum At {
    Content,
    Reasoning,
    /// Inside the JSON of a call.
    Call(Call),
    /// Behind the JSON of a call, before `</tool_call>`.
    CallEnd,
}

impl Answer {
    /// An answer that begins where the template says.
    pub(crate) fn new(stamp: Option<String>, params: &AnswerParams) -> Self {
        let thinks = params.init.as_deref() == Some("think");
        Self {
            stamp,
            tools: !params.tools.is_empty() && params.tool_choice != ToolChoice::None,
            calls: 0,
            scanner: Scanner::default(),
            prose: if thinks { Prose::after_marker() } else { Prose::default() },
            at: if thinks { At::Reasoning } else { At::Content },
        }
    }

    /// Reads on as far as the text is certain.
    fn read(&mut self, events: &mut Vec<Event>) {
        events.extend(self.stamp.take().map(|stamp| Event::Annotation(Kv::new("stamp", stamp))));
        while self.step(events) {}
    }

    /// Reads one piece; false once more text is needed.
    fn step(&mut self, events: &mut Vec<Event>) -> bool {
        match &mut self.at {
            At::Content => {
                let markers = ["<think>", "<tool_call>"];
                let known = if self.tools { &markers[..] } else { &markers[..1] };
                match self.scanner.next(known) {
                    None => return false,
                    Some(Piece::Text(text)) => self.prose.push(text, Event::Content, events),
                    Some(Piece::Marker(0)) => self.turn(At::Reasoning),
                    Some(Piece::Marker(_)) => self.at = At::Call(Call::default()),
                }
            }
            At::Reasoning => match self.scanner.next(&["</think>"]) {
                None => return false,
                Some(Piece::Text(text)) => self.prose.push(text, Event::Reasoning, events),
                Some(Piece::Marker(_)) => self.turn(At::Content),
            },
            At::Call(call) => {
                let progress = call.read(&mut self.scanner, self.calls, events);
                return self.advance(progress, events);
            }
            At::CallEnd => match self.scanner.next(&["</tool_call>", "<tool_call>"]) {
                None => return false,
                Some(Piece::Text(text)) => self.prose.push(text, Event::Content, events),
                Some(Piece::Marker(0)) => self.turn(At::Content),
                // The model forgot to close the last call.
                Some(Piece::Marker(_)) => self.at = At::Call(Call::default()),
            },
        }
        true
    }

    /// Passes a marker that is no part of any text.
    fn turn(&mut self, to: At) {
        self.prose = Prose::after_marker();
        self.at = to;
    }

    /// Follows a call: still open (false), ended, or no call at all.
    fn advance(&mut self, progress: Progress, events: &mut Vec<Event>) -> bool {
        match progress {
            Progress::Open => return false,
            Progress::Ended => {
                self.calls += 1;
                self.turn(At::CallEnd);
            }
            Progress::Content(text) => {
                self.at = At::Content;
                self.prose.push("<tool_call>", Event::Content, events);
                self.prose.push(&text, Event::Content, events);
            }
        }
        true
    }
}

impl Stream for Answer {
    fn feed(&mut self, chunk: &Chunk, events: &mut Vec<Event>) -> Result<(), PluginError> {
        self.scanner.push(&chunk.text);
        self.read(events);
        Ok(())
    }

    fn finish(&mut self, _: FinishReason, events: &mut Vec<Event>) -> Result<(), PluginError> {
        self.scanner.close();
        self.read(events);
        if let At::Call(call) = &mut self.at {
            let progress = call.cut_short(self.calls, events);
            self.advance(progress, events);
            self.read(events);
        }
        let kind = if let At::Reasoning = self.at { Event::Reasoning } else { Event::Content };
        self.prose.end(kind, events);
        Ok(())
    }
}
