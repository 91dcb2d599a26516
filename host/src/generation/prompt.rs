//! From messages or text to token ids, and the rules that come with them.
//!
//! Rendering and encoding run off the async workers. User text is encoded with special tokens
//! switched off, so that nothing a client writes becomes a control token.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{ChatInput, GenerationError, GenerationRequest, Host, Input, Prompt, Snapshot};
use crate::{
    adapters::AdapterLease,
    plugins::{AnswerParams, Plugin, RenderInput, Rendered},
    template::TemplateInput,
};

/// A request ready for the engine.
pub(super) struct Prepared {
    /// One per prompt, each with room for at least one token.
    pub(super) prompts: Vec<Vec<u32>>,
    /// Stop strings of the request and of the template.
    pub(super) stop: Vec<String>,
    /// Stop tokens of the request, the template and the model.
    pub(super) stop_tokens: Vec<u32>,
    /// Whether control tokens stay in the text.
    pub(super) keep_specials: bool,
    adapter: Option<String>,
    parser_init: Option<String>,
}

impl Prepared {
    /// What the parser is told about the answer with this index.
    pub(super) fn answer_params(&self, host: &Host, chat: &ChatInput, index: u32) -> AnswerParams {
        AnswerParams {
            model: host.base.id.clone(),
            adapter: self.adapter.clone(),
            choice_index: index,
            tools: Arc::clone(&chat.tools),
            tool_choice: chat.tool_choice.clone(),
            init: self.parser_init.clone(),
        }
    }
}

/// Renders, encodes and checks the length of every prompt.
pub(super) async fn prepare(
    host: &Arc<Host>,
    snapshot: &Snapshot,
    request: &GenerationRequest,
    adapter: Option<&AdapterLease>,
) -> Result<Prepared, GenerationError> {
    let adapter = adapter.map(|lease| lease.name.clone());
    let mut prepared = match (&request.input, &snapshot.plugins.template) {
        (Input::Chat(chat), Some(plugin)) => {
            let input = render_input(host, chat, adapter.clone());
            render_by_plugin(host, plugin, input).await?
        }
        (Input::Chat(chat), None) => {
            let chat = chat.clone();
            plain(off_workers(host, move |host| render_by_model(host, &chat)).await?)
        }
        (Input::Prompts(prompts), _) => {
            let prompts = prompts.clone();
            plain(off_workers(host, move |host| Ok(encode_all(host, prompts))).await?)
        }
    };
    prepared.prompts.iter().try_for_each(|prompt| check(host, prompt))?;
    let parser = match request.input {
        Input::Chat(_) => snapshot.plugins.parser.as_ref(),
        Input::Prompts(_) => None,
    };
    prepared.adapter = adapter;
    prepared.keep_specials =
        !request.skip_specials || parser.is_some_and(|plugin| plugin.needs_special_tokens);
    if request.stop.ignore_eos {
        prepared.stop_tokens.clear();
    } else {
        prepared.stop_tokens.extend(&host.base.eos);
    }
    prepared.stop_tokens.extend(&request.stop.tokens);
    prepared.stop_tokens.sort_unstable();
    prepared.stop_tokens.dedup();
    prepared.stop.extend(request.stop.strings.iter().cloned());
    Ok(prepared)
}

/// What is left of the context after `prompt`, or less if the request asks for less.
pub(super) fn max_tokens(host: &Host, prompt: &[u32], asked: Option<u32>) -> u32 {
    let room = host.base.max_positions - prompt.len();
    let room = u32::try_from(room).unwrap_or(u32::MAX);
    asked.map_or(room, |asked| asked.min(room))
}

fn plain(prompts: Vec<Vec<u32>>) -> Prepared {
    Prepared {
        prompts,
        stop: Vec::new(),
        stop_tokens: Vec::new(),
        keep_specials: false,
        adapter: None,
        parser_init: None,
    }
}

