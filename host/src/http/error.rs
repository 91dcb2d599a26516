//! The one table from what went wrong to a status, a type and a code.
//!
//! A client's mistake is never a 5xx: client libraries retry those.

use std::{borrow::Cow, time::Duration};

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::openai::{ErrorBody, ErrorDetail};
use crate::{
    engine::SubmitError,
    generation::GenerationError,
    plugins::{FaultKind, Refusal},
    template::TemplateError,
};

/// Seconds after which a refused request may be tried again, where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

const INVALID: &str = "invalid_request_error";
const OVERLOADED: &str = "overloaded_error";
const SERVER: &str = "server_error";

/// A refusal as the client sees it.
#[derive(Debug)]
pub(super) struct ApiError {
    status: StatusCode,
    kind: &'static str,
    code: Option<Cow<'static, str>>,
    param: Option<String>,
    message: String,
    retry_after: Option<Duration>,
    close: bool,
}

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (code, param, retry_after) = (None, None, None);
        Self { status, kind, code, param, message, retry_after, close: false }
    }

    fn code(mut self, code: impl Into<Cow<'static, str>>) -> Self {
        self.code = Some(code.into());
        self
    }

    fn retry(mut self) -> Self {
        self.retry_after = Some(RETRY_AFTER);
        self
    }

    /// Names the field at fault.
    pub(super) fn param(mut self, param: impl Into<String>) -> Self {
        self.param = Some(param.into());
        self
    }

    /// A field with a wrong value.
    pub(super) fn invalid(param: &str, problem: impl std::fmt::Display) -> Self {
        Self::bad_request(format!("`{param}`: {problem}")).param(param).code("invalid_value")
    }

    /// A field that means something this server does not do.
    pub(super) fn unsupported(param: &str, problem: impl std::fmt::Display) -> Self {
        let message = format!("`{param}` is not supported{problem}");
        Self::bad_request(message).param(param).code("unsupported_parameter")
    }

    /// A body that cannot be read.
    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, message)
    }

    /// A name in the path that is no model.
    pub(super) fn model_not_found(model: &str) -> Self {
        GenerationError::ModelNotFound { model: model.to_owned() }.into()
    }

    /// A path that is not served.
    pub(super) fn unknown_route(method: &Method, path: &str) -> Self {
        let message = format!("there is no route {method} {path}");
        Self::new(StatusCode::NOT_FOUND, INVALID, message).code("unknown_url")
    }

    /// A path that is served for other methods.
    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        let message = format!("{path} does not take {method}");
        let error = Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, message);
        error.code("method_not_allowed")
    }

    /// A body beyond the limit; the rest of it is not read.
    pub(super) fn too_large(limit: usize) -> Self {
        let message = format!("the request's body is larger than {limit} bytes");
        let error = Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, message);
        Self { close: true, ..error.code("request_too_large") }
    }

    /// A body that does not claim to be JSON.
    pub(super) fn not_json(found: Option<&str>) -> Self {
        let found = found.unwrap_or("nothing");
        let message = format!("content-type must be application/json, found {found}");
        let error = Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID, message);
        error.code("unsupported_media_type")
    }

    /// A body that does not arrive.
    pub(super) fn slow_body() -> Self {
        let message = "the request's body did not arrive within the configured limit";
        let error = Self::new(StatusCode::REQUEST_TIMEOUT, INVALID, message);
        Self { close: true, ..error.code("request_timeout") }
    }

    /// More requests than are admitted.
    pub(super) fn too_many(limit: usize) -> Self {
        let message = format!("{limit} requests are in progress already; try again later");
        let error = Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message);
        error.code("rate_limit_exceeded").retry()
    }

    /// The process is about to end.
    pub(super) fn draining() -> Self {
        let message = "the server is shutting down; try another one";
        let error = Self::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, message);
        Self { close: true, ..error.code("draining").retry() }
    }

    fn overloaded(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, OVERLOADED, message).code(code).retry()
    }

    fn server(code: &'static str, message: String) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, SERVER, message).code(code)
    }

    /// What stands in the body, or in the event of a stream that has begun.
    pub(super) fn into_body(self) -> ErrorBody {
        let Self { kind, code, param, message, .. } = self;
        ErrorBody { error: ErrorDetail { message, kind, param, code } }
    }
}

