//! What a reply tells of its tokens: ids and log-probabilities, in the form of each route.
//!
//! Every generated token has one entry, the token that ended the answer included, so that ids and
//! log-probabilities stay side by side.

use serde_json::{Map, Value};

use super::openai::{ChatLogprobs, ChatTokenLogprob, TextLogprobs, TokenLogprob};
use crate::{generation::Token, tokenizer::Tokenizer};

/// JSON has no infinity: a token that cannot be drawn has this log-probability.
const IMPOSSIBLE: f32 = -9999.0;

/// What is told of tokens, and how.
pub(super) struct TokenView {
    pub(super) tokenizer: Tokenizer,
    /// How many alternatives per token; `None`: no log-probabilities.
    pub(super) logprobs: Option<usize>,
    /// Whether ids are told.
    pub(super) ids: bool,
}

impl TokenView {
    /// Whether tokens are told at all.
    pub(super) fn is_wanted(&self) -> bool {
        self.ids || self.logprobs.is_some()
    }

    /// Token ids, if they are told.
    pub(super) fn ids(&self, tokens: &[Token]) -> Option<Vec<u32>> {
        self.ids.then(|| tokens.iter().map(|token| token.id).collect())
    }

    /// As chats have them.
    pub(super) fn chat(&self, tokens: &[Token]) -> Option<ChatLogprobs> {
        let most = self.logprobs?;
        let entry = |token: &Token| {
            let top = token.top.iter().take(most);
            let top_logprobs = top.map(|top| self.entry(top.token, Some(top.logprob))).collect();
            ChatTokenLogprob { token: self.entry(token.id, token.logprob), top_logprobs }
        };
        Some(ChatLogprobs { content: tokens.iter().map(entry).collect(), refusal: None })
    }

    /// As completions have them: the drawn token is always among the alternatives.
    pub(super) fn text(&self, tokens: &[Token]) -> Option<TextLogprobs> {
        let most = self.logprobs?;
        let top = |token: &Token| {
            let own = (token.id, token.logprob);
            let rest = token.top.iter().take(most).map(|top| (top.token, Some(top.logprob)));
            let entries = std::iter::once(own).chain(rest);
            let named = |(id, logprob)| (self.name(id), Value::from(finite(logprob)));
            Map::from_iter(entries.map(named))
        };
        Some(TextLogprobs {
            tokens: tokens.iter().map(|token| self.name(token.id)).collect(),
            token_logprobs: tokens.iter().map(|token| finite(token.logprob)).collect(),
            top_logprobs: tokens.iter().map(top).collect(),
            text_offset: tokens.iter().map(|token| token.offset).collect(),
        })
    }

    fn entry(&self, id: u32, logprob: Option<f32>) -> TokenLogprob {
        let bytes = self.tokenizer.token_bytes(id);
        let token = String::from_utf8_lossy(&bytes).into_owned();
        TokenLogprob { token, logprob: finite(logprob), bytes }
    }

    fn name(&self, id: u32) -> String {
        String::from_utf8_lossy(&self.tokenizer.token_bytes(id)).into_owned()
    }
}

fn finite(logprob: Option<f32>) -> f32 {
    logprob.map_or(IMPOSSIBLE, |logprob| logprob.max(IMPOSSIBLE))
}
