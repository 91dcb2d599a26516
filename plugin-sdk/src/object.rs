//! Follows one JSON object that comes in chunks and hands out the text of each value as it arrives,
//! so that the arguments of a tool call can be streamed while the model writes them. Values are
//! handed out as written; brackets must match and text outside of strings must be made of JSON's
//! characters, so prose after a broken call is noticed at once.

#[cfg(test)]
mod tests;

/// Brackets open at the same time, at most.
pub const DEPTH_MAX: usize = 128;

/// What comes next in the object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<'k, 't> {
    /// More text of the value under `key` as written; may be empty where only its end is told.
    Value {
        /// The key.
        key: &'k str,
        /// The next part of the value.
        text: &'t str,
        /// Whether the value ends here.
        complete: bool,
    },
    /// The object is closed; what is left of the text stands behind it.
    End,
    /// This is not JSON; what is left of the text begins where it stopped to be.
    Broken,
    /// All text is used up.
    More,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    FirstKey,
    Key,
    InKey,
    Colon,
    Value,
    InValue,
    AfterValue,
    End,
    Broken,
}

/// How a byte stands to the value that is read.
enum Byte {
    Inside,
    /// It belongs to the value and ends it.
    Last,
    /// The value, a bare word or number, ended before it.
    Behind,
    Broken,
}

/// The place in an object between two chunks.
#[derive(Debug)]
pub struct ObjectScanner {
    at: At,
    key: String,
    /// Closing brackets that the value still needs, inmost last.
    closers: Vec<u8>,
    in_string: bool,
    escaped: bool,
    /// Whether the value is a number or a bare word.
    bare: bool,
}

impl Default for ObjectScanner {
    fn default() -> Self {
        Self {
            at: At::Start,
            key: String::new(),
            closers: Vec::new(),
            in_string: false,
            escaped: false,
            bare: false,
        }
    }
}

impl ObjectScanner {
    /// Reads on in `text`, which is advanced past what was read.
    pub fn next<'t>(&mut self, text: &mut &'t str) -> Step<'_, 't> {
        loop {
            match self.at {
                At::End => return Step::End,
                At::Broken => return Step::Broken,
                At::InValue => return self.value(text),
                At::InKey => {
                    if !self.key(text) {
                        return Step::More;
                    }
                }
                between => {
                    *text = text.trim_start_matches([' ', '\t', '\r', '\n']);
                    let Some(&byte) = text.as_bytes().first() else { return Step::More };
                    self.at = after(between, byte);
                    match self.at {
                        At::Broken => return Step::Broken,
                        // The first byte of a value belongs to it.
                        At::InValue => self.bare = false,
                        At::InKey => {
                            self.key.clear();
                            *text = &text[1..];
                        }
                        _ => *text = &text[1..],
                    }
                }
            }
        }
    }

    /// Reads to the end of a key; whether it was reached.
    fn key(&mut self, text: &mut &str) -> bool {
        for (at, byte) in text.bytes().enumerate() {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.key.push_str(&text[..at]);
                    *text = &text[at + 1..];
                    self.at = At::Colon;
                    return true;
                }
                _ => {}
            }
        }
        self.key.push_str(text);
        *text = "";
        false
    }

    /// Reads on in a value.
    fn value<'t>(&mut self, text: &mut &'t str) -> Step<'_, 't> {
        let whole = *text;
        for (at, byte) in whole.bytes().enumerate() {
            let (length, next) = match self.value_byte(byte) {
                Byte::Inside => continue,
                Byte::Last => (at + 1, At::AfterValue),
                Byte::Behind => (at, At::AfterValue),
                Byte::Broken if at == 0 => {
                    self.at = At::Broken;
                    return Step::Broken;
                }
                Byte::Broken => (at, At::Broken),
            };
            self.at = next;
            *text = &whole[length..];
            let complete = next == At::AfterValue;
            return Step::Value { key: &self.key, text: &whole[..length], complete };
        }
        if whole.is_empty() {
            return Step::More;
        }
        *text = "";
        Step::Value { key: &self.key, text: whole, complete: false }
    }

    /// Where the next byte of a value stands.
    fn value_byte(&mut self, byte: u8) -> Byte {
        let top = self.closers.is_empty();
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    self.in_string = false;
                    return if top { Byte::Last } else { Byte::Inside };
                }
                _ => {}
            }
            return Byte::Inside;
        }
        match byte {
            b',' | b' ' | b'\t' | b'\r' | b'\n' if top => return Byte::Behind,
            b'}' if top && self.bare => return Byte::Behind,
            b'"' | b'{' | b'[' | b':' if top && self.bare => return Byte::Broken,
            b'{' | b'[' if self.closers.len() == DEPTH_MAX => return Byte::Broken,
            b'"' => self.in_string = true,
            b'{' => self.closers.push(b'}'),
            b'[' => self.closers.push(b']'),
            b'}' | b']' if self.closers.pop() != Some(byte) => return Byte::Broken,
            b'}' | b']' if self.closers.is_empty() => return Byte::Last,
            b'}' | b']' | b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            b'+' | b'-' | b'.' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => self.bare |= top,
            _ => return Byte::Broken,
        }
        Byte::Inside
    }
}

/// What follows `at` when the next byte that is not white space is `byte`.
fn after(at: At, byte: u8) -> At {
    match (at, byte) {
        (At::Start, b'{') => At::FirstKey,
        (At::FirstKey | At::Key, b'"') => At::InKey,
        (At::FirstKey | At::AfterValue, b'}') => At::End,
        (At::Colon, b':') => At::Value,
        (At::Value, b',' | b':' | b'}' | b']') => At::Broken,
        (At::Value, _) => At::InValue,
        (At::AfterValue, b',') => At::Key,
        _ => At::Broken,
    }
}
