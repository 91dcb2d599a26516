//! Keeps values from outside apart from the control tokens that a template writes.
//!
//! Special tokens are found in the rendered text by their literals, so no character that came from
//! outside may be part of a literal there. In every value, the first character of each literal is
//! replaced by a *stand-in*: the same code point in a private plane of Unicode that nothing else
//! in the conversation uses. So is one character of a value's head or tail (with and without
//! outer blanks) that a template or another value could complete to a literal. A stand-in counts
//! as one character, so that lengths and slices in templates come out the same.

use super::conversation::Origin;
use crate::tokenizer::Segment;

/// Private and unassigned planes, in order of preference.
const PLANES: [u32; 13] = [15, 16, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 14];
const PLANE: u32 = 0x1_0000;

/// The literals of a tokenizer's special tokens.
pub(super) struct Guard {
    /// The longest first.
    literals: Vec<String>,
    /// By byte: whether a literal starts with it.
    firsts: [bool; 256],
}

/// The planes that texts use, one bit each.
#[derive(Clone, Copy, Default)]
pub(super) struct Planes(u32);

impl Planes {
    pub(super) fn add(&mut self, text: &str) {
        text.chars().for_each(|c| self.0 |= 1 << (u32::from(c) / PLANE));
    }

    /// Stand-ins from a plane that is not used, if there is one.
    pub(super) fn free(self) -> Option<StandIns> {
        PLANES.into_iter().find(|plane| self.0 & (1 << plane) == 0).map(StandIns)
    }
}

/// The plane that stand-ins are taken from.
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
        let mut firsts = [false; 256];
        for literal in &literals {
            firsts[usize::from(literal.as_bytes()[0].to_ascii_lowercase())] = true;
        }
        Self { literals, firsts }
    }

    /// Whether a literal starts with the byte, in either case: most bytes are settled here.
    fn may_start(&self, byte: u8) -> bool {
        self.firsts[usize::from(byte.to_ascii_lowercase())]
    }

    /// The form of a text in which no part of it can become part of a literal.
    pub(super) fn protect(&self, origin: Origin, text: &str, stand_ins: StandIns) -> String {
        let mut hidden = vec![false; text.len()];
        let trimmed = text.trim();
        let lead = text.len() - text.trim_start().len();
        for (i, byte) in text.bytes().enumerate() {
            let here = |literal: &String| starts_with(&text[i..], literal);
            hidden[i] = self.may_start(byte) && self.literals.iter().any(here);
        }
        for literal in &self.literals {
            for (part, start) in [(text, 0), (trimmed, lead)] {
                mark_borders(part, literal, &mut hidden[start..start + part.len()]);
                if is_inner(part, literal, origin) {
                    hidden[start] = true;
                }
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
            let found =
                self.may_start(text.as_bytes()[at]).then(|| self.literals.iter().find(here));
            let Some(literal) = found.flatten() else {
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
}

/// Whether `text` could be the inside of `literal`. Plain words count in names only: templates
/// compare other words, and put no brackets around them.
fn is_inner(text: &str, literal: &str, origin: Origin) -> bool {
    let word = text.chars().all(|c| c.is_alphanumeric() || c == '_');
    let possible = origin == Origin::Name || !word;
    possible && !text.is_empty() && text.len() < literal.len() && find(literal, text).is_some()
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
