//! JSON as Python's `json.dumps(value, ensure_ascii=False)` writes it, which is what models were
//! trained on: `", "` between items and `": "` behind keys.

use std::io;

use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, Serializer};
use switchyard_plugin::PluginError;

struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }
}

/// A string as JSON.
pub(crate) fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// JSON text in Python's spacing, its keys in the order they came.
pub(crate) fn python(json: &str) -> Result<String, PluginError> {
    let invalid = |error: serde_json::Error| PluginError::InvalidInput(format!("JSON: {error}"));
    let value: Value = serde_json::from_str(json).map_err(invalid)?;
    let mut out = Vec::with_capacity(json.len());
    value.serialize(&mut Serializer::with_formatter(&mut out, Python)).map_err(invalid)?;
    String::from_utf8(out).map_err(|error| PluginError::Internal(error.to_string()))
}
