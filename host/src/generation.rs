//! One request's life: route, render, encode, fetch the adapter's image, submit, then decode, stop
//! and parse.
//!
//! A [`Generation`] pins one [`Snapshot`] and one adapter lease when it starts and ends under
//! them, whatever is reloaded meanwhile. Its choices run as tasks that read the engine's token
//! streams and send [`Delta`]s through one bounded channel; a slow reader holds up its own choices
//! and nothing else. Dropping the generation cancels all of it.

mod answer;
mod choice;
mod delta;
mod error;
mod prompt;
mod request;
mod route;
mod snapshot;
mod stop;

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, Sleep, sleep_until, timeout_at},
};

use self::{
    answer::Answer,
    choice::{Choice, Ending},
    prompt::Prepared,
    stop::StopStrings,
};
pub use self::{
    delta::{Delta, Finish, FinishCause, FinishKind, Part, Token, Usage},
    error::GenerationError,
    request::{ChatInput, GenerationRequest, Input, Origin, Prompt, StopRules},
    snapshot::{BaseInfo, Host, RequestLimits, Snapshot},
};
use crate::{
    adapters::AdapterLease,
    engine::{NewSequence, Sampling, TokenStream},
    model::AdapterImage,
};

/// Deltas a choice may be ahead of the reader.
const DELTAS_AHEAD: usize = 16;

/// A running request: a stream of [`Delta`]s that ends after every choice has sent its finish.
pub struct Generation {
    adapter: Option<AdapterLease>,
    snapshot: Arc<Snapshot>,
    prompts: Vec<Vec<u32>>,
    completion_tokens: usize,
    deltas: mpsc::Receiver<Result<Delta, GenerationError>>,
    deadline: Pin<Box<Sleep>>,
    /// Choices that have not sent their finish.
    running: usize,
    failed: bool,
    /// Owns the choices: dropping it drops their token streams, which the engine notices.
    _choices: JoinSet<()>,
}

impl Generation {
    /// Routes, renders, encodes, fetches the image and submits; on return every choice is in the
    /// engine's queue. Until then the request holds no place in that queue.
    pub async fn start(
        host: &Arc<Host>,
        snapshot: Arc<Snapshot>,
        request: GenerationRequest,
    ) -> Result<Self, GenerationError> {
        let deadline = Instant::now() + snapshot.limits.request_timeout;
        let start = Self::submit(host, snapshot, request, deadline);
        timeout_at(deadline, start).await.map_err(|_| GenerationError::Timeout)?
    }

    async fn submit(
        host: &Arc<Host>,
        snapshot: Arc<Snapshot>,
        request: GenerationRequest,
        deadline: Instant,
    ) -> Result<Self, GenerationError> {
        let adapter = route::resolve(host, &snapshot, &request).await?;
        let prepared = prompt::prepare(host, &snapshot, &request, adapter.as_ref()).await?;
        let image = fetch(host, adapter.as_ref()).await?;
        let streams = submit_all(host, &request, image.as_ref(), &prepared)?;
        let running = streams.len();
        let (sender, deltas) = mpsc::channel(DELTAS_AHEAD);
        let mut choices = JoinSet::new();
        for (index, stream) in (0u32..).zip(streams) {
            let answer = match &request.input {
                Input::Chat(chat) => {
                    let params = prepared.answer_params(host, chat, index);
                    let parser = snapshot.plugins.parser.as_ref();
                    Answer::open(parser, params, chat.parallel_tool_calls).await
                }
                Input::Prompts(_) => Answer::raw(),
            };
            let detokenizer = host.tokenizer.detokenizer(prepared.keep_specials);
            let ending = Ending {
                strings: StopStrings::new(prepared.stop.clone(), request.stop.include),
                tokens: request.stop.tokens.clone(),
                show_token: request.stop.include,
            };
            let choice = Choice::new(index, stream, detokenizer, ending, answer);
            choices.spawn(choice.run(sender.clone()));
        }
        Ok(Self {
            adapter,
            snapshot,
            prompts: prepared.prompts,
            completion_tokens: 0,
            deltas,
            deadline: Box::pin(sleep_until(deadline)),
            running,
            failed: false,
            _choices: choices,
        })
    }

    /// The adapter that answers; `None` is the base.
    pub fn adapter(&self) -> Option<&AdapterLease> {
        self.adapter.as_ref()
    }

    /// The snapshot the request runs under.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Token ids of each prompt; choice `i` continues prompt `i / n`.
    pub fn prompts(&self) -> &[Vec<u32>] {
        &self.prompts
    }

    /// Tokens so far: prompts once each, and what was read from this stream.
    pub fn usage(&self) -> Usage {
        let prompt_tokens = self.prompts.iter().map(Vec::len).sum();
        Usage { prompt_tokens, completion_tokens: self.completion_tokens }
    }
}

/// The adapter's image, in host memory from then on for as long as it is held.
async fn fetch(
    host: &Host,
    adapter: Option<&AdapterLease>,
) -> Result<Option<Arc<AdapterImage>>, GenerationError> {
    let Some(lease) = adapter else { return Ok(None) };
    let image = host.adapters.image(lease).await;
    let missing = || GenerationError::AdapterUnavailable { adapter: lease.name.clone() };
    image.map(Some).ok_or_else(missing)
}

/// Submits every choice of every prompt, or none: on an error the earlier ones are dropped.
fn submit_all(
    host: &Host,
    request: &GenerationRequest,
    image: Option<&Arc<AdapterImage>>,
    prepared: &Prepared,
) -> Result<Vec<TokenStream>, GenerationError> {
    let submit = |prompt: &Vec<u32>, choice: u32| {
        let seed = request.sampling.seed.wrapping_add(u64::from(choice));
        let sequence = NewSequence {
            prompt: prompt.clone(),
            adapter: image.cloned(),
            sampling: Sampling { seed, ..request.sampling.clone() },
            max_tokens: prompt::max_tokens(host, prompt, request.max_tokens),
            stop_tokens: prepared.stop_tokens.clone(),
        };
        Ok(host.engine.submit(sequence)?)
    };
    let prompts = prepared.prompts.iter();
    prompts.flat_map(|prompt| (0..request.choices).map(move |i| submit(prompt, i))).collect()
}

impl Stream for Generation {
    type Item = Result<Delta, GenerationError>;

    /// Ends after an error: what has not been read by then is lost.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.failed || self.running == 0 {
            return Poll::Ready(None);
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            self.failed = true;
            return Poll::Ready(Some(Err(GenerationError::Timeout)));
        }
        // A choice that ends without a word has panicked.
        let item = ready!(self.deltas.poll_recv(cx)).unwrap_or(Err(GenerationError::Internal));
        match &item {
            Ok(delta) => {
                self.completion_tokens += delta.tokens.len();
                self.running -= usize::from(delta.finish.is_some());
            }
            Err(_) => self.failed = true,
        }
        Poll::Ready(Some(item))
    }
}
