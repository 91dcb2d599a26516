//! One prompt, answered by the base and by adapters in one batch, side by side as text.
//!
//! Requests take the same way as over HTTP, from the template to the parser; there is no network.

mod table;

use std::{pin::Pin, sync::Arc};

use futures_core::Stream;
use tokio::runtime::Runtime;

use crate::{
    chat::{Message, Role, ToolChoice},
    config::Given,
    engine::Sampling,
    generation::{
        ChatInput, Generation, GenerationError, GenerationRequest, Host, Input, Origin, Part,
        StopRules,
    },
    serve::{StartError, assemble},
    startup::Startup,
};

/// What is compared.
pub struct Comparison {
    /// What the user says.
    pub prompt: String,
    /// Adapters to ask; all if empty.
    pub names: Vec<String>,
    /// Longest answer.
    pub max_tokens: u32,
    /// Characters of a line.
    pub width: usize,
}

/// Answers greedily with each model and lays the answers out as a table.
pub fn run(given: &Given, comparison: &Comparison) -> Result<String, StartError> {
    let config = given.load()?;
    let (host, _stock) = assemble(&config, &Startup::begin())?;
    let snapshot = host.snapshot.load();
    let adapters = snapshot.catalogue.iter().map(|adapter| adapter.name.clone());
    let mut names = vec![host.base.id.clone()];
    match comparison.names.as_slice() {
        [] => names.extend(adapters),
        chosen => names.extend(chosen.iter().cloned()),
    }
    let answers = Runtime::new()?.block_on(ask_all(&host, &names, comparison));
    host.engine.shutdown();
    let columns: Vec<_> = names.into_iter().zip(answers).collect();
    Ok(table::lay_out(&columns, comparison.width))
}

/// The answers, in the order of the names; what fails is answered with the reason.
async fn ask_all(host: &Arc<Host>, names: &[String], comparison: &Comparison) -> Vec<String> {
    let asked: Vec<_> = names
        .iter()
        .map(|name| {
            let (host, request) = (Arc::clone(host), request(name, comparison));
            tokio::spawn(async move { ask(&host, request).await })
        })
        .collect();
    let mut answers = Vec::new();
    for answer in asked {
        answers.push(match answer.await {
            Ok(Ok(text)) => text,
            Ok(Err(error)) => format!("error: {error}"),
            Err(panic) => format!("error: {panic}"),
        });
    }
    answers
}

fn request(model: &str, comparison: &Comparison) -> GenerationRequest {
    let message = Message {
        role: Role::User,
        content: comparison.prompt.clone(),
        name: None,
        reasoning: None,
        tool_calls: Vec::new(),
        tool_call_id: None,
    };
    let chat = ChatInput {
        messages: Arc::new([message]),
        tools: Arc::new([]),
        tool_choice: ToolChoice::Auto,
        parallel_tool_calls: true,
        add_generation_prompt: true,
        kwargs: serde_json::Map::new(),
    };
    GenerationRequest {
        origin: Origin { request_id: "compare".to_owned(), ..Origin::default() },
        model: model.to_owned(),
        input: Input::Chat(chat),
        choices: 1,
        max_tokens: Some(comparison.max_tokens),
        sampling: Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, logprobs: None },
        stop: StopRules::default(),
        skip_specials: true,
    }
}

async fn ask(host: &Arc<Host>, request: GenerationRequest) -> Result<String, GenerationError> {
    let mut generation = Generation::start(host, host.snapshot.load_full(), request).await?;
    let mut text = String::new();
    while let Some(delta) = std::future::poll_fn(|cx| Pin::new(&mut generation).poll_next(cx)).await
    {
        for part in delta?.parts {
            match part {
                Part::Content(piece) | Part::Reasoning(piece) => text.push_str(&piece),
                Part::ToolBegin { name, .. } => text.push_str(&format!("call {name} ")),
                Part::ToolArguments { fragment, .. } => text.push_str(&fragment),
                Part::Structured { json, complete: true, .. } => text.push_str(&json),
                Part::Structured { .. } | Part::Annotation { .. } => {}
            }
        }
    }
    Ok(text.trim().to_owned())
}
