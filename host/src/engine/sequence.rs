//! One request on its way through the engine: its tokens, its pages and where it stands.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use switchyard_kernels::{AdapterSlot, MaskRow, PAGE_TOKENS, RowToken, SampleRow, Sampled};
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
/// Invariant *length chain*, half-open ranges of positions:
///
/// ```text
/// 0 .. computed .. computed + rows of this step .. len() .. prompt + max_tokens
/// 0 .......................... known .. awaited .. len()
/// ```
pub(super) struct Sequence {
    pub(super) id: SequenceId,
    /// The prompt, then what was produced.
    tokens: Vec<u32>,
    /// Tokens drawn and not known yet: their rows in the draws of the steps in flight, oldest
    /// first. One while a step is planned, two between its launch and the commit of the one before.
    awaited: VecDeque<u32>,
    /// Length of the prompt.
    prompt: usize,
    /// Tokens whose keys and values are in `pages`, once the steps in flight have run.
    pub(super) computed: usize,
    /// The latest step that has rows of it, from 1.
    pub(super) last_step: u64,
    /// Slabs of the KV pages, in order of position.
    pub(super) pages: Vec<u32>,
    /// The adapter's slot and its lease, while running.
    pub(super) slot: Option<AdapterSlot>,
    /// Whether the adapter is still being copied into the pool.
    pub(super) loading: bool,
    /// Times that a later sequence was started first.
    pub(super) overtaken: u32,
    /// What a grammar allows after the known tokens. Nobody sets it yet.
    pub(super) mask: Option<MaskRow>,
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
            awaited: VecDeque::new(),
            computed: 0,
            last_step: 0,
            pages: Vec::new(),
            slot: None,
            loading: false,
            overtaken: 0,
            mask: None,
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

    /// Tokens so far, known or awaited.
    pub(super) fn len(&self) -> usize {
        self.tokens.len() + self.awaited.len()
    }

    /// Pages that computing all that remains needs.
    pub(super) fn pages_needed(&self) -> usize {
        (self.computed + self.remaining()).div_ceil(PAGE_TOKENS)
    }

    /// Tokens that a step may compute now; 1 while decoding. 0 while the adapter is on its way, and
    /// while the step in flight draws the last token, which is never computed, or one that a
    /// grammar must see before the next is drawn.
    pub(super) fn remaining(&self) -> usize {
        let mask_is_due = self.mask.is_some() && !self.awaited.is_empty();
        let none = self.loading || mask_is_due || self.len() == self.longest();
        if none { 0 } else { self.len() - self.computed }
    }

    /// The next `rows` tokens to compute.
    pub(super) fn row_tokens(&self, rows: usize) -> impl Iterator<Item = RowToken> {
        assert!(self.awaited.len() <= 1, "a row names the latest draw alone");
        let known = self.tokens[self.computed..].iter().copied().map(RowToken::Known);
        known.chain(self.awaited.iter().copied().map(RowToken::Drawn)).take(rows)
    }

    /// Whether nobody listens any more.
    pub(super) fn is_cancelled(&self) -> bool {
        self.output.is_closed()
    }

    /// Whether it has been started before, and preempted if it waits.
    pub(super) fn has_run(&self) -> bool {
        self.place.is_none()
    }

    /// Leaves the waiting queue.
    pub(super) fn start(&mut self) {
        self.place = None;
        self.overtaken = 0;
    }

    /// Back to nothing computed; what was produced becomes part of the prompt to recompute.
    pub(super) fn restart(&mut self) {
        assert!(self.pages.is_empty() && self.slot.is_none(), "released before");
        assert!(self.awaited.is_empty(), "what is recomputed is known");
        (self.computed, self.loading) = (0, false);
    }

    /// How the token after the present ones is drawn.
    pub(super) fn sample_row(&self) -> SampleRow {
        assert!(self.mask.is_none() || self.awaited.is_empty(), "a mask follows known tokens");
        let sampling = &self.request.sampling;
        SampleRow {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            position: self.len() as u64,
            logprobs: sampling.logprobs,
            mask: self.mask.clone(),
        }
    }

    /// Counts `rows` more tokens as computed by a step.
    pub(super) fn advance(&mut self, rows: usize, step: u64) {
        self.computed += rows;
        self.last_step = step;
        self.assert_length_chain();
    }

    /// Counts one more token, which that row of the latest draw will tell.
    pub(super) fn expect_token(&mut self, row: u32) {
        assert_eq!(self.computed, self.len(), "a token is drawn after all before it are computed");
        self.awaited.push_back(row);
        self.assert_length_chain();
    }

    /// Fills the oldest awaited token in and reports it; says whether the sequence has ended.
    pub(super) fn push(&mut self, row: u32, drawn: Sampled) -> bool {
        assert_eq!(self.awaited.pop_front(), Some(row), "draws are committed in order");
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
        assert!(self.computed <= self.len(), "length chain: computed");
        assert!(self.computed <= self.pages.len() * PAGE_TOKENS, "length chain: pages");
        assert!(self.len() <= self.longest(), "length chain: longest");
    }
}
