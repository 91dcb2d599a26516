//! One tool call on its way in. The call begins for the client once its name is known and its
//! arguments have begun; from then on the text of the arguments is passed through as it comes.

use switchyard_plugin::markers::Scanner;
use switchyard_plugin::object::{ObjectScanner, Step};
use switchyard_plugin::{Event, ToolArgs, ToolStart};

/// What has been read of a call.
#[derive(Default)]
pub(crate) struct Call {
    object: ObjectScanner,
    /// All text until the call begins, to be given back if it never does.
    raw: String,
    /// The name's JSON, and whether it is complete.
    name: (String, bool),
    /// Text of the arguments that the client has not got yet.
    arguments: String,
    begun: bool,
}

/// What came of reading.
pub(crate) enum Progress {
    /// The call goes on.
    Open,
    /// The client has got the whole call.
    Ended,
    /// This was no call; here is its text.
    Content(String),
}

impl Call {
    /// Reads on; `index` is the call's place among the calls of the answer.
    pub(crate) fn read(
        &mut self,
        scanner: &mut Scanner,
        index: u32,
        events: &mut Vec<Event>,
    ) -> Progress {
        let whole = scanner.rest();
        let mut text = whole;
        let mut broken = false;
        let mut ended = false;
        while !broken && !ended {
            match self.object.next(&mut text) {
                Step::More => break,
                Step::End => ended = true,
                Step::Broken => broken = true,
                Step::Value { key: "name", text, complete } if !self.begun => {
                    self.name.0.push_str(text);
                    self.name.1 |= complete;
                }
                Step::Value { key: "arguments" | "parameters", text, .. } => {
                    self.arguments.push_str(text);
                }
                Step::Value { .. } => {}
            }
        }
        let read = whole.len() - text.len();
        if !self.begun {
            self.raw.push_str(&whole[..read]);
        }
        scanner.skip(read);
        self.begin(index, events);
        self.pass_on(index, events);
        if broken || ended { self.end(index, events) } else { Progress::Open }
    }

    /// The answer ended inside the call.
    pub(crate) fn cut_short(&mut self, index: u32, events: &mut Vec<Event>) -> Progress {
        self.end(index, events)
    }

    fn begin(&mut self, index: u32, events: &mut Vec<Event>) {
        if self.begun || !self.name.1 || self.arguments.is_empty() {
            return;
        }
        let Ok(name) = serde_json::from_str::<String>(&self.name.0) else { return };
        self.begun = true;
        events.push(Event::ToolBegin(ToolStart { index, id: None, name }));
    }

    fn pass_on(&mut self, index: u32, events: &mut Vec<Event>) {
        if self.begun && !self.arguments.is_empty() {
            let fragment = std::mem::take(&mut self.arguments);
            events.push(Event::ToolDelta(ToolArgs { index, fragment }));
        }
    }

    fn end(&mut self, index: u32, events: &mut Vec<Event>) -> Progress {
        if !self.begun {
            return Progress::Content(std::mem::take(&mut self.raw));
        }
        events.push(Event::ToolEnd(index));
        Progress::Ended
    }
}
