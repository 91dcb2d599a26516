//! What each token id stands for, in bytes.
//!
//! Decoders of Llama-family tokenizers come in two kinds. A *byte-level* vocabulary writes every
//! byte as one printable character. A *SentencePiece* vocabulary writes blanks as `▁` and has
//! tokens `<0x00>` to `<0xFF>` for what it has no piece for. Either way a token is a fixed string
//! of bytes, up to blanks at the very start of a text, so that decoding is joining bytes. Where
//! ids spell bytes that are not UTF-8, each broken sequence becomes one U+FFFD.

use serde_json::Value;
use tokenizers::Tokenizer;

/// Largest vocabulary that is taken.
const MAX_VOCABULARY: u32 = 1 << 22;

/// The bytes of every token, and what happens at the start of a text.
pub(super) struct Pieces {
    /// By id; empty where there is no such token.
    bytes: Vec<Box<[u8]>>,
    /// By id, for decoders that treat the first token apart; otherwise empty.
    first: Vec<Box<[u8]>>,
    /// Blanks that are dropped from the start of a text.
    leading_blanks: usize,
}

impl Pieces {
    /// Works out the bytes of every token under `decoder`, the decoder of `tokenizer.json`.
    pub(super) fn new(tokenizer: &Tokenizer, decoder: &Value) -> Result<Self, String> {
        let rules = Rules::new(decoder)?;
        let largest = tokenizer.get_vocab(true).into_values().max().unwrap_or(0);
        if largest >= MAX_VOCABULARY {
            return Err(format!("token id {largest} is beyond the limit of {MAX_VOCABULARY}"));
        }
        let tokens = || (0..=largest).map(|id| tokenizer.id_to_token(id).unwrap_or_default());
        let bytes = tokens().map(|token| rules.bytes(&token)).collect();
        let first = match rules.dropped_first {
            None => Vec::new(),
            Some(mark) => tokens().map(|token| rules.bytes(&token.replace(mark, ""))).collect(),
        };
        Ok(Self { bytes, first, leading_blanks: rules.leading_blanks })
    }

    /// One more than the largest id.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes of a token within a text.
    pub(super) fn bytes(&self, id: u32) -> &[u8] {
        self.bytes.get(id as usize).map_or(&[], |bytes| bytes)
    }

    /// The bytes of a token that is a text's first.
    pub(super) fn first_bytes(&self, id: u32) -> &[u8] {
        self.first.get(id as usize).map_or(self.bytes(id), |bytes| bytes)
    }

    /// Whether there is such a token.
    pub(super) fn contains(&self, id: u32) -> bool {
        (id as usize) < self.bytes.len()
    }

    /// Blanks that are dropped from the start of a text.
    pub(super) fn leading_blanks(&self) -> usize {
        self.leading_blanks
    }
}

/// How a decoder turns a token into bytes.
#[derive(Default)]
struct Rules {
    byte_level: bool,
    byte_fallback: bool,
    /// Literal replacements, in order.
    replaced: Vec<(String, String)>,
    /// Character that a text's first token loses.
    dropped_first: Option<char>,
    leading_blanks: usize,
}

impl Rules {
    fn new(decoder: &Value) -> Result<Self, String> {
        let mut rules = Self::default();
        match (decoder["type"].as_str(), decoder["decoders"].as_array()) {
            (Some("Sequence"), Some(steps)) => {
                steps.iter().try_for_each(|step| rules.add(step))?;
            }
            _ => rules.add(decoder)?,
        }
        Ok(rules)
    }

    fn add(&mut self, step: &Value) -> Result<(), String> {
        let refuse = || {
            Err(format!(
                "`decoder` step {step} is not supported; supported: ByteLevel, Metaspace, \
                 ByteFallback, Fuse, Replace of a string, Strip of leading blanks"
            ))
        };
        match step["type"].as_str() {
            Some("ByteLevel") => self.byte_level = true,
            Some("ByteFallback") => self.byte_fallback = true,
            Some("Fuse") => {}
            Some("Replace") => match (step["pattern"]["String"].as_str(), &step["content"]) {
                (Some(from), Value::String(to)) if !from.is_empty() => {
                    self.replaced.push((from.to_owned(), to.clone()));
                }
                _ => return refuse(),
            },
            Some("Strip") => match (&step["content"], step["start"].as_u64(), &step["stop"]) {
                (Value::String(blank), Some(start), stop) if blank == " " && *stop == 0 => {
                    self.leading_blanks += start as usize;
                }
                _ => return refuse(),
            },
            Some("Metaspace") => {
                let Some(mark) = step["replacement"].as_str().and_then(single_char) else {
                    return refuse();
                };
                self.replaced.push((mark.to_string(), " ".to_owned()));
                let never = step["prepend_scheme"] == "never" || step["add_prefix_space"] == false;
                self.dropped_first = (!never).then_some(mark);
            }
            _ => return refuse(),
        }
        Ok(())
    }

    fn bytes(&self, token: &str) -> Box<[u8]> {
        if self.byte_level
            && let Some(bytes) = token.chars().map(byte_of_char).collect::<Option<Vec<_>>>()
        {
            return bytes.into();
        }
        if self.byte_fallback
            && let Some(byte) = fallback_byte(token)
        {
            return [byte].into();
        }
        let mut text = token.to_owned();
        for (from, to) in &self.replaced {
            text = text.replace(from, to);
        }
        text.into_bytes().into()
    }
}

fn single_char(text: &str) -> Option<char> {
    let mut chars = text.chars();
    chars.next().filter(|_| chars.next().is_none())
}

/// `<0x0A>` is byte 10.
fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// The byte that a character of a byte-level vocabulary stands for: printable Latin-1 characters
/// stand for themselves, the other 68 bytes follow from U+0100 on in order.
fn byte_of_char(c: char) -> Option<u8> {
    let printable = |byte: u8| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    match u32::from(c) {
        code @ 0..=0xff => u8::try_from(code).ok().filter(|&byte| printable(byte)),
        code => (0..=0xff).filter(|&byte| !printable(byte)).nth(code as usize - 0x100),
    }
}
