//! Which linears a PEFT configuration means, and which of its patterns applies to one.

use fancy_regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::checkpoint::{FileError, JsonObject};

/// Steps a pattern may take on one name; patterns come with adapters and names are short.
const BACKTRACK_LIMIT: usize = 100_000;

/// A selection of modules by name: `target_modules` or `exclude_modules`.
pub(super) enum Selection {
    /// Every linear of the decoder layers.
    All,
    /// Whole-name regular expression.
    Pattern(Regex),
    /// Names or ends of names.
    Names(Vec<String>),
}

impl Selection {
    /// Reads a key that may hold a list, a pattern or `all-linear`.
    pub(super) fn read(json: &JsonObject, key: &str) -> Result<Option<Self>, FileError> {
        match json.get(key) {
            None => Ok(None),
            Some(Value::String(all)) if all == "all-linear" => Ok(Some(Self::All)),
            Some(Value::String(pattern)) => {
                let pattern = compile(&format!("^(?:{pattern})$"));
                Ok(Some(Self::Pattern(pattern.map_err(|error| {
                    json.wrong(key, format!("a regular expression ({error})"))
                })?)))
            }
            Some(value) => {
                let names = value.as_array().and_then(|names| {
                    names.iter().map(|name| name.as_str().map(str::to_owned)).collect()
                });
                let names = names.ok_or_else(|| json.wrong(key, "a list of names or a pattern"));
                Ok(Some(Self::Names(names?)))
            }
        }
    }

    /// Whether it takes a module in.
    pub(super) fn contains(&self, module: &str) -> bool {
        match self {
            Self::All => true,
            Self::Pattern(pattern) => pattern.is_match(module).unwrap_or(false),
            Self::Names(names) => names.iter().any(|name| is_suffix(name, module)),
        }
    }

    /// The first listed name that takes none of `modules` in.
    pub(super) fn idle_name(&self, modules: &[String]) -> Option<&str> {
        let Self::Names(names) = self else { return None };
        let idle = |name: &&String| !modules.iter().any(|module| is_suffix(name, module));
        names.iter().find(idle).map(String::as_str)
    }
}

/// Whether `module` is `name` or ends with its dotted parts.
fn is_suffix(name: &str, module: &str) -> bool {
    module.strip_suffix(name).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

/// `rank_pattern` or `alpha_pattern`: values for modules whose name ends in a pattern's match. The
/// first pattern in the order of the file applies.
pub(super) struct Patterns(Vec<(Regex, f64)>);

impl Patterns {
    /// Reads a key that holds an object of pattern to number.
    pub(super) fn read(json: &JsonObject, key: &str) -> Result<Self, FileError> {
        let Some(object) = json.object(key)? else { return Ok(Self(Vec::new())) };
        let mut patterns = Vec::new();
        for pattern in object.keys() {
            let value = object.positive(pattern)?;
            let value = value.ok_or_else(|| object.wrong(pattern, "a number above 0"))?;
            let regex = compile(&format!(r"^(?:.*\.)?(?:{pattern})$"));
            let regex = regex.map_err(|error| {
                json.wrong(key, format!("an object of regular expressions ({pattern}: {error})"))
            })?;
            patterns.push((regex, value));
        }
        Ok(Self(patterns))
    }

    /// The value for a module, if a pattern applies.
    pub(super) fn value(&self, module: &str) -> Option<f64> {
        let matching = |(regex, _): &&(Regex, f64)| regex.is_match(module).unwrap_or(false);
        self.0.iter().find(matching).map(|(_, value)| *value)
    }
}

fn compile(pattern: &str) -> Result<Regex, Box<fancy_regex::Error>> {
    RegexBuilder::new(pattern).backtrack_limit(BACKTRACK_LIMIT).build().map_err(Box::new)
}
