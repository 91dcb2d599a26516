//! An inference request before its route reads it: counted, its snapshot pinned, its body parsed.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header},
};
use tokio::time::timeout;
use tokio_stream::StreamExt;

use super::{ApiError, App, admission::Permit, fields::Fields, request_id::RequestId};
use crate::generation::{Origin, Snapshot};

/// Headers that routers do not get to see.
const CREDENTIALS: [&str; 4] = ["authorization", "proxy-authorization", "cookie", "x-api-key"];

/// An admitted request.
pub(super) struct Call {
    pub(super) permit: Permit,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) origin: Origin,
    pub(super) fields: Fields,
}

impl App {
    /// Counts the request first, then reads and parses its body.
    pub(super) async fn admit(&self, request: Request) -> Result<Call, ApiError> {
        let snapshot = self.host.snapshot.load_full();
        let limits = &snapshot.limits;
        let permit = self.admission.enter(limits.max_requests)?;
        check_content_type(request.headers())?;
        let origin = origin(&request);
        let body = read(request.into_body(), limits.body_bytes);
        let body = timeout(limits.request_timeout, body).await;
        let body = body.map_err(|_| ApiError::slow_body())??;
        let fields = Fields::parse(&body)?;
        Ok(Call { permit, snapshot, origin, fields })
    }
}

fn origin(request: &Request) -> Origin {
    let headers = request.headers().iter();
    let shown = headers.filter(|(name, _)| !CREDENTIALS.contains(&name.as_str()));
    let texts = shown.filter_map(|(name, value)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    });
    let id = request.extensions().get::<RequestId>();
    Origin {
        request_id: id.map(|RequestId(id)| id.clone()).unwrap_or_default(),
        path: request.uri().path().to_owned(),
        headers: texts.collect(),
        streaming: false,
    }
}

fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = found.and_then(|value| value.split(';').next()).unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    Err(ApiError::not_json(found))
}

/// Reads to the end or to the limit, whichever comes first.
async fn read(body: Body, limit: usize) -> Result<Vec<u8>, ApiError> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            ApiError::bad_request(format!("the request's body could not be read: {error}"))
        })?;
        if bytes.len() + chunk.len() > limit {
            return Err(ApiError::too_large(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}
