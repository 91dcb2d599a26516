//! Why a request was not answered. What clients see of it is decided in `http`.

use std::time::Duration;

use crate::{
    engine::SubmitError, plugins::PluginFault, template::TemplateError, tokenizer::TokenizerError,
};

/// Why a generation did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum GenerationError {
    /// No base, alias or adapter has the name.
    #[error("the model `{model}` does not exist; GET /v1/models lists those that do")]
    ModelNotFound {
        /// As requested.
        model: String,
    },
    /// A router turned the request down.
    #[error("{message}")]
    Rejected {
        /// HTTP status.
        status: u16,
        /// For programs.
        code: String,
        /// For people.
        message: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// A router chose what is not there.
    #[error("router plugin `{plugin}` chose adapter `{adapter}`, which is not loaded")]
    UnknownRoute {
        /// The router.
        plugin: String,
        /// Its first choice.
        adapter: String,
    },
    /// A router or template failed; they have no fallback.
    #[error(transparent)]
    Plugin(#[from] PluginFault),
    /// A chat without any template.
    #[error("the model has no chat template; use /v1/completions or configure a template plugin")]
    NoTemplate,
    /// The model's template refused the conversation.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A plugin's segments could not be encoded.
    #[error("template plugin `{plugin}`: {error}")]
    Segments {
        /// The plugin.
        plugin: String,
        /// What is wrong with them.
        error: TokenizerError,
    },
    /// The model's template names a token that its tokenizer lacks.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// A prompt without a token.
    #[error("the prompt is empty")]
    EmptyPrompt,
    /// A token id beyond the vocabulary.
    #[error("token id {token} is not below the vocabulary's size {vocabulary}")]
    UnknownToken {
        /// The id.
        token: u32,
        /// Ids end before it.
        vocabulary: usize,
    },
    /// No room for an answer.
    #[error(
        "this model's context is {context} tokens and the prompt has {prompt}; \
         shorten the prompt so that at least one token can follow"
    )]
    ContextLength {
        /// Longest sequence.
        context: usize,
        /// Tokens of the prompt.
        prompt: usize,
    },
    /// The adapter's weights cannot be read.
    #[error("adapter `{adapter}` cannot be read at the moment; the server's log says why")]
    AdapterUnavailable {
        /// Its name.
        adapter: String,
    },
    /// The engine did not take it.
    #[error(transparent)]
    Submit(#[from] SubmitError),
    /// The engine died while it ran.
    #[error("the engine failed while the request ran")]
    EngineFailed,
    /// It took longer than `request_timeout`.
    #[error("the request took longer than the configured limit")]
    Timeout,
    /// A task of the request panicked.
    #[error("internal error while preparing the request")]
    Internal,
}
