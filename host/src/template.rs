//! The model's own chat template: Jinja as transformers runs it, rendered to typed segments.
//!
//! What people say cannot forge a control token: wherever a value from outside holds, begins or
//! ends like a special token's literal, a stand-in character breaks it before rendering, and the
//! output is cut at the literals that are left before the characters are put back. Templates are
//! code from a model's directory: fuel bounds their time and memory.

mod conversation;
mod date;
mod guard;
mod json;
mod source;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use minijinja::{
    Environment, Error, ErrorKind, State, UndefinedBehavior, Value, context, syntax::SyntaxConfig,
    value::Serde,
};
use serde_json::Map;

use crate::{
    chat::{Message, Tool},
    checkpoint::FileError,
    tokenizer::{Segment, Tokenizer},
};
use conversation::Conversation;
use guard::{Guard, Planes};
use source::Sources;

/// Work and memory of one rendering: about one instruction or 64 bytes each.
const FUEL: u64 = 4_000_000;
/// Longest prompt that is accepted from a template, bytes.
const MAX_OUTPUT: usize = 64 << 20;
/// The template for requests with tools, where there is one besides the default.
const TOOL_USE: &str = "tool_use";
const DEFAULT: &str = "default";

/// Why a template was refused, or a conversation could not be rendered.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// A file is unreadable or malformed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Not a template that the engine understands.
    #[error("{path}: chat template `{name}`: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Which of its templates.
        name: String,
        /// What is wrong, with the line.
        reason: String,
    },
    /// The template itself says that it cannot render this conversation.
    #[error("the model's chat template refuses this conversation: {0}")]
    Refused(String),
    /// The template failed on this conversation.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
    /// The rendering took too much work, memory or output.
    #[error("the model's chat template exceeds its limits: {0}")]
    Limit(&'static str),
}

/// What a template renders.
pub struct TemplateInput<'a> {
    /// The conversation.
    pub messages: &'a [Message],
    /// Functions that the model may call.
    pub tools: &'a [Tool],
    /// End with the opening of the assistant's turn.
    pub add_generation_prompt: bool,
    /// The date for templates that state it, as `2026-11-22`.
    pub today: &'a str,
    /// Further variables from the request.
    pub kwargs: &'a Map<String, serde_json::Value>,
}

/// A model's compiled chat template.
pub struct ChatTemplate {
    environment: Environment<'static>,
    /// Variables that name the tokenizer's special tokens.
    tokens: BTreeMap<String, Value>,
    guard: Guard,
}

impl ChatTemplate {
    /// Finds and compiles the templates of a model's directory; `None` if it has none.
    pub fn load(dir: &Path, tokenizer: &Tokenizer) -> Result<Option<Self>, TemplateError> {
        let sources = Sources::read(dir)?;
        if sources.templates.is_empty() {
            return Ok(None);
        }
        let mut environment = environment();
        for (name, (path, text)) in sources.templates {
            let text = source::without_generation_tags(&text);
            environment
                .add_template_owned(name.clone(), text)
                .map_err(|error| TemplateError::Syntax { path, name, reason: describe(&error) })?;
        }
        let literals = tokenizer.specials().into_iter().map(|(literal, _)| literal);
        let guard = Guard::new(literals.collect());
        let tokens = sources.tokens.into_iter().map(|(name, v)| (name, v.into())).collect();
        Ok(Some(Self { environment, tokens, guard }))
    }

    /// Renders a conversation. Special tokens that the template writes come apart from text.
    pub fn render(&self, input: &TemplateInput) -> Result<Vec<Segment>, TemplateError> {
        let name = self.choose(!input.tools.is_empty());
        let template = self.environment.get_template(name).map_err(failed)?;
        let mut planes = Planes::default();
        let mut note = |_, text: &str| {
            planes.add(text);
            String::new()
        };
        Conversation { edit: &mut note }.values(input);
        let stand_ins = planes.free().ok_or_else(|| {
            TemplateError::Refused("it uses every private plane of Unicode".to_owned())
        })?;
        let mut protect = |origin, text: &str| self.guard.protect(origin, text, stand_ins);
        let mut variables = self.tokens.clone();
        let values = Conversation { edit: &mut protect }.values(input);
        for (name, value) in values {
            variables.insert(name, Value::from(Serde(value)));
        }
        let today = date::Date::parse(input.today);
        let strftime_now = move |format: &str| today.map(|today| today.format(format));
        variables.insert("strftime_now".to_owned(), Value::from_function(strftime_now));
        let text = template.render(context! { ..Value::from(variables) }).map_err(failed)?;
        if text.len() > MAX_OUTPUT {
            return Err(TemplateError::Limit("the prompt is too long"));
        }
        Ok(self.guard.cut(&text, stand_ins))
    }

    fn choose(&self, tools: bool) -> &str {
        let has = |name: &str| self.environment.get_template(name).is_ok();
        match tools && has(TOOL_USE) || !has(DEFAULT) {
            true if has(TOOL_USE) => TOOL_USE,
            _ => DEFAULT,
        }
    }
}

/// The environment that transformers sets up for chat templates.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
    environment.set_syntax(syntax.expect("the usual delimiters"));
    environment.set_undefined_behavior(UndefinedBehavior::Lenient);
    environment.set_fuel(Some(FUEL));
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_filter("tojson", json::to_json);
    environment.add_function("raise_exception", raise_exception);
    environment
}

/// The template's own words on why it gives up.
#[derive(Debug)]
struct Raised(String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

fn raise_exception(_: &State, message: String) -> Result<Value, Error> {
    let error = Error::new(ErrorKind::InvalidOperation, "raise_exception");
    Err(error.with_source(Raised(message)))
}

fn failed(error: Error) -> TemplateError {
    if error.kind() == ErrorKind::OutOfFuel {
        return TemplateError::Limit("too much work or memory");
    }
    let mut source = std::error::Error::source(&error);
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TemplateError::Refused(message.clone());
        }
        if inner.downcast_ref::<Error>().is_some_and(|e| e.kind() == ErrorKind::OutOfFuel) {
            return TemplateError::Limit("too much work or memory");
        }
        source = inner.source();
    }
    TemplateError::Failed(describe(&error))
}

/// What went wrong and in which line.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    match error.line() {
        Some(line) => format!("line {line}: {what}"),
        None => what,
    }
}
