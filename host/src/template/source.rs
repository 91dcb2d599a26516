//! Where a model's directory keeps its chat templates and names its special tokens.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use fancy_regex::{Captures, Regex};
use serde_json::Value;

use super::DEFAULT;
use crate::checkpoint::{FileError, JsonObject, read_text};

/// Largest template file that is read.
const MAX_BYTES: u64 = 4 << 20;

/// Variables of `tokenizer_config.json` that templates may print.
const TOKENS: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Everything of a model's directory that concerns its templates.
#[derive(Default)]
pub(super) struct Sources {
    /// By name, with the file that each is from.
    pub(super) templates: BTreeMap<String, (PathBuf, String)>,
    /// Literals of the named special tokens.
    pub(super) tokens: BTreeMap<String, String>,
}

impl Sources {
    /// Reads `tokenizer_config.json`, then `chat_template.json`, then `chat_template.jinja`; a
    /// later file's template takes the place of an earlier one's.
    pub(super) fn read(dir: &Path) -> Result<Self, FileError> {
        let mut sources = Self::default();
        for file in ["tokenizer_config.json", "chat_template.json"] {
            if let Some(json) = JsonObject::read_optional(&dir.join(file))? {
                sources.add_tokens(&json)?;
                sources.add_templates(&json)?;
            }
        }
        let path = dir.join("chat_template.jinja");
        match read_text(&path, MAX_BYTES) {
            Err(error) if error.is_not_found() => {}
            text => drop(sources.templates.insert(DEFAULT.to_owned(), (path, text?))),
        }
        Ok(sources)
    }

    fn add_tokens(&mut self, json: &JsonObject) -> Result<(), FileError> {
        for name in TOKENS {
            let literal = match json.get(name) {
                None => continue,
                Some(Value::Object(token)) => token.get("content").and_then(Value::as_str),
                Some(token) => token.as_str(),
            };
            let literal = literal.ok_or_else(|| json.wrong(name, "a token"))?;
            self.tokens.insert(name.to_owned(), literal.to_owned());
        }
        Ok(())
    }

    /// `chat_template` is one template, or a list of named ones.
    fn add_templates(&mut self, json: &JsonObject) -> Result<(), FileError> {
        let wrong = || json.wrong("chat_template", "a template or a list of named templates");
        let named = match json.get("chat_template") {
            None => return Ok(()),
            Some(Value::String(text)) => vec![(DEFAULT, text.as_str())],
            Some(Value::Array(list)) => {
                let pair = |entry: &'_ Value| -> Option<(String, String)> {
                    let text = |key: &str| entry.get(key)?.as_str().map(str::to_owned);
                    Some((text("name")?, text("template")?))
                };
                for entry in list {
                    let (name, text) = pair(entry).ok_or_else(wrong)?;
                    self.templates.insert(name, (json.path().to_owned(), text));
                }
                return Ok(());
            }
            Some(_) => return Err(wrong()),
        };
        for (name, text) in named {
            self.templates.insert(name.to_owned(), (json.path().to_owned(), text.to_owned()));
        }
        Ok(())
    }
}

/// `{% generation %}` marks the assistant's turns for training. It prints what it encloses, so that
/// an `if` that always holds stands in for it, with the same control over blanks.
pub(super) fn without_generation_tags(template: &str) -> String {
    static TAG: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}").expect("a valid pattern")
    });
    let replaced = TAG.replace_all(template, |tag: &Captures| {
        let part = |i| tag.get(i).map_or("", |part| part.as_str());
        let word = if part(2).is_empty() { "if true" } else { "endif" };
        format!("{{%{} {word} {}%}}", part(1), part(3))
    });
    replaced.into_owned()
}
