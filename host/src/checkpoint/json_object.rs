//! A JSON object from a file whose keys are read one by one, so that errors can name them.

use std::{
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{FileError, read_text};

/// Largest configuration file that is read.
const MAX_BYTES: u64 = 16 << 20;

/// An object in a JSON file. An explicit `null` reads as absent, as Hugging Face writes it.
#[derive(Clone, Debug)]
pub(crate) struct JsonObject {
    path: PathBuf,
    /// Dotted keys that lead here, with a final dot; empty at the top.
    prefix: String,
    map: Map<String, Value>,
}

impl JsonObject {
    /// Reads a file that holds one object.
    pub(crate) fn read(path: &Path) -> Result<Self, FileError> {
        let text = read_text(path, MAX_BYTES)?;
        let map = serde_json::from_str(&text)
            .map_err(|source| FileError::Json { path: path.to_owned(), source })?;
        Ok(Self { path: path.to_owned(), prefix: String::new(), map })
    }

    /// As [`JsonObject::read`], `None` where there is no such file.
    pub(crate) fn read_optional(path: &Path) -> Result<Option<Self>, FileError> {
        match Self::read(path) {
            Err(error) if error.is_not_found() => Ok(None),
            other => other.map(Some),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keys in file order, with those that hold `null`.
    pub(crate) fn keys(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// A value that is there and not `null`.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// A whole number within `range`.
    pub(crate) fn count(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<Option<usize>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let count = value.as_u64().and_then(|count| usize::try_from(count).ok());
        match count.filter(|count| range.contains(count)) {
            Some(count) => Ok(Some(count)),
            None => {
                let (low, high) = range.into_inner();
                Err(self.wrong(key, format!("a whole number from {low} to {high}")))
            }
        }
    }

    /// As [`JsonObject::count`], and it must be there.
    pub(crate) fn required_count(
        &self,
        key: &str,
        range: RangeInclusive<usize>,
    ) -> Result<usize, FileError> {
        let expected = || format!("a whole number from {} to {}", range.start(), range.end());
        self.count(key, range.clone())?.ok_or_else(|| self.wrong(key, expected()))
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, key: &str) -> Result<Option<f64>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|number| (*number as f32).is_finite() && *number as f32 > 0.0) {
            Some(number) => Ok(Some(number)),
            None => Err(self.wrong(key, "a number above 0")),
        }
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self, key: &str) -> Result<Option<bool>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false"))
    }

    /// A string.
    pub(crate) fn text(&self, key: &str) -> Result<Option<&str>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string"))
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Self>, FileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let map = value.as_object().ok_or_else(|| self.wrong(key, "an object"))?.clone();
        let prefix = format!("{}{key}.", self.prefix);
        Ok(Some(Self { path: self.path.clone(), prefix, map }))
    }

    /// The error for a key whose value is not what it must be.
    pub(crate) fn wrong(&self, key: &str, expected: impl Into<String>) -> FileError {
        const SHOWN: usize = 80;
        let mut found = self.map.get(key).map_or("nothing".to_owned(), Value::to_string);
        if found.chars().count() > SHOWN {
            found = found.chars().take(SHOWN).chain("...".chars()).collect();
        }
        FileError::Value {
            path: self.path.clone(),
            key: format!("{}{key}", self.prefix),
            expected: expected.into(),
            found,
        }
    }
}
