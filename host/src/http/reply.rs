//! A generation as a reply: one body, or a stream of events, from the same deltas.
//!
//! The routes differ in how a choice looks ([`Wire`]); everything around the choices is here.

use std::time::{SystemTime, UNIX_EPOCH};

use axum::{
    Json,
    http::{HeaderMap, HeaderName, HeaderValue},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use tokio_stream::StreamExt;

use super::{
    ApiError,
    admission::Permit,
    joined::Joined,
    openai::{Completion, PromptTokensDetails, StopReason, Usage},
    request_id::unique,
    sampling::Form,
    sse::EventStream,
};
use crate::generation::{self, BaseInfo, Delta, Finish, FinishCause, FinishKind, Generation};

const ADAPTER: HeaderName = HeaderName::from_static("x-switchyard-adapter");
const ADAPTER_GENERATION: HeaderName = HeaderName::from_static("x-switchyard-adapter-generation");
const CONFIG_GENERATION: HeaderName = HeaderName::from_static("x-switchyard-config-generation");

/// Characters of the base's fingerprint that clients see.
const FINGERPRINT_LENGTH: usize = 12;

/// How a route writes the choices of a generation.
pub(super) trait Wire: Send + Unpin + 'static {
    /// Beginning of the reply's id.
    const ID_PREFIX: &str;
    /// `object` of a whole reply.
    const OBJECT: &str;
    /// `object` of a chunk.
    const CHUNK_OBJECT: &str;
    /// A choice of a whole reply.
    type Choice: Serialize + Send;
    /// A choice of a chunk.
    type Chunk: Serialize + Send;

    /// The chunks that a delta becomes.
    fn chunks(&mut self, delta: Delta) -> Vec<Self::Chunk>;

    /// The choice that all of its deltas became.
    fn choice(&self, index: u32, joined: Joined) -> Self::Choice;

    /// Ids of the prompt for the top level of the reply, if they belong there.
    fn prompt_token_ids(&self) -> Option<Vec<u32>>;
}

/// A generation that is about to be answered.
pub(super) struct Answering {
    pub(super) generation: Generation,
    /// Held until the last byte has been handed on.
    pub(super) permit: Permit,
    /// As requested.
    pub(super) model: String,
    pub(super) form: Form,
}

/// What all chunks of a reply have in common.
pub(super) struct Envelope {
    id: String,
    created: u64,
    model: String,
    fingerprint: String,
}

impl Envelope {
    /// The envelope around `choices`.
    pub(super) fn wrap<C>(
        &self,
        object: &'static str,
        choices: Vec<C>,
        usage: Option<Option<Usage>>,
    ) -> Completion<C> {
        Completion {
            id: self.id.clone(),
            object,
            created: self.created,
            model: self.model.clone(),
            system_fingerprint: self.fingerprint.clone(),
            choices,
            usage,
            prompt_token_ids: None,
        }
    }
}

/// Answers as the request's form asks. Headers tell what the request was pinned to.
pub(super) async fn respond<W: Wire>(
    answering: Answering,
    base: &BaseInfo,
    wire: W,
) -> Result<Response, ApiError> {
    let Answering { generation, permit, model, form } = answering;
    let headers = headers(&generation);
    let envelope = Envelope {
        id: unique(W::ID_PREFIX),
        created: unix_seconds(SystemTime::now()),
        model,
        fingerprint: fingerprint(base, &generation),
    };
    if form.stream {
        let events = EventStream::new(generation, permit, wire, envelope, form);
        return Ok((headers, events.into_response()).into_response());
    }
    let body = join(generation, &wire, &envelope).await?;
    drop(permit);
    Ok((headers, Json(body)).into_response())
}

async fn join<W: Wire>(
    mut generation: Generation,
    wire: &W,
    envelope: &Envelope,
) -> Result<Completion<W::Choice>, ApiError> {
    let mut choices: Vec<Joined> = Vec::new();
    while let Some(delta) = generation.next().await {
        let delta = delta?;
        let index = delta.choice as usize;
        if choices.len() <= index {
            choices.resize_with(index + 1, Joined::default);
        }
        choices[index].push(delta);
    }
    let choices = (0u32..).zip(choices).map(|(index, joined)| wire.choice(index, joined));
    let usage = Some(Some(usage(generation.usage())));
    let mut body = envelope.wrap(W::OBJECT, choices.collect(), usage);
    body.prompt_token_ids = wire.prompt_token_ids();
    Ok(body)
}

/// Tokens as the wire counts them.
pub(super) fn usage(usage: generation::Usage) -> Usage {
    let generation::Usage { prompt_tokens, completion_tokens } = usage;
    Usage {
        prompt_tokens,
        completion_tokens,
        total_tokens: prompt_tokens + completion_tokens,
        prompt_tokens_details: PromptTokensDetails { cached_tokens: 0 },
    }
}

/// The wire's `finish_reason` and `stop_reason`.
pub(super) fn finish(finish: Finish) -> (&'static str, StopReason) {
    let reason = match finish.kind {
        FinishKind::Stop => "stop",
        FinishKind::Length => "length",
        FinishKind::ToolCalls => "tool_calls",
    };
    let cause = match finish.cause {
        FinishCause::Model => StopReason::None,
        FinishCause::Text(text) => StopReason::Text(text),
        FinishCause::Token(token) => StopReason::Token(token),
    };
    (reason, cause)
}

/// Whole seconds since 1970.
pub(super) fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs())
}

fn headers(generation: &Generation) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut insert = |name, value: String| {
        // An adapter's name may hold what a header cannot.
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    insert(CONFIG_GENERATION, generation.snapshot().generation.to_string());
    match generation.adapter() {
        None => insert(ADAPTER, "base".to_owned()),
        Some(lease) => {
            insert(ADAPTER, lease.name.clone());
            insert(ADAPTER_GENERATION, lease.content.id.to_string());
        }
    }
    headers
}

/// Program, base and adapter: equal fingerprints and seeds give equal answers.
fn fingerprint(base: &BaseInfo, generation: &Generation) -> String {
    let hash = base.fingerprint.rsplit(':').next().unwrap_or_default();
    let base: String = hash.chars().take(FINGERPRINT_LENGTH).collect();
    let version = env!("CARGO_PKG_VERSION");
    match generation.adapter() {
        None => format!("switchyard-{version}-{base}"),
        Some(lease) => format!("switchyard-{version}-{base}-{}", lease.content.id),
    }
}
