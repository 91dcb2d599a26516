//! Typed reading of the merged tree: collects every complaint instead of stopping at the first.
//!
//! What is read is also recorded as a setting, so that the diff of two configurations is complete
//! by construction.

use std::{collections::BTreeMap, fmt::Debug, path::PathBuf};

use super::{
    convert::{Complaint, Reading},
    diagnostic::{Diagnostic, locate},
    node::{Entry, Node, Place, Table, Value},
    schema::{self, Applies},
    source::Source,
};

/// The effective value of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As debug text, to be compared and shown.
    pub value: String,
    /// When a change takes effect.
    pub applies: Applies,
    /// `file:line:column`; `None` for a built-in default.
    pub place: Option<String>,
}

/// A table being read.
pub(super) struct Section<'a> {
    /// Dotted, with the operator's names in it.
    pub path: String,
    /// Dotted, with `*` for the operator's names.
    pub pattern: String,
    table: Option<&'a Table>,
    place: Option<Place>,
}

impl Section<'_> {
    fn key(&self, key: &str) -> String {
        join(&self.path, key)
    }
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// Knows what relative paths are relative to.
#[derive(Clone, Copy)]
pub(super) struct Resolver<'a> {
    sources: &'a [Source],
}

impl Resolver<'_> {
    /// A path; a relative one starts at the directory of the text that names it.
    pub(super) fn resolve(self, node: &Node) -> Reading<PathBuf> {
        let text = node.text("a path")?;
        if text.is_empty() {
            return Err(node.complaint("must not be empty"));
        }
        Ok(self.sources[node.place.source].base.join(text))
    }
}

