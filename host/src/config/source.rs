//! The texts a configuration is put together from: the file, then the command line's overrides.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use toml::de::DeTable;

use super::{
    diagnostic::Diagnostic,
    node::{self, Entry, Node, Place, Table, Value},
};

/// A configuration is written by hand; more than this is some other file.
const MAX_BYTES: u64 = 1 << 20;

/// One text.
#[derive(Clone, Debug)]
pub(super) struct Source {
    /// The file's path, or the flag.
    pub name: String,
    pub text: String,
    /// What relative paths in it are relative to.
    pub base: PathBuf,
}

/// A value given on the command line. It stays in force over reloads of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Override {
    /// `--set table.key=value`, as typed after `--set`.
    Set(String),
    /// A flag of its own for one key.
    Flag {
        /// The flag, for messages.
        flag: &'static str,
        /// The key it stands for, dotted.
        key: &'static str,
        /// What was typed.
        value: String,
    },
    /// A flag that may be repeated, for a key that holds a list.
    List {
        /// The flag, for messages.
        flag: &'static str,
        /// The key it stands for, dotted.
        key: &'static str,
        /// What was typed, in order.
        values: Vec<String>,
    },
}

/// The sources and the tree they add up to.
#[derive(Default)]
pub(super) struct Sources {
    pub list: Vec<Source>,
    pub root: Table,
    /// What could not be read or parsed.
    pub diagnostics: Vec<Diagnostic>,
}

impl Sources {
    /// Reads the file, if there is one, and lays the overrides on it.
    pub(super) fn read(file: Option<&Path>, overrides: &[Override]) -> Self {
        let mut sources = Self::default();
        if let Some(path) = file {
            sources.add_file(path);
        }
        for given in overrides {
            match given {
                Override::Set(text) => sources.add_set(text),
                Override::Flag { flag, key, value } => {
                    let node = sources.add_typed(flag, value);
                    sources.put(key, node);
                }
                Override::List { flag, key, values } => {
                    let items: Vec<_> =
                        values.iter().map(|value| sources.add_typed(flag, value)).collect();
                    if let Some(place) = items.first().map(|item| item.place) {
                        sources.put(key, Node { value: Value::Array(items), place });
                    }
                }
            }
        }
        sources
    }

    fn add_file(&mut self, path: &Path) {
        let name = path.display().to_string();
        let base = path.parent().map(Path::to_path_buf).unwrap_or_default();
        match read_text(path) {
            Ok(text) => {
                let (table, errors) = parse(self.list.len(), &text);
                self.list.push(Source { name, text, base });
                self.diagnostics.extend(errors);
                node::merge(&mut self.root, table);
            }
            Err(why) => self.diagnostics.push(Diagnostic::general(format!("{name}: {why}"))),
        }
    }

    /// TOML where it parses as such, otherwise a bare string after the first `=`.
    fn add_set(&mut self, text: &str) {
        let source = self.list.len();
        let (mut table, mut errors) = parse(source, text);
        if let (false, Some((key, value))) = (errors.is_empty(), text.split_once('=')) {
            let bare = value.trim();
            if !bare.is_empty() && !bare.starts_with(['"', '\'', '[', '{']) {
                (table, errors) = parse(source, &format!("{key}=0"));
                let start = text.len() - value.trim_start().len();
                let place = Place { source, start, end: start + bare.len() };
                replace_leaf(&mut table, Node { value: Value::String(bare.to_owned()), place });
            }
        }
        if errors.is_empty() && table.is_empty() {
            let place = Place { source, start: 0, end: text.len() };
            errors.push(Diagnostic::at(place, "expected table.key=value".to_owned()));
        }
        self.push_typed("--set", text);
        self.diagnostics.extend(errors);
        node::merge(&mut self.root, table);
    }

    fn add_typed(&mut self, flag: &str, value: &str) -> Node {
        let place = Place { source: self.list.len(), start: 0, end: value.len() };
        self.push_typed(flag, value);
        Node { value: Value::String(value.to_owned()), place }
    }

    fn push_typed(&mut self, flag: &str, text: &str) {
        let (name, text) = (flag.to_owned(), text.to_owned());
        self.list.push(Source { name, text, base: PathBuf::new() });
    }

    fn put(&mut self, key: &str, node: Node) {
        let place = node.place;
        let nested = key.rsplit('.').fold(node, |node, part| {
            let entry = Entry { key: place, node };
            Node { value: Value::Table(Table::from([(part.to_owned(), entry)])), place }
        });
        if let Value::Table(over) = nested.value {
            node::merge(&mut self.root, over);
        }
    }
}

fn read_text(path: &Path) -> Result<String, String> {
    let mut text = String::new();
    let file = File::open(path).map_err(|error| error.to_string())?;
    match file.take(MAX_BYTES + 1).read_to_string(&mut text) {
        Err(error) => Err(error.to_string()),
        Ok(bytes) if bytes as u64 > MAX_BYTES => Err(format!("larger than {MAX_BYTES} bytes")),
        Ok(_) => Ok(text),
    }
}

/// All syntax errors, and what could be read in spite of them.
fn parse(source: usize, text: &str) -> (Table, Vec<Diagnostic>) {
    let (root, errors) = DeTable::parse_recoverable(text);
    let diagnostics = errors.iter().map(|error| {
        let span = error.span().unwrap_or_default();
        Diagnostic::at(Place::new(source, span), error.message().to_owned())
    });
    (node::table(source, root.get_ref()), diagnostics.collect())
}

fn replace_leaf(table: &mut Table, leaf: Node) {
    if let Some(entry) = table.values_mut().next() {
        match &mut entry.node.value {
            Value::Table(inner) => replace_leaf(inner, leaf),
            _ => entry.node = leaf,
        }
    }
}