impl From<GenerationError> for ApiError {
    fn from(error: GenerationError) -> Self {
        let message = error.to_string();
        match error {
            GenerationError::ModelNotFound { .. } => {
                let error = Self::new(StatusCode::NOT_FOUND, INVALID, message);
                error.param("model").code("model_not_found")
            }
            GenerationError::Rejected { status, code, retry_after, .. } => {
                rejected(status, code, message, retry_after)
            }
            GenerationError::Plugin(fault) => plugin_failed(&fault.kind, message),
            GenerationError::UnknownRoute { .. } | GenerationError::Segments { .. } => {
                Self::server("plugin_error", message)
            }
            GenerationError::NoTemplate => Self::bad_request(message).code("no_chat_template"),
            GenerationError::Template(
                TemplateError::Refused(_) | TemplateError::Failed(_) | TemplateError::Limit(_),
            ) => Self::bad_request(message).param("messages").code("template_error"),
            GenerationError::EmptyPrompt | GenerationError::UnknownToken { .. } => {
                Self::bad_request(message).param("prompt").code("invalid_value")
            }
            GenerationError::ContextLength { .. } => {
                Self::bad_request(message).code("context_length_exceeded")
            }
            GenerationError::Submit(SubmitError::TooLarge { .. } | SubmitError::TooLong { .. }) => {
                Self::bad_request(message).param("max_tokens").code("context_length_exceeded")
            }
            GenerationError::Submit(SubmitError::QueueFull) => {
                Self::overloaded("queue_full", message)
            }
            GenerationError::Submit(SubmitError::Stopped) => {
                Self::overloaded("engine_stopped", message)
            }
            GenerationError::AdapterUnavailable { .. } => {
                Self::overloaded("adapter_unavailable", message).param("model")
            }
            GenerationError::Timeout => Self::overloaded("request_timeout", message),
            GenerationError::EngineFailed => Self::server("engine_failed", message),
            GenerationError::Template(_)
            | GenerationError::Tokenizer(_)
            | GenerationError::Internal => Self::server("internal_error", message),
        }
    }
}

/// A router's refusal; a status that is no error would be one, so that it becomes 403.
fn rejected(status: u16, code: String, message: String, retry: Option<Duration>) -> ApiError {
    let status = StatusCode::from_u16(status).ok();
    let status = status.filter(|s| s.is_client_error() || s.is_server_error());
    let status = status.unwrap_or(StatusCode::FORBIDDEN);
    let kind = match status {
        StatusCode::UNAUTHORIZED => "authentication_error",
        StatusCode::FORBIDDEN => "permission_error",
        StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
        StatusCode::SERVICE_UNAVAILABLE => OVERLOADED,
        status if status.is_server_error() => SERVER,
        _ => INVALID,
    };
    ApiError { retry_after: retry, ..ApiError::new(status, kind, message).code(code) }
}

