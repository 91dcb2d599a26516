//! `POST /v1/completions`: texts or token ids, each continued on its own.

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::Value;

use super::{
    ApiError, App,
    call::Call,
    fields::{Fields, kind},
    joined::Joined,
    logprobs::TokenView,
    openai::TextChoice,
    reply::{self, Answering, Wire, finish},
    sampling::{Form, Shared},
    unsupported,
};
use crate::generation::{
    Delta, Generation, GenerationRequest, Input, Origin, Part, Prompt, RequestLimits,
};

/// The API's default length of a completion.
const MAX_TOKENS: u32 = 16;

/// Continues texts.
pub(super) async fn create(State(app): State<App>, request: Request) -> Result<Response, ApiError> {
    let Call { permit, snapshot, origin, fields } = app.admit(request).await?;
    let (request, form) = read(fields, origin, &snapshot.limits)?;
    let model = request.model.clone();
    let per_prompt = request.choices;
    let logprobs = request.sampling.logprobs.map(|most| most as usize);
    let generation = Generation::start(&app.host, snapshot, request).await?;
    let tokenizer = app.host.tokenizer.clone();
    let prompts = form.token_ids.then(|| generation.prompts().to_vec());
    let view = TokenView { tokenizer, logprobs, ids: form.token_ids };
    let wire = TextWire { view, prompts, per_prompt, begun: Vec::new() };
    let answering = Answering { generation, permit, model, form };
    reply::respond(answering, &app.host.base, wire).await
}

fn read(
    mut fields: Fields,
    origin: Origin,
    limits: &RequestLimits,
) -> Result<(GenerationRequest, Form), ApiError> {
    unsupported::refuse_in_completions(&fields)?;
    let shared = Shared::read(&mut fields, limits)?;
    let prompts = prompts(fields.required("prompt")?)?;
    let answers = prompts.len().saturating_mul(shared.choices as usize);
    if answers > limits.max_choices {
        let most = limits.max_choices;
        let problem = format!("prompts times `n` is {answers}, more than the limit of {most}");
        return Err(ApiError::invalid("prompt", problem));
    }
    let most = u32::try_from(limits.max_logprobs).unwrap_or(u32::MAX);
    let mut sampling = shared.sampling;
    sampling.logprobs = fields.within("logprobs", &(0..=most))?;
    let request = GenerationRequest {
        origin: Origin { streaming: shared.form.stream, ..origin },
        model: shared.model,
        input: Input::Prompts(prompts),
        choices: shared.choices,
        max_tokens: Some(fields.within("max_tokens", &(1..=u32::MAX))?.unwrap_or(MAX_TOKENS)),
        sampling,
        stop: shared.stop,
        skip_specials: shared.skip_specials,
    };
    Ok((request, shared.form))
}

/// A text, texts, token ids, or lists of token ids.
fn prompts(value: Value) -> Result<Vec<Prompt>, ApiError> {
    let refuse = |problem: String| ApiError::invalid("prompt", problem);
    let items = match value {
        Value::String(text) => return Ok(vec![Prompt::Text(text)]),
        Value::Array(items) => items,
        other => {
            let forms = "must be a string, an array of strings, or one or more arrays of token ids";
            return Err(refuse(format!("{forms}, found {}", kind(&other))));
        }
    };
    let Some(first) = items.first() else {
        return Err(refuse("must hold at least one prompt".to_owned()));
    };
    if first.is_number() {
        return Ok(vec![token_ids(Value::Array(items))?]);
    }
    let texts = first.is_string();
    let read = |item: Value| match item {
        Value::String(text) if texts => Ok(Prompt::Text(text)),
        item @ Value::Array(_) if !texts => token_ids(item),
        other => Err(refuse(format!("mixes its items' types: found {}", kind(&other)))),
    };
    items.into_iter().map(read).collect()
}

fn token_ids(value: Value) -> Result<Prompt, ApiError> {
    let ids = serde_json::from_value(value);
    ids.map(Prompt::Tokens).map_err(|error| ApiError::invalid("prompt", error))
}

/// How a completion's choices look.
struct TextWire {
    view: TokenView,
    prompts: Option<Vec<Vec<u32>>>,
    per_prompt: u32,
    /// Which choices have sent their first chunk.
    begun: Vec<u32>,
}

impl TextWire {
    fn prompt(&self, index: u32) -> Option<Vec<u32>> {
        let prompt = (index / self.per_prompt) as usize;
        self.prompts.as_ref().map(|prompts| prompts[prompt].clone())
    }
}

impl Wire for TextWire {
    const ID_PREFIX: &str = "cmpl-";
    const OBJECT: &str = "text_completion";
    const CHUNK_OBJECT: &str = "text_completion";
    type Choice = TextChoice;
    type Chunk = TextChoice;

    fn chunks(&mut self, delta: Delta) -> Vec<TextChoice> {
        let Delta { choice: index, parts, tokens, finish: end } = delta;
        let text: String = parts.into_iter().filter_map(content).collect();
        if text.is_empty() && end.is_none() && !self.view.is_wanted() {
            return Vec::new();
        }
        let first = !self.begun.contains(&index);
        if first {
            self.begun.push(index);
        }
        let (finish_reason, stop_reason) = end.map(finish).unzip();
        vec![TextChoice {
            index,
            text,
            logprobs: self.view.text(&tokens),
            finish_reason,
            stop_reason: stop_reason.unwrap_or_default(),
            token_ids: self.view.ids(&tokens),
            prompt_token_ids: if first { self.prompt(index) } else { None },
        }]
    }

    fn choice(&self, index: u32, joined: Joined) -> TextChoice {
        let (finish_reason, stop_reason) = joined.finish.map(finish).unzip();
        TextChoice {
            index,
            text: joined.content,
            logprobs: self.view.text(&joined.tokens),
            finish_reason,
            stop_reason: stop_reason.unwrap_or_default(),
            token_ids: self.view.ids(&joined.tokens),
            prompt_token_ids: self.prompt(index),
        }
    }

    fn prompt_token_ids(&self) -> Option<Vec<u32>> {
        None
    }
}

/// Completions are not parsed: their parts are content only.
fn content(part: Part) -> Option<String> {
    match part {
        Part::Content(text) => Some(text),
        _ => None,
    }
}
