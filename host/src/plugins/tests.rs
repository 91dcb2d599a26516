//! Real components through the real host.

mod costs;
mod faults;
mod first_party;
mod loading;

use std::{
    future::Future,
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use serde_json::{Value, json};

use super::*;
use crate::{
    adapters::Catalogue,
    chat::{Message, Role, ToolChoice},
    tokenizer::Tokenizer,
};

/// One for all tests, as in a server.
static HOST: LazyLock<PluginHost> =
    LazyLock::new(|| PluginHost::new(tokenizer(), 2).expect("a plugin host"));

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn tokenizer() -> Tokenizer {
    Tokenizer::load(&root().join("tests/golden/tokenizers/byte_level")).unwrap()
}

/// A first-party plugin.
fn plugin_path(name: &str) -> PathBuf {
    root().join(format!("plugins/{name}/{name}.wasm"))
}

/// A plugin that misbehaves as its configuration says.
fn fixture_path(role: &str) -> PathBuf {
    root().join(format!("tests/fixtures/plugins/misbehave-{role}/misbehave-{role}.wasm"))
}

fn spec(path: PathBuf, config: Value) -> PluginSpec {
    let limits = PluginLimits { memory_bytes: 8 << 20, ..PluginLimits::default() };
    PluginSpec { name: "under test".into(), path, config, limits, grant_prompt: true }
}

fn load(path: PathBuf, config: Value) -> Arc<Plugin> {
    HOST.load(&spec(path, config), None).unwrap()
}

fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

fn user(content: &str) -> Message {
    Message {
        role: Role::User,
        content: content.into(),
        name: None,
        reasoning: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    }
}

fn question(text: &str, catalogue: Arc<Catalogue>) -> RouteRequest {
    RouteRequest {
        request_id: "r-1".into(),
        model: "auto".into(),
        base_model: "golden".into(),
        tenant: None,
        path: "/v1/chat/completions".into(),
        headers: Vec::new(),
        messages: [user(text)].into(),
        prompt_bytes: text.len(),
        has_tools: false,
        streaming: false,
        catalogue,
    }
}

fn conversation(messages: impl Into<Arc<[Message]>>) -> RenderInput {
    RenderInput {
        model: "golden".into(),
        adapter: None,
        messages: messages.into(),
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        add_generation_prompt: true,
        today: "2026-11-22".into(),
        kwargs: Vec::new(),
    }
}

fn answer() -> AnswerParams {
    AnswerParams {
        model: "golden".into(),
        adapter: None,
        choice_index: 0,
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        init: None,
    }
}
