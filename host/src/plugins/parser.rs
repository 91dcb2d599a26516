//! The parser's calls: one stream per answer, text in as it comes, events out in a checked order.
//!
//! A stream owns its guest. The guest moves to the thread that runs a call and back; while it is
//! away the parser has none, so a fault or a dropped call leaves a parser that is over.

use std::sync::Arc;

use wasmtime::component::ResourceAny;

use super::{
    Event, FaultKind, Plugin, PluginFault,
    bindings::exports::switchyard::plugin::parser as wit,
    events::EventOrder,
    instance::{Instance, RoleGuest},
    messages,
};
use crate::chat::{Tool, ToolChoice};

/// What a parser is told about the answer it works on.
#[derive(Clone)]
pub struct AnswerParams {
    /// The base model's id.
    pub model: String,
    /// The adapter that serves, if any.
    pub adapter: Option<String>,
    /// Which of the request's answers.
    pub choice_index: u32,
    /// Functions the model may call.
    pub tools: Arc<[Tool]>,
    /// Whether it may, must or must not.
    pub tool_choice: ToolChoice,
    /// What the template left for the parser.
    pub init: Option<String>,
}

/// Why an answer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParseEnd {
    /// The model or a stop string ended it.
    Stop,
    /// The token limit.
    Length,
    /// The client has gone.
    Cancelled,
    /// The host failed.
    Error,
}

/// One answer being parsed. After a fault, or after a call that was dropped half way, it is over.
pub struct AnswerParser {
    plugin: Arc<Plugin>,
    stream: Option<Stream>,
}

/// The guest's side of one answer.
pub(super) struct Stream {
    instance: Instance,
    handle: ResourceAny,
    order: EventOrder,
}

impl AnswerParser {
    pub(super) const fn new(plugin: Arc<Plugin>, stream: Stream) -> Self {
        Self { plugin, stream: Some(stream) }
    }

    /// Parses the next piece: its tokens, and the text they completed. Gives no events once the
    /// plugin has asked to stop.
    pub async fn feed(
        &mut self,
        tokens: Vec<u32>,
        text: String,
    ) -> Result<Vec<Event>, PluginFault> {
        let mut stream = self.take("feed")?;
        if stream.order.stopped() {
            self.stream = Some(stream);
            return Ok(Vec::new());
        }
        let work = move |_: &Plugin| {
            let events = stream.feed(tokens, text)?;
            Ok(((events, stream), ()))
        };
        let (events, stream) = self.plugin.run("feed", work).await?;
        self.stream = Some(stream);
        Ok(events)
    }

    /// Takes what the parser held back. Tool calls that are still open end here.
    pub async fn finish(&mut self, why: ParseEnd) -> Result<Vec<Event>, PluginFault> {
        let mut stream = self.take("finish")?;
        if stream.order.stopped() {
            return Ok(Vec::new());
        }
        self.plugin.run("finish", move |_| Ok((stream.finish(why)?, stream))).await
    }

    fn take(&mut self, hook: &'static str) -> Result<Stream, PluginFault> {
        let over = || self.plugin.fault(hook, FaultKind::Protocol("the stream is over".into()));
        self.stream.take().ok_or_else(over)
    }
}

impl Drop for AnswerParser {
    /// Gives the guest back on a plugin thread, where its pages are cleaned.
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            self.plugin.discard(stream);
        }
    }
}

impl Stream {
    pub(super) fn open(mut instance: Instance, params: &AnswerParams) -> Result<Self, FaultKind> {
        let asked = wit::AnswerParams {
            model: params.model.clone(),
            adapter: params.adapter.clone(),
            choice_index: params.choice_index,
            tools: params.tools.iter().map(messages::tool).collect(),
            tool_choice: messages::tool_choice(&params.tool_choice),
            response_format: None,
            init: params.init.clone(),
            ext: Vec::new(),
        };
        let opened = instance.call(|store, guest| match guest {
            RoleGuest::Parser(guest) => guest.parse().call_open(store, &asked).map(Some),
            RoleGuest::Router(_) | RoleGuest::Template(_) => Ok(None),
        })?;
        let opened = opened.ok_or_else(|| FaultKind::Protocol("it is not a parser".into()))?;
        let handle = opened.map_err(|error| messages::refused(&error))?;
        let order = EventOrder::new(instance.limits().output_bytes);
        Ok(Self { instance, handle, order })
    }

    pub(super) fn feed(&mut self, tokens: Vec<u32>, text: String) -> Result<Vec<Event>, FaultKind> {
        let (handle, chunk) = (self.handle, wit::Chunk { tokens, text });
        let events = self.instance.call(|store, guest| match guest {
            RoleGuest::Parser(guest) => guest.parse().call_feed(store, handle, &chunk),
            RoleGuest::Router(_) | RoleGuest::Template(_) => Ok(Ok(Vec::new())),
        })?;
        self.admit(events)
    }

    fn finish(&mut self, why: ParseEnd) -> Result<Vec<Event>, FaultKind> {
        let handle = self.handle;
        let why = match why {
            ParseEnd::Stop => wit::FinishReason::Stop,
            ParseEnd::Length => wit::FinishReason::Length,
            ParseEnd::Cancelled => wit::FinishReason::Cancelled,
            ParseEnd::Error => wit::FinishReason::Error,
        };
        let events = self.instance.call(|store, guest| match guest {
            RoleGuest::Parser(guest) => guest.parse().call_finish(store, handle, why),
            RoleGuest::Router(_) | RoleGuest::Template(_) => Ok(Ok(Vec::new())),
        })?;
        let mut events = self.admit(events)?;
        events.extend(self.order.close());
        Ok(events)
    }

    fn admit(
        &mut self,
        events: Result<Vec<wit::Event>, wit::PluginError>,
    ) -> Result<Vec<Event>, FaultKind> {
        let events = events.map_err(|error| messages::refused(&error))?;
        self.order.admit(events.into_iter().map(event).collect())
    }
}

fn event(event: wit::Event) -> Event {
    match event {
        wit::Event::Content(text) => Event::Content(text),
        wit::Event::Reasoning(text) => Event::Reasoning(text),
        wit::Event::ToolBegin(wit::ToolStart { index, id, name }) => {
            Event::ToolBegin { index, id, name }
        }
        wit::Event::ToolDelta(wit::ToolArgs { index, fragment }) => {
            Event::ToolDelta { index, fragment }
        }
        wit::Event::ToolEnd(index) => Event::ToolEnd(index),
        wit::Event::Structured(wit::Structured { name, json, complete }) => {
            Event::Structured { name, json, complete }
        }
        wit::Event::Annotation(kv) => Event::Annotation { key: kv.key, value: kv.value },
        wit::Event::Stop(text) => Event::Stop(text),
    }
}
