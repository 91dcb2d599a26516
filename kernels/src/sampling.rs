//! What sampling takes and gives, per row of logits.

use std::sync::Arc;

/// Which tokens a grammar allows in this step: bit `t % 32` of word `t / 32` set means allowed.
pub type MaskRow = Arc<[u32]>;

/// How one row of logits becomes a token.
///
/// The random number of a draw is Philox-4x32-10 (Salmon et al., SC 2011) keyed by `seed` and
/// counted by `position`, so that a request draws the same numbers in any batch.
#[derive(Clone, Debug)]
pub struct SampleRow {
    /// 0 is greedy (ties go to the lower id); otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep the k most likely tokens; 0 keeps all.
    pub top_k: u32,
    /// Keep the smallest set of most likely tokens whose probability reaches this, in (0, 1].
    pub top_p: f32,
    /// Key of the random stream.
    pub seed: u64,
    /// Position of the token to be drawn, counter of the random stream.
    pub position: u64,
    /// `Some(n)` asks for the token's own log-probability and the `n` best alternatives. They are
    /// of the model's distribution: before mask, temperature, top-k and top-p.
    pub logprobs: Option<u32>,
    /// Tokens a grammar allows.
    pub mask: Option<MaskRow>,
}

/// A token with its natural log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub token: u32,
    /// Natural logarithm of the probability.
    pub logprob: f32,
}

/// A drawn token.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    /// Token id.
    pub token: u32,
    /// Its log-probability, if the row asked.
    pub logprob: Option<f32>,
    /// The best alternatives, most likely first; empty unless asked.
    pub top: Vec<TokenLogprob>,
}
