//! Text between markers: white space that touches a marker is layout and dropped, all else is kept.

use switchyard_plugin::Event;

/// A run of content or of reasoning.
#[derive(Default)]
pub(crate) struct Prose {
    /// White space that is dropped if a marker follows.
    held: String,
    after_marker: bool,
}

impl Prose {
    /// The text behind a marker.
    pub(crate) fn after_marker() -> Self {
        Self { held: String::new(), after_marker: true }
    }

    /// Adds `text`; what is certain becomes an event, joined to the last one of its kind.
    pub(crate) fn push(&mut self, text: &str, kind: fn(String) -> Event, events: &mut Vec<Event>) {
        let text = if self.after_marker { text.trim_start() } else { text };
        let solid = text.trim_end();
        if !solid.is_empty() {
            self.after_marker = false;
            let held = std::mem::take(&mut self.held);
            append(events, kind(held + solid));
        }
        self.held.push_str(&text[solid.len()..]);
    }

    /// Ends the answer, where white space is the model's own.
    pub(crate) fn end(&mut self, kind: fn(String) -> Event, events: &mut Vec<Event>) {
        if !self.held.is_empty() {
            append(events, kind(std::mem::take(&mut self.held)));
        }
    }
}

/// Appends a delta; neighbouring deltas of one kind become one.
fn append(events: &mut Vec<Event>, event: Event) {
    match (events.last_mut(), event) {
        (Some(Event::Content(last)), Event::Content(more))
        | (Some(Event::Reasoning(last)), Event::Reasoning(more)) => last.push_str(&more),
        (_, event) => events.push(event),
    }
}
