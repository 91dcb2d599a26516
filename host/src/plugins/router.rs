//! The router's call: what was asked in, which adapter serves it out.

use std::{sync::Arc, time::Duration};

use super::{
    FaultKind,
    bindings::exports::switchyard::plugin::router as wit,
    fault::guest_text,
    instance::{Instance, RoleGuest},
    messages,
};
use crate::{adapters::Catalogue, chat::Message};

/// Bytes of an adapter's name or a rejection's code.
const NAME_MAX: usize = 256;
/// Fallbacks of one selection.
const FALLBACKS_MAX: usize = 16;

/// What a router is asked.
#[derive(Clone)]
pub struct RouteRequest {
    /// The host's id of the request.
    pub request_id: String,
    /// The model as the client wrote it.
    pub model: String,
    /// The base model's id.
    pub base_model: String,
    /// Who asks, if the host knows.
    pub tenant: Option<String>,
    /// The route's path.
    pub path: String,
    /// Headers the host lets plugins see, names in lower case.
    pub headers: Vec<(String, String)>,
    /// Read by routers with the operator's grant only.
    pub messages: Arc<[Message]>,
    /// Bytes of all messages together.
    pub prompt_bytes: usize,
    /// Whether the client offers tools.
    pub has_tools: bool,
    /// Whether the client wants a stream.
    pub streaming: bool,
    /// The adapters of the request's snapshot.
    pub catalogue: Arc<Catalogue>,
}

/// What a router answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Ask the next router.
    Pass,
    /// Serve with this adapter. The host still decides whether the client may use it.
    Select {
        /// `None` is the base.
        adapter: Option<String>,
        /// To be tried in order if the first cannot serve.
        fallbacks: Vec<String>,
        /// For logs.
        reason: Option<String>,
    },
    /// Don't serve.
    Reject {
        /// 400 to 599.
        status: u16,
        /// Machine-readable.
        code: String,
        /// For people.
        message: String,
        /// When to try again.
        retry_after: Option<Duration>,
    },
}

/// What host functions may tell a router about the request in hand.
pub(super) struct RouteScope {
    pub(super) base_model: String,
    pub(super) catalogue: Arc<Catalogue>,
    pub(super) messages: Arc<[Message]>,
}

/// Asks a router.
pub(super) fn route(instance: &mut Instance, request: RouteRequest) -> Result<Decision, FaultKind> {
    let asked = wit::Request {
        request_id: request.request_id,
        model: request.model,
        tenant: request.tenant,
        path: request.path,
        headers: messages::pairs(&request.headers),
        message_count: count(request.messages.len()),
        prompt_bytes: count(request.prompt_bytes),
        has_tools: request.has_tools,
        streaming: request.streaming,
        ext: Vec::new(),
    };
    instance.set_scope(RouteScope {
        base_model: request.base_model,
        catalogue: request.catalogue,
        messages: request.messages,
    });
    let answer = instance.call(|store, guest| match guest {
        RoleGuest::Router(guest) => guest.call_route(store, &asked).map(Some),
        RoleGuest::Template(_) | RoleGuest::Parser(_) => Ok(None),
    })?;
    let answer = answer.ok_or_else(|| FaultKind::Protocol("it is not a router".into()))?;
    decision(answer.map_err(|error| messages::refused(&error))?)
}

fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

fn decision(answer: wit::Decision) -> Result<Decision, FaultKind> {
    match answer {
        wit::Decision::Pass => Ok(Decision::Pass),
        wit::Decision::Select(selection) => select(selection),
        wit::Decision::Reject(rejection) => reject(rejection),
    }
}

fn select(selection: wit::Selection) -> Result<Decision, FaultKind> {
    let wit::Selection { adapter, fallbacks, reason, .. } = selection;
    if FALLBACKS_MAX < fallbacks.len() {
        return broken(format!("{} fallbacks, more than {FALLBACKS_MAX}", fallbacks.len()));
    }
    for name in adapter.iter().chain(&fallbacks) {
        check_name("an adapter's name", name)?;
    }
    Ok(Decision::Select { adapter, fallbacks, reason: reason.as_deref().map(guest_text) })
}

fn reject(rejection: wit::Rejection) -> Result<Decision, FaultKind> {
    let wit::Rejection { status, code, message, retry_after_ms } = rejection;
    if !(400..=599).contains(&status) {
        return broken(format!("a rejection with status {status}, not 400 to 599"));
    }
    check_name("a rejection's code", &code)?;
    let retry_after = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
    Ok(Decision::Reject { status, code, message: guest_text(&message), retry_after })
}

fn check_name(what: &str, name: &str) -> Result<(), FaultKind> {
    if name.is_empty() || NAME_MAX < name.len() {
        return broken(format!("{what} has {} bytes, not 1 to {NAME_MAX}", name.len()));
    }
    Ok(())
}

fn broken<T>(rule: String) -> Result<T, FaultKind> {
    Err(FaultKind::Protocol(rule))
}
