//! One choice: the engine's tokens read, decoded, cut at stop strings, parsed and sent on.
//!
//! Each round takes every token that is ready, so that what arrives while a parser works or a
//! client is slow becomes one larger piece. Returning drops the token stream, which ends the
//! sequence in the engine.

use tokio::sync::mpsc;

use super::{
    Delta, Finish, FinishCause, FinishKind, GenerationError, Token, answer::Answer,
    stop::StopStrings,
};
use crate::{
    engine::{FinishReason, TokenOutput, TokenStream},
    plugins::ParseEnd,
    tokenizer::Detokenizer,
};

/// What ends a choice, and what is shown of it.
pub(super) struct Ending {
    /// Texts that end it.
    pub(super) strings: StopStrings,
    /// The stop tokens that the request named, as against the model's own.
    pub(super) tokens: Vec<u32>,
    /// Whether the text of the token that ended it is shown.
    pub(super) show_token: bool,
}

/// A choice in progress.
pub(super) struct Choice {
    index: u32,
    stream: TokenStream,
    detokenizer: Detokenizer,
    ending: Ending,
    answer: Answer,
    /// Characters decoded so far.
    characters: usize,
}

/// What one round took from the engine.
#[derive(Default)]
struct Round {
    tokens: Vec<Token>,
    text: String,
    end: Option<(FinishReason, FinishCause)>,
}

impl Choice {
    pub(super) fn new(
        index: u32,
        stream: TokenStream,
        detokenizer: Detokenizer,
        ending: Ending,
        answer: Answer,
    ) -> Self {
        Self { index, stream, detokenizer, ending, answer, characters: 0 }
    }

    /// Runs until the choice has ended or nobody reads it any more.
    pub(super) async fn run(mut self, deltas: mpsc::Sender<Result<Delta, GenerationError>>) {
        while let Some(output) = self.stream.recv().await {
            let round = self.read(output);
            let delta = self.parse(round).await;
            let last = delta.finish.is_some();
            if deltas.send(Ok(delta)).await.is_err() || last {
                return;
            }
        }
        // A reader that has gone needs no word of it.
        let _ = deltas.send(Err(GenerationError::EngineFailed)).await;
    }

    /// Takes `first` and whatever else is ready.
    fn read(&mut self, first: TokenOutput) -> Round {
        let mut round = Round::default();
        let mut next = Some(first);
        while let Some(output) = next {
            self.decode(output, &mut round);
            if round.end.is_some() {
                break;
            }
            next = self.stream.try_recv();
        }
        round
    }

    fn decode(&mut self, output: TokenOutput, round: &mut Round) {
        let TokenOutput { token, logprob, top, finish } = output;
        round.tokens.push(Token { id: token, logprob, top, offset: self.characters });
        let shown = finish != Some(FinishReason::Stop) || self.ending.show_token;
        let mut text = if shown { self.detokenizer.push(token) } else { String::new() };
        if finish.is_some() {
            text.push_str(&self.detokenizer.finish());
        }
        self.characters += text.chars().count();
        let scanned = self.ending.strings.push(&text);
        round.text.push_str(&scanned.text);
        round.end = match (scanned.stop, finish) {
            (Some(stop), _) => Some((FinishReason::Stop, FinishCause::Text(stop))),
            (None, Some(reason)) => {
                round.text.push_str(&self.ending.strings.finish());
                let named = reason == FinishReason::Stop && self.ending.tokens.contains(&token);
                let cause = if named { FinishCause::Token(token) } else { FinishCause::Model };
                Some((reason, cause))
            }
            (None, None) => None,
        };
    }

    async fn parse(&mut self, round: Round) -> Delta {
        let Round { tokens, text, mut end } = round;
        let mut parsed = self.answer.feed(tokens.iter().map(|token| token.id), text).await;
        if let Some(reason) = parsed.stop.take() {
            let cause = reason.map_or(FinishCause::Model, FinishCause::Text);
            end = Some((FinishReason::Stop, cause));
        }
        let mut finish = None;
        if let Some((reason, cause)) = end {
            let why = match reason {
                FinishReason::Stop => ParseEnd::Stop,
                FinishReason::Length => ParseEnd::Length,
            };
            parsed.extend(self.answer.finish(why).await);
            let kind = match reason {
                FinishReason::Length => FinishKind::Length,
                FinishReason::Stop if self.answer.has_calls() => FinishKind::ToolCalls,
                FinishReason::Stop => FinishKind::Stop,
            };
            finish = Some(Finish { kind, cause });
        }
        Delta { choice: self.index, parts: parsed.parts, tokens, finish }
    }
}
