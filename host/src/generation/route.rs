//! Which weights answer: the model a request names, or the routers' choice.
//!
//! A name is obeyed or refused, never reinterpreted. Routers are asked in their configured order
//! and only for `auto`; what they choose must exist in the request's own snapshot.

use std::sync::Arc;

use super::{GenerationError, GenerationRequest, Host, Input, Prompt, Snapshot};
use crate::{
    adapters::AdapterLease,
    chat::{Message, Role},
    plugins::{Decision, RouteRequest},
};

/// The model name that leaves the choice to the routers.
const AUTO: &str = "auto";

/// The adapter that answers, leased; `None` is the base.
pub(super) async fn resolve(
    host: &Host,
    snapshot: &Snapshot,
    request: &GenerationRequest,
) -> Result<Option<AdapterLease>, GenerationError> {
    let name = request.model.as_str();
    if let Some(found) = look_up(host, snapshot, name) {
        return Ok(found);
    }
    if name != AUTO {
        return Err(GenerationError::ModelNotFound { model: name.to_owned() });
    }
    for router in &snapshot.plugins.routers {
        match router.route(question(host, snapshot, request)).await? {
            Decision::Pass => {}
            Decision::Select { adapter: None, .. } => return Ok(None),
            Decision::Select { adapter: Some(adapter), fallbacks, .. } => {
                let mut names = std::iter::once(&adapter).chain(&fallbacks);
                let found = names.find_map(|name| look_up(host, snapshot, name));
                let plugin = router.name.clone();
                return found.ok_or(GenerationError::UnknownRoute { plugin, adapter });
            }
            Decision::Reject { status, code, message, retry_after } => {
                return Err(GenerationError::Rejected { status, code, message, retry_after });
            }
        }
    }
    Ok(None)
}

/// `Some(None)` is the base; `None` means that nothing has this name.
fn look_up(host: &Host, snapshot: &Snapshot, name: &str) -> Option<Option<AdapterLease>> {
    if host.base.is_named(name) {
        return Some(None);
    }
    snapshot.catalogue.get(name).map(Some)
}

fn question(host: &Host, snapshot: &Snapshot, request: &GenerationRequest) -> RouteRequest {
    let (messages, has_tools) = match &request.input {
        Input::Chat(chat) => (Arc::clone(&chat.messages), !chat.tools.is_empty()),
        Input::Prompts(prompts) => (prompts.iter().map(|p| as_turn(host, p)).collect(), false),
    };
    RouteRequest {
        request_id: request.origin.request_id.clone(),
        model: request.model.clone(),
        base_model: host.base.id.clone(),
        tenant: None,
        path: request.origin.path.clone(),
        headers: request.origin.headers.clone(),
        prompt_bytes: messages.iter().map(|message| message.content.len()).sum(),
        messages,
        has_tools,
        streaming: request.origin.streaming,
        catalogue: Arc::clone(&snapshot.catalogue),
    }
}

/// A completion's prompt as routers see it: a turn of the user.
fn as_turn(host: &Host, prompt: &Prompt) -> Message {
    let content = match prompt {
        Prompt::Text(text) => text.clone(),
        Prompt::Tokens(ids) => host.tokenizer.decode(ids),
    };
    Message {
        role: Role::User,
        content,
        name: None,
        reasoning: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}
