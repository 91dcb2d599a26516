//! Every exchange has a name: the client's `x-request-id`, or one made here.

use std::time::Instant;

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue},
    middleware::Next,
    response::Response,
};

/// The header, in and out.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Longest id taken from a client.
const LONGEST: usize = 128;
/// Characters of an id made here.
const LENGTH: usize = 24;

/// The exchange's name, kept in the request's extensions.
#[derive(Clone, Debug)]
pub(super) struct RequestId(pub(super) String);

/// Names the exchange, tells the client and writes the access log.
pub(super) async fn tag(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = from_client(request.headers()).unwrap_or_else(|| unique("req-"));
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(RequestId(id.clone()));
    let mut response = next.run(request).await;
    let status = response.status().as_u16();
    let milliseconds = started.elapsed().as_millis();
    tracing::info!(%method, path, status, milliseconds, request_id = id, "answered");
    if let Ok(value) = HeaderValue::try_from(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// `prefix` and letters that no other request has.
pub(super) fn unique(prefix: &str) -> String {
    let letters = std::iter::repeat_with(fastrand::alphanumeric).take(LENGTH);
    prefix.chars().chain(letters).collect()
}

fn from_client(headers: &HeaderMap) -> Option<String> {
    let id = headers.get(REQUEST_ID)?.to_str().ok()?;
    (!id.is_empty() && id.len() <= LONGEST).then(|| id.to_owned())
}
