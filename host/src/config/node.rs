//! Configuration values as written: each knows the text it came from.
//!
//! The TOML parser's borrowed tree is copied into this owned one, so that a file and the command
//! line's overrides can be merged while every value keeps its own [`Place`].

use std::{collections::BTreeMap, ops::Range};

use serde_spanned::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a key or value stands: a half-open byte range of one of the sources.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Index into the list of sources.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Place {
    pub(super) fn new(source: usize, span: Range<usize>) -> Self {
        Self { source, start: span.start, end: span.end }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub value: Value,
    pub place: Place,
}

/// What TOML can say.
#[derive(Clone, Debug)]
pub(super) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Datetime(String),
    Array(Vec<Node>),
    Table(Table),
}

/// Keys in byte order.
pub(super) type Table = BTreeMap<String, Entry>;

/// A key's own place and its value.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub key: Place,
    pub node: Node,
}

impl Value {
    /// The kind, with its article, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Float(_) => "a float",
            Self::Boolean(_) => "a boolean",
            Self::Datetime(_) => "a date",
            Self::Array(_) => "an array",
            Self::Table(_) => "a table",
        }
    }

    /// The value as a plugin sees it; a date becomes its text.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match self {
            Self::String(text) | Self::Datetime(text) => text.as_str().into(),
            Self::Integer(number) => (*number).into(),
            Self::Float(number) => (*number).into(),
            Self::Boolean(flag) => (*flag).into(),
            Self::Array(items) => items.iter().map(|item| item.value.to_json()).collect(),
            Self::Table(table) => serde_json::Value::Object(
                table
                    .iter()
                    .map(|(key, entry)| (key.clone(), entry.node.value.to_json()))
                    .collect(),
            ),
        }
    }
}

/// Copies a parsed table; numbers that fit no 64-bit type become their text, which no key takes.
pub(super) fn table(source: usize, parsed: &DeTable<'_>) -> Table {
    let entries = parsed.iter().map(|(key, value)| {
        let entry = Entry { key: Place::new(source, key.span()), node: node(source, value) };
        (key.get_ref().to_string(), entry)
    });
    entries.collect()
}

fn node(source: usize, parsed: &Spanned<DeValue<'_>>) -> Node {
    let value = match parsed.get_ref() {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => Value::String(number.to_string()),
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => Value::String(number.to_string()),
        },
        DeValue::Boolean(flag) => Value::Boolean(*flag),
        DeValue::Datetime(date) => Value::Datetime(date.to_string()),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| node(source, item)).collect())
        }
        DeValue::Table(inner) => Value::Table(table(source, inner)),
    };
    Node { value, place: Place::new(source, parsed.span()) }
}

/// Lays `over` on `base`: tables merge key by key, anything else is replaced.
pub(super) fn merge(base: &mut Table, over: Table) {
    for (key, entry) in over {
        match (base.get_mut(&key), entry) {
            (
                Some(Entry { node: Node { value: Value::Table(below), .. }, .. }),
                Entry { node: Node { value: Value::Table(above), .. }, .. },
            ) => merge(below, above),
            (_, entry) => {
                base.insert(key, entry);
            }
        }
    }
}