fn plugin_failed(kind: &FaultKind, message: String) -> ApiError {
    match kind {
        FaultKind::Busy => ApiError::overloaded("plugin_busy", message),
        FaultKind::Refused(Refusal::Unavailable(_)) => {
            ApiError::overloaded("plugin_unavailable", message)
        }
        FaultKind::Refused(Refusal::InvalidInput(_) | Refusal::Unsupported(_)) => {
            ApiError::bad_request(message).code("plugin_refused")
        }
        _ => ApiError::server("plugin_error", message),
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, retry_after, close) = (self.status, self.retry_after, self.close);
        let mut response = (status, Json(self.into_body())).into_response();
        let headers = response.headers_mut();
        if let Some(wait) = retry_after {
            let seconds = wait.as_millis().div_ceil(1000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::{PluginFault, PluginRole};

    fn check(error: impl Into<ApiError>, status: u16, kind: &str, code: &str, retry: bool) {
        let error = error.into();
        let found = (error.status.as_u16(), error.kind, error.code.as_deref());
        assert_eq!(found, (status, kind, Some(code)), "{}", error.message);
        assert_eq!(error.retry_after.is_some(), retry, "{}", error.message);
    }

    #[test]
    fn every_failure_has_its_status_type_and_code() {
        use GenerationError as E;
        let (plugin, model) = ("p".to_owned(), "m".to_owned());
        check(E::ModelNotFound { model }, 404, INVALID, "model_not_found", false);
        let too_long = E::ContextLength { context: 8, prompt: 9 };
        check(too_long, 400, INVALID, "context_length_exceeded", false);
        let large = E::Submit(SubmitError::TooLarge { needed: 9, slabs: 8 });
        check(large, 400, INVALID, "context_length_exceeded", false);
        check(E::Submit(SubmitError::QueueFull), 503, OVERLOADED, "queue_full", true);
        check(E::Submit(SubmitError::Stopped), 503, OVERLOADED, "engine_stopped", true);
        let adapter = "a".to_owned();
        let unavailable = E::AdapterUnavailable { adapter };
        check(unavailable, 503, OVERLOADED, "adapter_unavailable", true);
        check(E::Timeout, 503, OVERLOADED, "request_timeout", true);
        check(E::EngineFailed, 500, SERVER, "engine_failed", false);
        let refused = E::Template(TemplateError::Refused(String::new()));
        check(refused, 400, INVALID, "template_error", false);
        check(E::NoTemplate, 400, INVALID, "no_chat_template", false);
        check(E::EmptyPrompt, 400, INVALID, "invalid_value", false);
        let unknown = E::UnknownRoute { plugin, adapter: "a".to_owned() };
        check(unknown, 500, SERVER, "plugin_error", false);
        let fault = |kind| {
            let (plugin, role, hook) = ("p".to_owned(), PluginRole::Router, "route");
            E::Plugin(PluginFault { plugin, role, hook, kind })
        };
        let refused = |refusal| fault(FaultKind::Refused(refusal));
        check(fault(FaultKind::Busy), 503, OVERLOADED, "plugin_busy", true);
        check(fault(FaultKind::Memory(1)), 500, SERVER, "plugin_error", false);
        let invalid = refused(Refusal::InvalidInput(String::new()));
        check(invalid, 400, INVALID, "plugin_refused", false);
        let unavailable = refused(Refusal::Unavailable(String::new()));
        check(unavailable, 503, OVERLOADED, "plugin_unavailable", true);
        let internal = refused(Refusal::Internal(String::new()));
        check(internal, 500, SERVER, "plugin_error", false);
        check(ApiError::too_many(1), 429, "rate_limit_error", "rate_limit_exceeded", true);
        check(ApiError::draining(), 503, OVERLOADED, "draining", true);
        check(ApiError::too_large(1), 413, INVALID, "request_too_large", false);
        check(ApiError::not_json(None), 415, INVALID, "unsupported_media_type", false);
    }

    #[test]
    fn a_router_may_reject_with_any_error_status() {
        let reject = |status| GenerationError::Rejected {
            status,
            code: "quota".to_owned(),
            message: "no more today".to_owned(),
            retry_after: None,
        };
        check(reject(429), 429, "rate_limit_error", "quota", false);
        check(reject(401), 401, "authentication_error", "quota", false);
        check(reject(200), 403, "permission_error", "quota", false);
        check(reject(7), 403, "permission_error", "quota", false);
        check(reject(451), 451, INVALID, "quota", false);
    }

    #[test]
    fn a_context_error_names_both_numbers() {
        let error = ApiError::from(GenerationError::ContextLength { context: 128, prompt: 200 });
        assert!(error.message.contains("128") && error.message.contains("200"));
    }
}