/// Reads sections, gathers diagnostics and settings.
pub(super) struct Reader<'a> {
    sources: &'a [Source],
    pub diagnostics: Vec<Diagnostic>,
    pub settings: BTreeMap<String, Setting>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a [Source]) -> Self {
        Self { sources, diagnostics: Vec::new(), settings: BTreeMap::new() }
    }

    /// The whole tree as a section.
    pub(super) fn root(&mut self, table: &'a Table) -> Section<'a> {
        let section = Section {
            path: String::new(),
            pattern: String::new(),
            table: Some(table),
            place: None,
        };
        self.refuse_unknown(&section);
        section
    }

    /// A table inside another; an absent one reads as empty.
    pub(super) fn section(&mut self, parent: &Section<'a>, key: &str) -> Section<'a> {
        let (path, pattern) = (parent.key(key), join(&parent.pattern, key));
        let entry = parent.table.and_then(|table| table.get(key));
        self.open(path, pattern, entry.map(|entry| &entry.node))
    }

    /// The tables inside a table whose keys are the operator's names.
    pub(super) fn named(&mut self, parent: &Section<'a>) -> Vec<(&'a str, Section<'a>)> {
        let pattern = join(&parent.pattern, "*");
        let entries = parent.table.into_iter().flatten();
        let sections = entries.map(|(name, entry)| {
            (name.as_str(), self.open(parent.key(name), pattern.clone(), Some(&entry.node)))
        });
        sections.collect()
    }

    /// The tables of an array; each is called by its `name`, else by its number from 1.
    pub(super) fn tables(&mut self, parent: &Section<'a>, key: &str) -> Vec<Section<'a>> {
        let Some(entry) = parent.table.and_then(|table| table.get(key)) else {
            return Vec::new();
        };
        let Value::Array(items) = &entry.node.value else {
            let text = format!("must be written as [[{key}]], not as {}", entry.node.value.kind());
            self.complain(key, Complaint { place: entry.key, text, hint: String::new() });
            return Vec::new();
        };
        let pattern = join(&parent.pattern, &format!("{key}.*"));
        let sections = items.iter().enumerate().map(|(index, item)| {
            let name = match &item.value {
                Value::Table(table) => table.get("name"),
                _ => None,
            };
            let name = match name.map(|entry| &entry.node.value) {
                Some(Value::String(name)) => name.clone(),
                _ => (index + 1).to_string(),
            };
            self.open(parent.key(&format!("{key}.{name}")), pattern.clone(), Some(item))
        });
        sections.collect()
    }

    fn open(&mut self, path: String, pattern: String, node: Option<&'a Node>) -> Section<'a> {
        let table = match node.map(|node| &node.value) {
            Some(Value::Table(table)) => Some(table),
            None => None,
            Some(other) => {
                let place = node.map(|node| node.place);
                let title = format!("`{path}` must be a table, not {}", other.kind());
                self.diagnostics.push(Diagnostic { place, title, hint: String::new() });
                None
            }
        };
        let section = Section { path, pattern, table, place: node.map(|node| node.place) };
        self.refuse_unknown(&section);
        section
    }

    fn refuse_unknown(&mut self, section: &Section<'a>) {
        let known = schema::children(&section.pattern);
        if known.contains(&"*") {
            return;
        }
        for (key, entry) in section.table.into_iter().flatten() {
            if known.contains(&key.as_str()) {
                continue;
            }
            let place = match section.path.as_str() {
                "" => "at the top level".to_owned(),
                path => format!("in [{path}]"),
            };
            let hint = match schema::suggest(&section.pattern, key) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            let title = format!("unknown key `{key}` {place}");
            self.diagnostics.push(Diagnostic::at(entry.key, title).hint(hint));
        }
    }

    /// The key's value, or `default` where it is absent or refused.
    pub(super) fn get<T: Debug>(
        &mut self,
        section: &Section<'a>,
        key: &str,
        default: T,
        convert: impl FnOnce(&Node) -> Reading<T>,
    ) -> T {
        let entry = section.table.and_then(|table| table.get(key));
        let value = match entry.map(|entry| convert(&entry.node)) {
            Some(Ok(value)) => value,
            Some(Err(complaint)) => {
                self.complain(&section.key(key), complaint);
                default
            }
            None => default,
        };
        self.record(section, key, entry, format!("{value:?}"));
        value
    }

    /// The value of a key that has no default; its absence is an error.
    pub(super) fn require<T: Debug>(
        &mut self,
        section: &Section<'a>,
        (key, why): (&str, &str),
        convert: impl FnOnce(&Node) -> Reading<T>,
    ) -> Option<T> {
        let refused = section.table.is_none() && section.place.is_some();
        if !refused && !section.table.is_some_and(|table| table.contains_key(key)) {
            let title = format!("`{}` is missing", section.key(key));
            let place = section.place;
            self.diagnostics.push(Diagnostic { place, title, hint: why.to_owned() });
        }
        self.get(section, key, None, |node| convert(node).map(Some))
    }

    /// What turns paths as written into paths; separate, so that it can be used while reading.
    pub(super) fn resolver(&self) -> Resolver<'a> {
        Resolver { sources: self.sources }
    }

    /// Notes a value that is not one key's own, such as the order of a list of tables.
    pub(super) fn note(&mut self, key: &str, value: String) {
        let setting = Setting { value, applies: schema::applies(key), place: None };
        self.settings.insert(key.to_owned(), setting);
    }

    /// Complains about a value that was read well but does not fit with others.
    pub(super) fn refuse(&mut self, section: &Section<'a>, key: &str, text: &str) {
        let entry = section.table.and_then(|table| table.get(key));
        let place = entry.map(|entry| entry.node.place).or(section.place);
        let title = format!("`{}` {text}", section.key(key));
        self.diagnostics.push(Diagnostic { place, title, hint: String::new() });
    }

    fn complain(&mut self, path: &str, complaint: Complaint) {
        let title = format!("`{path}` {}", complaint.text);
        self.diagnostics.push(Diagnostic::at(complaint.place, title).hint(complaint.hint));
    }

    fn record(&mut self, section: &Section<'a>, key: &str, entry: Option<&Entry>, value: String) {
        let applies = schema::applies(&join(&section.pattern, key));
        let place = entry.map(|entry| locate(self.sources, entry.key));
        self.settings.insert(section.key(key), Setting { value, applies, place });
    }
}
