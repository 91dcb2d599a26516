//! Chooses an adapter by what the user asks: the first rule of its configuration that fits decides.
//!
//! ```toml
//! config = { default = "chat", rules = [
//!     { adapter = "tools", tools = true },
//!     { adapter = "sql", any = ["table", "select", "how many"] },
//!     { adapter = "math", prefix = ["compute", "what is"], any = ["+", "plus"] },
//! ] }
//! ```
//!
//! A rule fits if each condition it has is met; letter case never matters. A rule whose adapter the
//! host does not have is passed over. Needs the grant `prompt`.

use serde::Deserialize;
use switchyard_plugin::{
    Config, Decision, Kv, Plugin, PluginError, Router, Selection, adapters, prompt, router,
};

#[cfg(test)]
mod tests;

/// How much of the user's text is looked at.
const TEXT_BYTES_MAX: u32 = 32 * 1024;

/// The plugin's configuration.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    rules: Vec<Rule>,
    /// The adapter for what no rule fits; without it the next router is asked.
    default: Option<String>,
    /// Put into the reason of every choice, so that one can see which configuration made it.
    stamp: Option<String>,
}

/// One line of policy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    adapter: String,
    /// At least one of these words or phrases occurs.
    #[serde(default)]
    any: Vec<String>,
    /// All of these words or phrases occur.
    #[serde(default)]
    all: Vec<String>,
    /// The text begins with one of these.
    #[serde(default)]
    prefix: Vec<String>,
    /// The request brings tools, or brings none.
    tools: Option<bool>,
}

impl Rule {
    /// Whether the rule fits `text`, which is in lower case.
    fn fits(&self, text: &str, has_tools: bool) -> bool {
        self.tools.is_none_or(|tools| tools == has_tools)
            && self.all.iter().all(|phrase| occurs(phrase, text))
            && (self.any.is_empty() || self.any.iter().any(|phrase| occurs(phrase, text)))
            && (self.prefix.is_empty()
                || self.prefix.iter().any(|start| text.trim_start().starts_with(start.as_str())))
    }

    fn lower_case(&mut self) {
        for phrase in self.any.iter_mut().chain(&mut self.all).chain(&mut self.prefix) {
            *phrase = phrase.to_lowercase();
        }
    }
}

/// Whether `phrase` occurs in `text` as a whole word: "or" does not occur in "word".
fn occurs(phrase: &str, text: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    text.match_indices(phrase).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let behind = text[at + phrase.len()..].chars().next();
        !(is_letter(before) && is_letter(phrase.chars().next())
            || is_letter(behind) && is_letter(phrase.chars().next_back()))
    })
}

impl Rules {
    /// The adapter of the first rule that fits and whose adapter `exists`, and why.
    fn choose(
        &self,
        text: &str,
        has_tools: bool,
        exists: impl Fn(&str) -> bool,
    ) -> Option<(&str, String)> {
        let text = text.to_lowercase();
        let fits = |rule: &Rule| rule.fits(&text, has_tools) && exists(&rule.adapter);
        if let Some(n) = self.rules.iter().position(fits) {
            return Some((&self.rules[n].adapter, format!("rule {}", n + 1)));
        }
        let default = self.default.as_deref().filter(|adapter| exists(adapter))?;
        Some((default, "default".to_owned()))
    }

    fn decide(&self, chosen: Option<(&str, String)>) -> Decision {
        let Some((adapter, reason)) = chosen else { return Decision::Pass };
        let mut selection = Selection::new(Some(adapter.to_owned()));
        selection.reason = Some(match &self.stamp {
            Some(stamp) => format!("{reason} [{stamp}]"),
            None => reason,
        });
        selection.ext.extend(self.stamp.as_ref().map(|stamp| Kv::new("stamp", stamp)));
        Decision::Select(selection)
    }
}

impl Plugin for Rules {
    const DOC: Option<&'static str> = Some("Chooses an adapter by rules on the user's text");

    fn configure(config: Config) -> Result<Self, String> {
        let mut rules: Self = config.parse()?;
        rules.rules.iter_mut().for_each(Rule::lower_case);
        Ok(rules)
    }
}

impl Router for Rules {
    fn route(&self, request: router::Request) -> Result<Decision, PluginError> {
        let text = prompt::last_user_text(TEXT_BYTES_MAX);
        let exists = |adapter: &str| adapters::get(adapter).is_some();
        Ok(self.decide(self.choose(&text, request.has_tools, exists)))
    }
}

switchyard_plugin::export!(router: Rules);
