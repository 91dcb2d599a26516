//! Keeps values from outside apart from the control tokens that a template writes.
//!
//! Special tokens are found in the rendered text by their literals, so no character that came from
//! outside may be part of a literal there. In every value, the first character of each literal is
//! replaced by a *stand-in*: the same code point in a private plane of Unicode that nothing else
//! in the conversation uses. So is one character of a value's head or tail (with and without
//! outer blanks) that a template or another value could complete to a literal. A stand-in counts
//! as one character, so that lengths and slices in templates come out the same.

use serde_json::{Map, Value};

use crate::tokenizer::Segment;

/// Private and unassigned planes, in order of preference.
const PLANES: [u32; 13] = [15, 16, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 14];
const PLANE: u32 = 0x1_0000;

/// The literals of a tokenizer's special tokens.
pub(super) struct Guard {
    /// The longest first.
    literals: Vec<String>,
}

/// The plane that stand-ins were taken from.
#[derive(Clone, Copy)]
pub(super) struct StandIns(u32);

impl StandIns {
    fn hide(self, c: char) -> char {
        let code = u32::from(c);
        let hidden = (code < PLANE - 2).then(|| char::from_u32(self.0 * PLANE + code)).flatten();
        hidden.unwrap_or(char::REPLACEMENT_CHARACTER)
    }

    fn show(self, c: char) -> char {
        let code = u32::from(c);
        if code / PLANE != self.0 { c } else { char::from_u32(code % PLANE).unwrap_or(c) }
    }
}

impl Guard {
    pub(super) fn new(mut literals: Vec<String>) -> Self {
        literals.retain(|literal| !literal.is_empty());
        literals.sort_by_key(|literal| std::cmp::Reverse(literal.len()));
        Self { literals }
    }

    /// Breaks whatever could become part of a literal. `None` if no plane is free.
    pub(super) fn protect(&self, values: &mut Map<String, Value>) -> Option<StandIns> {
        let mut used = 0u32;
        for_each_text(values, &mut |text| {
            text.chars().for_each(|c| used |= 1 << (u32::from(c) / PLANE));
        });
        let plane = PLANES.into_iter().find(|plane| used & (1 << plane) == 0)?;
        let stand_ins = StandIns(plane);
        let guarded = std::mem::take(values).into_iter().map(|(name, value)| match name.as_str() {
            "messages" => (name, self.guard_messages(value, stand_ins)),
            _ => (name, self.guard_value(value, stand_ins)),
        });
        *values = guarded.collect();
        Some(stand_ins)
    }

    /// Roles are the host's own words.
    fn guard_messages(&self, messages: Value, stand_ins: StandIns) -> Value {
        let Value::Array(messages) = messages else { return messages };
        let guarded = messages.into_iter().map(|mut message| {
            let role = message.get_mut("role").map(Value::take);
            let mut message = self.guard_value(message, stand_ins);
            if let (Some(role), Some(place)) = (role, message.get_mut("role")) {
                *place = role;
            }
            message
        });
        guarded.collect()
    }

    fn guard_value(&self, value: Value, stand_ins: StandIns) -> Value {
        match value {
            Value::String(text) => self.guard_text(&text, stand_ins).into(),
            Value::Array(list) => {
                list.into_iter().map(|value| self.guard_value(value, stand_ins)).collect()
            }
            Value::Object(map) => {
                let guarded = map.into_iter().map(|(key, value)| {
                    (self.guard_text(&key, stand_ins), self.guard_value(value, stand_ins))
                });
                Value::Object(guarded.collect())
            }
            other => other,
        }
    }

    fn guard_text(&self, text: &str, stand_ins: StandIns) -> String {
        let mut hidden = vec![false; text.len()];
        let trimmed = text.trim();
        let lead = text.len() - text.trim_start().len();
        for literal in &self.literals {
            let mut from = 0;
            while let Some(at) = find(&text[from..], literal) {
                hidden[from + at] = true;
                from += at + text[from + at..].chars().next().map_or(1, char::len_utf8);
            }
            for (part, start) in [(text, 0), (trimmed, lead)] {
                mark_borders(part, literal, &mut hidden[start..start + part.len()]);
            }
        }
        let chars = text.char_indices();
        chars.map(|(i, c)| if hidden[i] { stand_ins.hide(c) } else { c }).collect()
    }

    /// Cuts rendered text at literals and puts hidden characters back.
    pub(super) fn cut(&self, text: &str, stand_ins: StandIns) -> Vec<Segment> {
        let show = |text: &str| Segment::Text(text.chars().map(|c| stand_ins.show(c)).collect());
        let mut segments = Vec::new();
        let (mut start, mut at) = (0, 0);
        while at < text.len() {
            let here = |literal: &&String| text.as_bytes()[at..].starts_with(literal.as_bytes());
            let Some(literal) = self.literals.iter().find(here) else {
                at += 1;
                continue;
            };
            if start < at {
                segments.push(show(&text[start..at]));
            }
            segments.push(Segment::Special(literal.clone()));
            at += literal.len();
            start = at;
        }
        if start < text.len() {
            segments.push(show(&text[start..]));
        }
        segments
    }
}

/// Marks one character of a head or tail of `text` that could be completed to `literal`.
fn mark_borders(text: &str, literal: &str, hidden: &mut [bool]) {
    let borders = literal.char_indices().map(|(i, _)| i).skip(1);
    for border in borders {
        let (head, tail) = literal.split_at(border);
        if ends_with(text, head) {
            hidden[text.len() - head.len()] = true;
        }
        if starts_with(text, tail) {
            let last = tail.char_indices().next_back().map_or(0, |(i, _)| i);
            hidden[last] = true;
        }
    }
    if !text.is_empty() && text.len() < literal.len() && find(literal, text).is_some() {
        hidden[0] = true;
    }
}

/// As `str::find`, blind to the case of ASCII letters: templates may change it.
fn find(text: &str, part: &str) -> Option<usize> {
    let (text, part) = (text.as_bytes(), part.as_bytes());
    text.windows(part.len().max(1)).position(|window| window.eq_ignore_ascii_case(part))
}

fn starts_with(text: &str, part: &str) -> bool {
    text.get(..part.len()).is_some_and(|head| head.eq_ignore_ascii_case(part))
}

fn ends_with(text: &str, part: &str) -> bool {
    let start = text.len().checked_sub(part.len());
    start.and_then(|start| text.get(start..)).is_some_and(|tail| tail.eq_ignore_ascii_case(part))
}

/// Calls `visit` with every string and key.
fn for_each_text(map: &Map<String, Value>, visit: &mut impl FnMut(&str)) {
    for (key, value) in map {
        visit(key);
        for_each_text_of(value, visit);
    }
}

fn for_each_text_of(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(list) => list.iter().for_each(|value| for_each_text_of(value, visit)),
        Value::Object(map) => for_each_text(map, visit),
        _ => {}
    }
}
