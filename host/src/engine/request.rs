//! What a caller asks of the engine and what comes back, token by token.

use std::sync::Arc;

use switchyard_kernels::TokenLogprob;

use crate::model::AdapterImage;

/// How tokens are drawn.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 0 keeps all.
    pub top_k: u32,
    /// In (0, 1]; 1 keeps all.
    pub top_p: f32,
    /// Key of the random stream; the same seed gives the same tokens in any batch.
    pub seed: u64,
    /// Ask for log-probabilities with this many alternatives.
    pub logprobs: Option<u32>,
}

impl Sampling {
    /// Always the most likely token.
    pub fn greedy() -> Self {
        Self { temperature: 0.0, top_k: 0, top_p: 1.0, seed: 0, logprobs: None }
    }
}

/// A prompt to be continued.
pub struct NewSequence {
    /// At least one token of the vocabulary; with `max_tokens` at most the model's `max_positions`.
    pub prompt: Vec<u32>,
    /// The adapter's weights, kept alive until the sequence ends.
    pub adapter: Option<Arc<AdapterImage>>,
    /// How tokens are drawn.
    pub sampling: Sampling,
    /// At least 1.
    pub max_tokens: u32,
    /// Any of these ends the sequence; the token itself is reported.
    pub stop_tokens: Vec<u32>,
}

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// The last token was one of `stop_tokens`.
    Stop,
    /// `max_tokens` were produced.
    Length,
}

/// One produced token.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenOutput {
    /// Token id.
    pub token: u32,
    /// Its log-probability, if asked.
    pub logprob: Option<f32>,
    /// The best alternatives, most likely first; empty unless asked.
    pub top: Vec<TokenLogprob>,
    /// Set on the last token.
    pub finish: Option<FinishReason>,
}

/// Why a sequence was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// The waiting queue is at its limit.
    #[error("the engine's queue is full")]
    QueueFull,
    /// The engine has stopped.
    #[error("the engine has stopped")]
    Stopped,
    /// Even an empty pool could not hold it.
    #[error("the sequence needs {needed} pool slabs, the pool has {slabs}")]
    TooLarge {
        /// Slabs of KV and adapter at full length.
        needed: usize,
        /// Slabs of the pool.
        slabs: usize,
    },
    /// Prompt and `max_tokens` together are longer than the model's positions.
    #[error("prompt and answer of {tokens} tokens exceed the model's {max_positions} positions")]
    TooLong {
        /// Prompt and `max_tokens` together.
        tokens: usize,
        /// The model's limit.
        max_positions: usize,
    },
}
