//! Server-sent events: chunks of a running generation, then `[DONE]`.
//!
//! The stream owns the generation and the request's place in the count: when the client goes away
//! the connection drops the stream, and both end with it.

use std::{
    collections::VecDeque,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    http::{HeaderName, HeaderValue},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_core::Stream;
use serde::Serialize;

use super::{
    ApiError,
    admission::Permit,
    reply::{Envelope, Wire, usage},
    sampling::{Form, StreamUsage},
};
use crate::generation::{Delta, Generation, GenerationError};

/// A comment is sent when nothing else was for this long, so that no proxy gives up.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Tells proxies to pass events on at once.
const NO_BUFFERING: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
/// The last event of every stream.
const DONE: &str = "[DONE]";

/// The events of one generation.
pub(super) struct EventStream<W: Wire> {
    generation: Generation,
    wire: W,
    envelope: Envelope,
    form: Form,
    ready: VecDeque<Result<Event, axum::Error>>,
    is_first: bool,
    is_over: bool,
    _permit: Permit,
}

impl<W: Wire> EventStream<W> {
    pub(super) fn new(
        generation: Generation,
        permit: Permit,
        wire: W,
        envelope: Envelope,
        form: Form,
    ) -> Self {
        let ready = VecDeque::new();
        let (is_first, is_over) = (true, false);
        Self { generation, wire, envelope, form, ready, is_first, is_over, _permit: permit }
    }

    fn push(&mut self, delta: Delta) {
        for chunk in self.wire.chunks(delta) {
            let usage = match self.form.usage {
                StreamUsage::Never => None,
                StreamUsage::Last => Some(None),
                StreamUsage::Each => Some(Some(usage(self.generation.usage()))),
            };
            let mut chunk = self.envelope.wrap(W::CHUNK_OBJECT, vec![chunk], usage);
            if std::mem::take(&mut self.is_first) {
                chunk.prompt_token_ids = self.wire.prompt_token_ids();
            }
            self.send(&chunk);
        }
    }

    fn end(&mut self, error: Option<GenerationError>) {
        match error {
            Some(error) => {
                tracing::warn!(%error, "a stream ends early");
                self.send(&ApiError::from(error).into_body());
            }
            None if self.form.usage != StreamUsage::Never => {
                let usage = Some(Some(usage(self.generation.usage())));
                let last = self.envelope.wrap::<W::Chunk>(W::CHUNK_OBJECT, Vec::new(), usage);
                self.send(&last);
            }
            None => {}
        }
        self.ready.push_back(Ok(Event::default().data(DONE)));
        self.is_over = true;
    }

    fn send(&mut self, data: &impl Serialize) {
        self.ready.push_back(Event::default().json_data(data));
    }
}

impl<W: Wire> Stream for EventStream<W> {
    type Item = Result<Event, axum::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(event));
            }
            if self.is_over {
                return Poll::Ready(None);
            }
            match ready!(Pin::new(&mut self.generation).poll_next(cx)) {
                Some(Ok(delta)) => self.push(delta),
                Some(Err(error)) => self.end(Some(error)),
                None => self.end(None),
            }
        }
    }
}

impl<W: Wire> IntoResponse for EventStream<W> {
    fn into_response(self) -> Response {
        let events = Sse::new(self).keep_alive(KeepAlive::new().interval(KEEP_ALIVE));
        ([NO_BUFFERING], events).into_response()
    }
}
