//! What requests run against: the parts fixed for the process, and the snapshot that reload swaps.
//!
//! A request takes one `Arc<Snapshot>` when it is admitted. Reload never edits a snapshot, it
//! publishes another one; the old one lives until its last request ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;

use crate::{
    adapters::{AdapterStore, Catalogue},
    device::Monitor,
    engine::EngineHandle,
    plugins::PluginChain,
    template::ChatTemplate,
    tokenizer::Tokenizer,
};

/// The base model as clients and templates see it.
#[derive(Clone, Debug)]
pub struct BaseInfo {
    /// The name in `/v1/models`.
    pub id: String,
    /// Other names that mean the base.
    pub aliases: Vec<String>,
    /// Longest sequence, prompt and answer together.
    pub max_positions: usize,
    /// Rows of the embedding: token ids are below it.
    pub vocabulary: usize,
    /// Tokens that end an answer.
    pub eos: Vec<u32>,
    /// When the process loaded it.
    pub created: SystemTime,
    /// Identity of configuration and weights, part of `system_fingerprint`.
    pub fingerprint: String,
}

impl BaseInfo {
    /// Whether `name` is the id or an alias.
    pub fn is_named(&self, name: &str) -> bool {
        self.id == name || self.aliases.iter().any(|alias| alias == name)
    }
}

/// Limits of one request and of all of them together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Requests in progress, waiting ones included; one more is answered 429.
    pub max_requests: usize,
    /// From admission to the last token.
    pub request_timeout: Duration,
    /// Size of a request's body.
    pub body_bytes: usize,
    /// `n`, and prompts times `n` of a completion.
    pub max_choices: usize,
    /// Turns of a chat.
    pub max_messages: usize,
    /// Functions offered to the model.
    pub max_tools: usize,
    /// Stop strings, and as many stop token ids.
    pub max_stop: usize,
    /// Alternatives listed per token.
    pub max_logprobs: usize,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            max_requests: 256,
            request_timeout: Duration::from_secs(600),
            body_bytes: 4 << 20,
            max_choices: 16,
            max_messages: 1024,
            max_tools: 128,
            max_stop: 16,
            max_logprobs: 20,
        }
    }
}

/// Everything about the service that may change while it runs.
pub struct Snapshot {
    /// Counts configurations, from 1.
    pub generation: u64,
    /// Limits of requests admitted under it.
    pub limits: RequestLimits,
    /// The plugins in force.
    pub plugins: PluginChain,
    /// The adapters on offer.
    pub catalogue: Arc<Catalogue>,
}

/// What every request shares.
pub struct Host {
    /// The way to the engine's thread.
    pub engine: EngineHandle,
    /// What the device's driver says.
    pub monitor: Monitor,
    /// Images of the adapters.
    pub adapters: Arc<AdapterStore>,
    /// The base model's tokenizer.
    pub tokenizer: Tokenizer,
    /// The base model's own chat template, used where no template plugin is.
    pub template: Option<ChatTemplate>,
    /// The base model.
    pub base: BaseInfo,
    /// The snapshot that the next request takes; reload stores here.
    pub snapshot: ArcSwap<Snapshot>,
}
