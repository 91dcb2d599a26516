//! `GET /health/live` and `GET /health/ready`: is the process alive, should it get requests.

use axum::{Json, extract::State, http::StatusCode};
use serde::Serialize;

use super::App;

/// State of the process.
#[derive(Serialize)]
pub(super) struct Health {
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Whoever answers is alive: neither the engine nor the drain matters here.
pub(super) async fn live() -> Json<Health> {
    Json(Health { status: "live", reason: None })
}

/// Ready while the engine runs and no shutdown has begun.
pub(super) async fn ready(State(app): State<App>) -> (StatusCode, Json<Health>) {
    let failed = app.host.engine.status().failed;
    let (code, status) = match &failed {
        Some(_) => (StatusCode::SERVICE_UNAVAILABLE, "failed"),
        None if app.admission.is_draining() => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        None => (StatusCode::OK, "ready"),
    };
    (code, Json(Health { status, reason: failed }))
}