fn render_input(host: &Host, chat: &ChatInput, adapter: Option<String>) -> RenderInput {
    let kwargs = chat.kwargs.iter().map(|(key, value)| (key.clone(), value.to_string()));
    RenderInput {
        model: host.base.id.clone(),
        adapter,
        messages: Arc::clone(&chat.messages),
        tools: Arc::clone(&chat.tools),
        tool_choice: chat.tool_choice.clone(),
        add_generation_prompt: chat.add_generation_prompt,
        today: date(SystemTime::now()),
        kwargs: kwargs.collect(),
    }
}

async fn render_by_plugin(
    host: &Arc<Host>,
    plugin: &Arc<Plugin>,
    input: RenderInput,
) -> Result<Prepared, GenerationError> {
    let Rendered { segments, stop, stop_tokens, parser_init } = plugin.render(input).await?;
    let name = plugin.name.clone();
    let encode = move |host: &Host| {
        let encoded = host.tokenizer.encode_segments(&segments);
        encoded.map_err(|error| GenerationError::Segments { plugin: name, error })
    };
    let ids = off_workers(host, encode).await?;
    let stop = stop.into_iter().filter(|stop| !stop.is_empty()).collect();
    Ok(Prepared { stop, stop_tokens, parser_init, ..plain(vec![ids]) })
}

fn render_by_model(host: &Host, chat: &ChatInput) -> Result<Vec<Vec<u32>>, GenerationError> {
    let template = host.template.as_ref().ok_or(GenerationError::NoTemplate)?;
    let segments = template.render(&TemplateInput {
        messages: &chat.messages,
        tools: &chat.tools,
        add_generation_prompt: chat.add_generation_prompt,
        today: &date(SystemTime::now()),
        kwargs: &chat.kwargs,
    })?;
    Ok(vec![host.tokenizer.encode_segments(&segments)?])
}

fn encode_all(host: &Host, prompts: Vec<Prompt>) -> Vec<Vec<u32>> {
    let encode = |prompt| match prompt {
        Prompt::Text(text) => host.tokenizer.encode_prompt(&text),
        Prompt::Tokens(ids) => ids,
    };
    prompts.into_iter().map(encode).collect()
}

/// A prompt has at least one token, all of them the model's, and room for one more.
fn check(host: &Host, prompt: &[u32]) -> Result<(), GenerationError> {
    let (context, vocabulary) = (host.base.max_positions, host.base.vocabulary);
    if prompt.is_empty() {
        return Err(GenerationError::EmptyPrompt);
    }
    if prompt.len() >= context {
        return Err(GenerationError::ContextLength { context, prompt: prompt.len() });
    }
    match prompt.iter().find(|&&id| id as usize >= vocabulary) {
        Some(&token) => Err(GenerationError::UnknownToken { token, vocabulary }),
        None => Ok(()),
    }
}

async fn off_workers<T: Send + 'static>(
    host: &Arc<Host>,
    work: impl FnOnce(&Host) -> Result<T, GenerationError> + Send + 'static,
) -> Result<T, GenerationError> {
    let host = Arc::clone(host);
    let done = tokio::task::spawn_blocking(move || work(&host)).await;
    done.unwrap_or(Err(GenerationError::Internal))
}

/// `2026-11-22`, in UTC (days to civil date after Howard Hinnant, 400-year eras from March).
fn date(now: SystemTime) -> String {
    let seconds = now.duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs());
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year_of_era = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day_of_month = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day_of_month:02}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let check = |seconds, expected| {
            assert_eq!(date(UNIX_EPOCH + Duration::from_secs(seconds)), expected);
        };
        check(0, "1970-01-01");
        check(951_782_400, "2000-02-29");
        check(951_868_800, "2000-03-01");
        check(1_735_689_599, "2024-12-31");
        check(1_795_305_600, "2026-11-22");
        check(4_107_542_400, "2100-03-01");
    }
}
