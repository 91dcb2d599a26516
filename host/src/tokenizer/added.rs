//! Tokens that stand beside the model's own vocabulary: special ones, and plain words that are
//! kept whole.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use tokenizers::{AddedToken, NormalizedString, Normalizer};

use super::Mark;

/// All added tokens of a tokenizer.
pub(super) struct AddedTokens {
    by_id: BTreeMap<u32, AddedToken>,
    by_literal: HashMap<String, u32>,
    /// Plain tokens that are looked for in text as given.
    raw: Finder,
    /// Plain tokens that are looked for in normalised text.
    normalized: Finder,
}

impl AddedTokens {
    /// Those of a loaded tokenizer.
    pub(super) fn new(tokenizer: &tokenizers::Tokenizer) -> Self {
        let by_id: BTreeMap<_, _> = tokenizer.get_added_tokens_decoder().into_iter().collect();
        let by_literal = by_id.iter().map(|(&id, token)| (token.content.clone(), id)).collect();
        let mut raw = Finder::default();
        let mut normalized = Finder::default();
        for (&id, token) in by_id.iter().filter(|(_, token)| !token.special) {
            if token.normalized {
                let mut literal = NormalizedString::from(token.content.as_str());
                let normalizer = tokenizer.get_normalizer();
                let done = normalizer.map_or(Ok(()), |n| n.normalize(&mut literal));
                if done.is_ok() {
                    normalized.add(literal.get(), id, token);
                }
            } else {
                raw.add(&token.content, id, token);
            }
        }
        Self { by_id, by_literal, raw, normalized }
    }

    /// The id of a literal.
    pub(super) fn id(&self, literal: &str) -> Option<u32> {
        self.by_literal.get(literal).copied()
    }

    /// Whether an id is special.
    pub(super) fn is_special(&self, id: u32) -> bool {
        self.by_id.get(&id).is_some_and(|token| token.special)
    }

    /// The special ones by id.
    pub(super) fn specials(&self) -> Vec<(String, u32)> {
        let specials = self.by_id.iter().filter(|(_, token)| token.special);
        specials.map(|(&id, token)| (token.content.clone(), id)).collect()
    }

    /// Plain added tokens in a text as given.
    pub(super) fn raw_matches(&self, text: &str) -> Vec<Mark> {
        self.raw.find(text)
    }

    /// Plain added tokens in a normalised text.
    pub(super) fn normalized_matches(&self, text: &str) -> Vec<Mark> {
        self.normalized.find(text)
    }

    /// Widens marks of tokens that swallow the blanks before or after them.
    pub(super) fn widen(&self, text: &str, marks: &mut [Mark]) {
        for i in 0..marks.len() {
            let [id] = marks[i].ids[..] else { continue };
            let Some(token) = self.by_id.get(&id) else { continue };
            let before = if i == 0 { 0 } else { marks[i - 1].range.end };
            let after = marks.get(i + 1).map_or(text.len(), |next| next.range.start);
            marks[i].range = stripped(text, (before, after), &marks[i].range, token);
        }
    }
}

/// `range` with the blanks that the token swallows, within `bounds`.
fn stripped(
    text: &str,
    (before, after): (usize, usize),
    range: &std::ops::Range<usize>,
    token: &AddedToken,
) -> std::ops::Range<usize> {
    let mut range = range.clone();
    if token.lstrip {
        range.start = before + text[before..range.start].trim_end().len();
    }
    if token.rstrip {
        let rest = &text[range.end..after];
        range.end += rest.len() - rest.trim_start().len();
    }
    range
}

/// Finds literals in a text, leftmost first and the longest of those that start there.
#[derive(Default)]
struct Finder {
    /// By first byte; the longest literal first.
    by_first: HashMap<u8, Vec<(String, u32, AddedToken)>>,
}

impl Finder {
    fn add(&mut self, literal: &str, id: u32, token: &AddedToken) {
        let Some(&first) = literal.as_bytes().first() else { return };
        let bucket = self.by_first.entry(first).or_default();
        bucket.push((literal.to_owned(), id, token.clone()));
        bucket.sort_by_key(|(literal, ..)| Reverse(literal.len()));
    }

    fn find(&self, text: &str) -> Vec<Mark> {
        let mut marks: Vec<Mark> = Vec::new();
        let mut at = 0;
        while !self.by_first.is_empty() && at < text.len() {
            let bucket = self.by_first.get(&text.as_bytes()[at]).map_or(&[][..], Vec::as_slice);
            let here = |(literal, ..): &&(String, _, _)| {
                text.as_bytes()[at..].starts_with(literal.as_bytes())
            };
            let Some((literal, id, token)) = bucket.iter().find(here) else {
                at += 1;
                continue;
            };
            let range = at..at + literal.len();
            at = range.end;
            if !token.single_word || stands_alone(text, &range) {
                let before = marks.last().map_or(0, |mark| mark.range.end);
                let range = stripped(text, (before, text.len()), &range, token);
                at = range.end;
                marks.push(Mark { range, ids: vec![*id] });
            }
        }
        marks
    }
}

/// Whether no letter, digit or underscore touches `range`.
fn stands_alone(text: &str, range: &std::ops::Range<usize>) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !text[..range.start].ends_with(word) && !text[range.end..].starts_with(word)
}
