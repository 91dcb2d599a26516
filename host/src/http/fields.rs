//! A JSON object read field by field, so that every complaint names the field at fault.

use std::{fmt::Display, ops::RangeInclusive};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::ApiError;

/// The fields of an object that have not been read yet. `null` counts as absent.
#[derive(Debug)]
pub(super) struct Fields {
    /// Empty for the body itself, `messages[0].` within.
    prefix: String,
    object: Map<String, Value>,
}

impl Fields {
    /// Reads a whole body.
    pub(super) fn parse(body: &[u8]) -> Result<Self, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(object)) => Ok(Self { prefix: String::new(), object }),
            Ok(other) => {
                let message = format!("the body must be a JSON object, found {}", kind(&other));
                Err(ApiError::bad_request(message))
            }
            // serde_json's text ends with the line and column.
            Err(error) => {
                Err(ApiError::bad_request(format!("the body is not valid JSON: {error}")))
            }
        }
    }

    /// Reads a value that stands at `path` of the body.
    pub(super) fn nested(value: Value, path: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(object) => Ok(Self { prefix: format!("{path}."), object }),
            other => {
                let problem = format!("must be an object, found {}", kind(&other));
                Err(ApiError::invalid(path, problem))
            }
        }
    }

    /// Where a field stands in the body.
    pub(super) fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Looks without taking.
    pub(super) fn peek(&self, name: &str) -> Option<&Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// Takes a field, of any type.
    pub(super) fn value(&mut self, name: &str) -> Option<Value> {
        self.object.remove(name).filter(|value| !value.is_null())
    }

    /// Takes a field of a type.
    pub(super) fn take<T: DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let read = serde_json::from_value(value);
        read.map(Some).map_err(|error| ApiError::invalid(&self.path(name), error))
    }

    /// Takes a field that must be there.
    pub(super) fn required<T: DeserializeOwned>(&mut self, name: &str) -> Result<T, ApiError> {
        let path = self.path(name);
        self.take(name)?
            .ok_or_else(|| ApiError::bad_request(format!("`{path}` is required")).param(path))
    }

    /// Takes a switch that is off by default.
    pub(super) fn flag(&mut self, name: &str) -> Result<bool, ApiError> {
        Ok(self.take(name)?.unwrap_or(false))
    }

    /// Takes a number within a range.
    pub(super) fn within<T>(
        &mut self,
        name: &str,
        range: &RangeInclusive<T>,
    ) -> Result<Option<T>, ApiError>
    where
        T: DeserializeOwned + PartialOrd + Display,
    {
        let value = self.take::<T>(name)?;
        match value {
            Some(value) if !range.contains(&value) => {
                let (low, high) = (range.start(), range.end());
                let problem = format!("{value} is not between {low} and {high}");
                Err(ApiError::invalid(&self.path(name), problem))
            }
            value => Ok(value),
        }
    }

    /// Takes an array of at most `most` items; absent is empty.
    pub(super) fn list(&mut self, name: &str, most: usize) -> Result<Vec<Value>, ApiError> {
        let items = self.take::<Vec<Value>>(name)?.unwrap_or_default();
        if items.len() > most {
            let problem = format!("{} items are more than the limit of {most}", items.len());
            return Err(ApiError::invalid(&self.path(name), problem));
        }
        Ok(items)
    }
}

/// What a value is, for people.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(body: &str, read: impl Fn(&mut Fields) -> Result<(), ApiError>) -> String {
        let outcome = Fields::parse(body.as_bytes()).and_then(|mut fields| read(&mut fields));
        let error = outcome.expect_err(body).into_body().error;
        format!("{}: {}", error.param.unwrap_or_default(), error.message)
    }

    #[test]
    fn complaints_name_the_place() {
        let nothing = |_: &mut Fields| Ok(());
        assert!(refused("{\"a\":\n tru}", nothing).contains("line 2 column"));
        assert!(refused("[1]", nothing).ends_with("found an array"));
        assert!(refused("\u{0}", nothing).contains("line 1 column 1"));
        let number = |fields: &mut Fields| fields.within("t", &(0.0..=2.0f32)).map(|_| ());
        assert_eq!(refused("{\"t\": 2.5}", number), "t: `t`: 2.5 is not between 0 and 2");
        assert!(refused("{\"t\": \"1\"}", number).starts_with("t: `t`: invalid type: string"));
        assert!(refused("{\"t\": 1e300}", number).starts_with("t: "));
        let count = |fields: &mut Fields| fields.within("n", &(1..=4u32)).map(|_| ());
        assert!(refused("{\"n\": -1}", count).starts_with("n: "));
        assert!(refused("{\"n\": 99999999999999999999}", count).starts_with("n: "));
        let needed = |fields: &mut Fields| fields.required::<String>("model").map(|_| ());
        assert_eq!(refused("{\"model\": null}", needed), "model: `model` is required");
        let nested = |_: &mut Fields| Fields::nested(Value::Null, "tools[3]").map(|_| ());
        assert!(refused("{}", nested).starts_with("tools[3]: "));
    }

    #[test]
    fn deep_nesting_is_refused_not_followed() {
        let body = format!("{{\"a\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        let error = Fields::parse(body.as_bytes()).expect_err("too deep").into_body().error;
        assert!(error.message.contains("recursion limit"), "{}", error.message);
    }
}
