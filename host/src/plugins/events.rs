//! The order of a parser's events, kept by the host so that a stream on the wire is always valid.
//!
//! A tool call begins before its fragments and ends once; its index is the number of calls that
//! began before it; nothing follows a stop; a structured result is JSON; all events of a stream
//! together are bounded. What breaks a rule is the plugin's fault, never the client's.

use std::collections::BTreeSet;

use serde::de::IgnoredAny;

use super::FaultKind;

/// Bytes of a tool's name or id, of a structured result's or an annotation's name.
const NAME_MAX: usize = 256;
/// Counted for every event on top of its text, so that empty events are bounded too.
const EVENT_COST: usize = 16;

/// A piece of a parsed answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Text of the answer.
    Content(String),
    /// Text of the thoughts before it.
    Reasoning(String),
    /// A tool call begins.
    ToolBegin {
        /// 0, 1, 2... within the answer.
        index: u32,
        /// The model's own id for the call, if it gave one.
        id: Option<String>,
        /// The function.
        name: String,
    },
    /// More of a call's arguments.
    ToolDelta {
        /// Which call.
        index: u32,
        /// JSON text, to be joined.
        fragment: String,
    },
    /// The call is whole.
    ToolEnd(u32),
    /// A result in the plugin's own format.
    Structured {
        /// What it is.
        name: String,
        /// JSON text.
        json: String,
        /// Whether it is the last version.
        complete: bool,
    },
    /// A note about the answer.
    Annotation {
        /// What it is about.
        key: String,
        /// The note.
        value: String,
    },
    /// The plugin asks to end generation, with the stop text it saw if any.
    Stop(Option<String>),
}

/// Where a stream stands.
#[derive(Debug)]
pub(super) struct EventOrder {
    /// Tool calls that have begun: the next index.
    begun: u32,
    /// Those that have not ended.
    open: BTreeSet<u32>,
    /// Bytes that may still come.
    left: usize,
    limit: usize,
    stopped: bool,
}

impl EventOrder {
    /// The order of a stream whose events may sum to `limit` bytes.
    pub(super) const fn new(limit: usize) -> Self {
        Self { begun: 0, open: BTreeSet::new(), left: limit, limit, stopped: false }
    }

    /// Whether a stop has been seen: the guest is not called again.
    pub(super) const fn stopped(&self) -> bool {
        self.stopped
    }

    /// Checks the next events and passes them on. Calls that are open at a stop end before it.
    pub(super) fn admit(&mut self, events: Vec<Event>) -> Result<Vec<Event>, FaultKind> {
        let mut admitted = Vec::with_capacity(events.len());
        for event in events {
            self.check(&event)?;
            if matches!(event, Event::Stop(_)) {
                admitted.extend(self.close());
                self.stopped = true;
            }
            admitted.push(event);
        }
        Ok(admitted)
    }

    /// Ends the calls that the guest left open.
    pub(super) fn close(&mut self) -> impl Iterator<Item = Event> + use<> {
        std::mem::take(&mut self.open).into_iter().map(Event::ToolEnd)
    }

    fn check(&mut self, event: &Event) -> Result<(), FaultKind> {
        if self.stopped {
            return broken("an event after `stop`".into());
        }
        let left = self.left.checked_sub(EVENT_COST + text_bytes(event));
        self.left = left.ok_or(FaultKind::Output(self.limit))?;
        match event {
            Event::Content(_) | Event::Reasoning(_) | Event::Stop(_) => Ok(()),
            Event::ToolBegin { index, id, name } => {
                self.begin(*index)?;
                check_name("a tool's name", name)?;
                id.as_deref().map_or(Ok(()), |id| check_name("a tool call's id", id))
            }
            Event::ToolDelta { index, .. } if self.open.contains(index) => Ok(()),
            Event::ToolDelta { index, .. } => {
                broken(format!("`tool-delta` for call {index}, which is not open"))
            }
            Event::ToolEnd(index) if self.open.remove(index) => Ok(()),
            Event::ToolEnd(index) => {
                broken(format!("`tool-end` for call {index}, which is not open"))
            }
            Event::Structured { name, json, .. } => {
                check_name("a structured result's name", name)?;
                let parsed = serde_json::from_str::<IgnoredAny>(json);
                parsed.map(drop).or_else(|error| broken(format!("`structured` JSON: {error}")))
            }
            Event::Annotation { key, .. } => check_name("an annotation's key", key),
        }
    }

    fn begin(&mut self, index: u32) -> Result<(), FaultKind> {
        if index != self.begun {
            return broken(format!("`tool-begin` {index} where {} is next", self.begun));
        }
        self.open.insert(index);
        self.begun += 1;
        Ok(())
    }
}

fn broken<T>(rule: String) -> Result<T, FaultKind> {
    Err(FaultKind::Protocol(rule))
}

fn check_name(what: &str, name: &str) -> Result<(), FaultKind> {
    if name.is_empty() || NAME_MAX < name.len() {
        return broken(format!("{what} has {} bytes, not 1 to {NAME_MAX}", name.len()));
    }
    Ok(())
}

fn text_bytes(event: &Event) -> usize {
    match event {
        Event::Content(text) | Event::Reasoning(text) => text.len(),
        Event::ToolBegin { id, name, .. } => name.len() + id.as_ref().map_or(0, String::len),
        Event::ToolDelta { fragment, .. } => fragment.len(),
        Event::ToolEnd(_) => 0,
        Event::Structured { name, json, .. } => name.len() + json.len(),
        Event::Annotation { key, value } => key.len() + value.len(),
        Event::Stop(text) => text.as_ref().map_or(0, String::len),
    }
}

#[cfg(test)]
mod tests;
