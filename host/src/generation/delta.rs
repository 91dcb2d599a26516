//! What a generation streams out: pieces of its choices.

use switchyard_kernels::TokenLogprob;

/// One produced token.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// Its log-probability, if asked.
    pub logprob: Option<f32>,
    /// The best alternatives, most likely first; empty unless asked.
    pub top: Vec<TokenLogprob>,
    /// Characters of the choice's text before it.
    pub offset: usize,
}

/// A piece of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text of the answer.
    Content(String),
    /// Text of the model's reasoning.
    Reasoning(String),
    /// A function call begins.
    ToolBegin {
        /// Counts the calls of a choice from 0.
        index: u32,
        /// Joins the call to its result.
        id: String,
        /// The function.
        name: String,
    },
    /// More of a call's arguments.
    ToolArguments {
        /// Which call.
        index: u32,
        /// JSON text; fragments in order make one document.
        fragment: String,
    },
    /// A result in a form of the parser's own.
    Structured {
        /// What it is.
        name: String,
        /// The whole value so far.
        json: String,
        /// Whether it is final.
        complete: bool,
    },
    /// A remark of the parser about the answer.
    Annotation {
        /// Its name.
        key: String,
        /// Its text.
        value: String,
    },
}

/// Why a choice ended, as clients are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinishKind {
    /// The answer was complete, or a stop rule ended it.
    Stop,
    /// It reached its longest length.
    Length,
    /// It ended with function calls.
    ToolCalls,
}

/// What exactly ended a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FinishCause {
    /// The model's own end token, or the length.
    Model,
    /// A stop string of the request, or a reason given by the parser.
    Text(String),
    /// A stop token of the request.
    Token(u32),
}

/// The end of a choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// For clients.
    pub kind: FinishKind,
    /// In detail.
    pub cause: FinishCause,
}

/// What one choice produced since its last delta.
#[derive(Clone, Debug, PartialEq)]
pub struct Delta {
    /// Prompt times `n` plus choice.
    pub choice: u32,
    /// Pieces of the answer in order; text may lag behind the tokens.
    pub parts: Vec<Part>,
    /// Every token, those without text included.
    pub tokens: Vec<Token>,
    /// Set on the last delta of a choice.
    pub finish: Option<Finish>,
}

/// Tokens counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of all prompts.
    pub prompt_tokens: usize,
    /// Of all choices.
    pub completion_tokens: usize,
}
