//! One request on its way through the engine: its tokens, its pages and where it stands.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use switchyard_kernels::{AdapterSlot, PAGE_TOKENS, SampleRow, Sampled};
use tokio::sync::mpsc::{Sender, error::TrySendError};

use super::{FinishReason, NewSequence, TokenOutput};
use crate::model::AdapterImage;

/// Order of arrival: a larger id is a newer sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SequenceId(pub(super) u64);

/// A place in the waiting queue, given up when the sequence starts or is dropped.
pub(super) struct Place(Arc<AtomicUsize>);

impl Place {
    /// Takes a place if fewer than `limit` are taken.
    pub(super) fn take(taken: &Arc<AtomicUsize>, limit: usize) -> Option<Self> {
        let room = |taken| (taken < limit).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Self(taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request as it comes through the engine's channel.
pub(super) struct Arrival {
    pub(super) request: NewSequence,
    /// Room for all of `max_tokens`.
    pub(super) output: Sender<TokenOutput>,
    pub(super) place: Place,
}

/// A request that is waiting or running.
///
/// Invariant *length chain*, half-open ranges of `tokens`:
///
/// ```text
/// 0 .. computed .. computed + rows of this step .. tokens.len() .. prompt + max_tokens
/// ```
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// The prompt, then what was produced.
    pub(super) tokens: Vec<u32>,
    /// Length of the prompt.
    prompt: usize,
    /// Tokens whose keys and values are in `pages`.
    pub(super) computed: usize,
    /// Slabs of the KV pages, in order of position.
    pub(super) pages: Vec<u32>,
    /// The adapter's slot and its lease, while running.
    pub(super) slot: Option<AdapterSlot>,
    /// Times that a later sequence was started first.
    pub(super) overtaken: u32,
    request: NewSequence,
    output: Sender<TokenOutput>,
    /// Held until the first start.
    place: Option<Place>,
}

impl Sequence {
    pub(super) fn new(id: SequenceId, mut arrival: Arrival) -> Self {
        let tokens = std::mem::take(&mut arrival.request.prompt);
        Self {
            id,
            prompt: tokens.len(),
            tokens,
            computed: 0,
            pages: Vec::new(),
            slot: None,
            overtaken: 0,
            request: arrival.request,
            output: arrival.output,
            place: Some(arrival.place),
        }
    }

    /// Slabs that a request's pages take when the last token is drawn, whose own KV is not stored.
    pub(super) fn pages_at_end(request: &NewSequence) -> usize {
        (request.prompt.len() + request.max_tokens as usize - 1).div_ceil(PAGE_TOKENS)
    }

    pub(super) fn adapter(&self) -> Option<&Arc<AdapterImage>> {
        self.request.adapter.as_ref()
    }

    /// Pages that the tokens so far need.
    pub(super) fn pages_needed(&self) -> usize {
        self.tokens.len().div_ceil(PAGE_TOKENS)
    }

    /// Tokens still to be computed; 1 while decoding.
    pub(super) fn remaining(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether nobody listens any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.output.is_closed()
    }

    /// Leaves the waiting queue.
    pub(super) fn start(&mut self) {
        self.place = None;
        self.overtaken = 0;
    }

    /// Back to nothing computed; what was produced becomes part of the prompt to recompute.
    pub(super) fn restart(&mut self) {
        assert!(self.pages.is_empty() && self.slot.is_none(), "released before");
        self.computed = 0;
    }

    /// How the token after the present ones is drawn.
    pub(super) fn sample_row(&self) -> SampleRow {
        let sampling = &self.request.sampling;
        SampleRow {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            position: self.tokens.len() as u64,
            logprobs: sampling.logprobs,
            mask: None,
        }
    }

    /// Counts `rows` more tokens as computed.
    pub(super) fn advance(&mut self, rows: usize) {
        self.computed += rows;
        self.assert_length_chain();
    }

    /// Appends a drawn token and reports it; says whether the sequence has ended.
    pub(super) fn push(&mut self, drawn: Sampled) -> bool {
        assert_eq!(self.remaining(), 0, "a token is drawn after all before it are computed");
        self.tokens.push(drawn.token);
        self.assert_length_chain();
        let finish = self.verdict(drawn.token);
        let Sampled { token, logprob, top } = drawn;
        match self.output.try_send(TokenOutput { token, logprob, top, finish }) {
            Ok(()) | Err(TrySendError::Closed(_)) => finish.is_some(),
            Err(TrySendError::Full(_)) => unreachable!("the queue holds max_tokens"),
        }
    }

    fn verdict(&self, token: u32) -> Option<FinishReason> {
        if self.request.stop_tokens.contains(&token) {
            Some(FinishReason::Stop)
        } else if self.tokens.len() == self.longest() {
            Some(FinishReason::Length)
        } else {
            None
        }
    }

    fn longest(&self) -> usize {
        self.prompt + self.request.max_tokens as usize
    }

    fn assert_length_chain(&self) {
        assert!(self.computed <= self.tokens.len(), "length chain: computed");
        assert!(self.computed <= self.pages.len() * PAGE_TOKENS, "length chain: pages");
        assert!(self.tokens.len() <= self.longest(), "length chain: longest");
    }
}
