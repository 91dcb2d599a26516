//! The OpenAI-compatible surface: routes, wire types, streams and status codes.
//!
//! Chat and completions are two thin adapters over one [`Generation`](crate::generation): each
//! reads its request and writes its reply, and neither decides anything about the answer. Every
//! refusal has one shape ([`error`]), and every inference request is counted before any work is
//! done for it ([`admission`]). Requests in progress beyond `max_requests` are refused with 429; an
//! engine whose queue is full, a drain and a timeout are 503, all with `Retry-After`.

mod admission;
mod call;
mod chat;
mod completions;
mod error;
mod fields;
mod health;
mod joined;
mod logprobs;
mod messages;
mod metrics;
mod models;
mod openai;
mod reply;
mod request_id;
mod sampling;
mod sse;
mod tools;
mod unsupported;

#[cfg(test)]
mod tests;

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use axum::{
    Router,
    http::{Method, Uri},
    middleware,
    routing::{get, post},
    serve::ListenerExt,
};
use tokio::{
    net::TcpListener,
    sync::oneshot,
    time::{Instant, timeout_at},
};

use self::{admission::Admission, error::ApiError};
use crate::generation::Host;

/// Least time for the last bytes to leave, once requests have ended or were cut.
const FLUSH: Duration = Duration::from_secs(1);

/// What every handler shares.
#[derive(Clone)]
struct App {
    host: Arc<Host>,
    admission: Admission,
}

/// Serves until `shutdown` resolves, then drains: readiness and new inference requests are answered
/// 503 while running ones go on, at most for `drain_timeout`.
pub async fn serve(
    listener: TcpListener,
    host: Arc<Host>,
    shutdown: impl Future<Output = ()> + Send,
    drain_timeout: Duration,
) -> io::Result<()> {
    let app = App { host, admission: Admission::default() };
    app.serve(listener, shutdown, drain_timeout).await
}

impl App {
    async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
        drain_timeout: Duration,
    ) -> io::Result<()> {
        let admission = self.admission.clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = listener.tap_io(|connection| {
            if let Err(error) = connection.set_nodelay(true) {
                tracing::debug!(%error, "a connection keeps its send delay");
            }
        });
        // The sender is dropped rather than used: both resolve the receiver.
        let stopped = async move { drop(stopped.await) };
        let server = axum::serve(listener, router(self)).with_graceful_shutdown(stopped);
        let mut server = pin!(server.into_future());
        tokio::select! {
            ended = &mut server => return ended,
            () = shutdown => {}
        }
        tracing::info!(running = admission.running(), "draining");
        admission.drain();
        let deadline = Instant::now() + drain_timeout;
        tokio::select! {
            ended = &mut server => return ended,
            idle = timeout_at(deadline, admission.idle()) => {
                if idle.is_err() {
                    let running = admission.running();
                    tracing::warn!(running, "drain timeout: requests are cut");
                }
            }
        }
        drop(stop);
        // Connections that still send past this are cut with the runtime.
        timeout_at(deadline.max(Instant::now() + FLUSH), server).await.unwrap_or(Ok(()))
    }
}

fn router(app: App) -> Router {
    Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(completions::create))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::retrieve))
        .route("/health", get(health::ready))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::show))
        .fallback(unknown_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(request_id::tag))
        .with_state(app)
}

async fn unknown_route(method: Method, uri: Uri) -> ApiError {
    ApiError::unknown_route(&method, uri.path())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::wrong_method(&method, uri.path())
}
