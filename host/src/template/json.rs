//! The `tojson` filter: JSON as Python's `json.dumps` spells it.

use minijinja::{Error, ErrorKind, Value, value::Kwargs};

/// How to write.
struct Style {
    /// Blanks per level; `None` writes everything on one line.
    indent: Option<usize>,
    ascii: bool,
    sorted: bool,
    separators: (String, String),
}

/// Deepest indentation per level that is written.
const MAX_INDENT: usize = 16;

/// `value | tojson(indent=None, ensure_ascii=False, separators=None, sort_keys=False)`
pub(super) fn to_json(value: &Value, kwargs: Kwargs) -> Result<Value, Error> {
    let indent = kwargs.get::<Option<usize>>("indent")?.map(|indent| indent.min(MAX_INDENT));
    let separators = kwargs.get::<Option<Vec<String>>>("separators")?;
    let style = Style {
        indent,
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        separators: match separators.as_deref() {
            Some([item, key]) => (item.clone(), key.clone()),
            None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
            _ => (", ".to_owned(), ": ".to_owned()),
        },
    };
    kwargs.assert_all_used()?;
    let json = serde_json::to_value(value)
        .map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    let mut out = String::new();
    style.write(&json, 0, &mut out);
    Ok(Value::from(out))
}

impl Style {
    fn write(&self, value: &serde_json::Value, depth: usize, out: &mut String) {
        match value {
            serde_json::Value::Null => out.push_str("null"),
            serde_json::Value::Bool(flag) => out.push_str(if *flag { "true" } else { "false" }),
            serde_json::Value::Number(number) => match number.as_f64() {
                Some(float) if number.is_f64() => out.push_str(&python_float(float)),
                _ => out.push_str(&number.to_string()),
            },
            serde_json::Value::String(text) => self.write_string(text, out),
            serde_json::Value::Array(items) => {
                let items = items.iter().map(|item| (None, item));
                self.write_items(('[', ']'), items, depth, out);
            }
            serde_json::Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().map(|(k, v)| (Some(k.as_str()), v)).collect();
                if self.sorted {
                    entries.sort_by_key(|(key, _)| *key);
                }
                self.write_items(('{', '}'), entries.into_iter(), depth, out);
            }
        }
    }

    fn write_items<'a>(
        &self,
        (open, close): (char, char),
        items: impl ExactSizeIterator<Item = (Option<&'a str>, &'a serde_json::Value)>,
        depth: usize,
        out: &mut String,
    ) {
        let empty = items.len() == 0;
        out.push(open);
        for (i, (key, value)) in items.enumerate() {
            if i > 0 {
                out.push_str(&self.separators.0);
            }
            self.new_line(depth + 1, out);
            if let Some(key) = key {
                self.write_string(key, out);
                out.push_str(&self.separators.1);
            }
            self.write(value, depth + 1, out);
        }
        if !empty {
            self.new_line(depth, out);
        }
        out.push(close);
    }

    fn new_line(&self, depth: usize, out: &mut String) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent * depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                '\0'..='\x1f' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
                // Planes beyond the emoji stay as they are: stand-ins live there.
                '\x7f'..='\u{3ffff}' if self.ascii && !c.is_ascii() => {
                    let mut units = [0; 2];
                    for unit in c.encode_utf16(&mut units) {
                        out.push_str(&format!("\\u{unit:04x}"));
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A float as Python's `repr` writes it.
fn python_float(float: f64) -> String {
    let text = format!("{float:?}");
    match text.split_once('e') {
        Some((digits, exponent)) => {
            let (sign, exponent) =
                exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
        None => text,
    }
}
