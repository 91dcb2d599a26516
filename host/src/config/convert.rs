//! Conversions from written values to typed ones, with complaints that say what was expected.

use std::{fmt::Display, ops::RangeInclusive, time::Duration};

use super::{
    node::{Node, Place, Value},
    schema, units,
};

/// What a conversion has against a value; the reader puts the key's name before it.
pub(super) struct Complaint {
    pub place: Place,
    pub text: String,
    pub hint: String,
}

/// A value converted, or the complaint.
pub(super) type Reading<T> = Result<T, Complaint>;

impl Node {
    /// The value is wrong in this way.
    pub(super) fn complaint(&self, text: impl Into<String>) -> Complaint {
        Complaint { place: self.place, text: text.into(), hint: String::new() }
    }

    fn expected(&self, what: &str) -> Complaint {
        let found = match &self.value {
            Value::String(text) => format!("{text:?}"),
            Value::Integer(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        self.complaint(format!("must be {what}, not {found}"))
    }

    /// A string, where `what` is expected.
    pub(super) fn text(&self, what: &str) -> Reading<&str> {
        match &self.value {
            Value::String(text) => Ok(text),
            _ => Err(self.expected(what)),
        }
    }

    /// Any text.
    pub(super) fn string(&self) -> Reading<String> {
        self.text("a string").map(str::to_owned)
    }

    /// A name: letters, digits and `-`, `_`, `.`, `/`, `:`, so that it reads well in URLs and logs.
    pub(super) fn name(&self) -> Reading<String> {
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | ':');
        self.parsed("a name of letters, digits and -_./:", |text| {
            let good = !text.is_empty() && text.len() <= 128 && text.chars().all(fits);
            good.then(|| text.to_owned())
        })
    }

    /// Text that `parse` understands; `what` says what that is.
    pub(super) fn parsed<T>(
        &self,
        what: &str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Reading<T> {
        parse(self.text(what)?).ok_or_else(|| self.expected(what))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Reading<bool> {
        match self.value {
            Value::Boolean(flag) => Ok(flag),
            _ => Err(self.expected("true or false")),
        }
    }

    /// A whole number in the range.
    pub(super) fn count(&self, range: RangeInclusive<usize>) -> Reading<usize> {
        let Value::Integer(number) = self.value else {
            return Err(self.expected("a whole number"));
        };
        let within = usize::try_from(number).ok().filter(|number| range.contains(number));
        within.ok_or_else(|| self.outside(range.start(), range.end(), number))
    }

    /// A size such as "16MiB" in the range of bytes.
    pub(super) fn size(&self, range: RangeInclusive<u64>) -> Reading<usize> {
        let bytes = self.parsed("a size such as \"16MiB\"", units::size)?;
        if !range.contains(&bytes) {
            let (low, high) = (units::show_size(*range.start()), units::show_size(*range.end()));
            return Err(self.outside(low, high, units::show_size(bytes)));
        }
        usize::try_from(bytes).map_err(|_| self.complaint("is too large for this machine"))
    }

    /// A duration such as "30s" in the range.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Reading<Duration> {
        let duration = self.parsed("a duration such as \"30s\" or \"250ms\"", units::duration)?;
        if !range.contains(&duration) {
            let [low, high, found] =
                [*range.start(), *range.end(), duration].map(units::show_duration);
            return Err(self.outside(low, high, found));
        }
        Ok(duration)
    }

    fn outside(&self, low: impl Display, high: impl Display, found: impl Display) -> Complaint {
        self.complaint(format!("must be between {low} and {high}, not {found}"))
    }

    /// One of the named values.
    pub(super) fn choice<T: Clone>(&self, choices: &[(&str, T)]) -> Reading<T> {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        let quoted: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
        let what = match quoted.as_slice() {
            [only] => only.clone(),
            several => format!("one of {}", several.join(", ")),
        };
        let text = self.text(&what)?;
        match choices.iter().find(|(name, _)| *name == text) {
            Some((_, value)) => Ok(value.clone()),
            None => {
                let hint = match schema::nearest(text, &names) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => String::new(),
                };
                Err(Complaint { hint, ..self.expected(&what) })
            }
        }
    }

    /// An array of at most `limit` items, each converted.
    pub(super) fn list<T>(
        &self,
        limit: usize,
        convert: impl FnMut(&Self) -> Reading<T>,
    ) -> Reading<Vec<T>> {
        match &self.value {
            Value::Array(items) if items.len() > limit => {
                Err(self.complaint(format!("must have at most {limit} items, not {}", items.len())))
            }
            Value::Array(items) => items.iter().map(convert).collect(),
            _ => Err(self.expected("an array")),
        }
    }

    /// A table of strings.
    pub(super) fn strings(&self, limit: usize) -> Reading<Vec<(String, String)>> {
        match &self.value {
            Value::Table(table) if table.len() > limit => {
                Err(self.complaint(format!("must have at most {limit} keys, not {}", table.len())))
            }
            Value::Table(table) => {
                let pairs =
                    table.iter().map(|(key, entry)| Ok((key.clone(), entry.node.string()?)));
                pairs.collect()
            }
            _ => Err(self.expected("a table of strings")),
        }
    }

    /// A table, as JSON.
    pub(super) fn json(&self) -> Reading<serde_json::Value> {
        match &self.value {
            Value::Table(_) => Ok(self.value.to_json()),
            _ => Err(self.expected("a table")),
        }
    }
}
