//! Text to token ids and back, for `tokenizer.json` files (BPE and Unigram models).
//!
//! Special tokens are never recognised in text: they enter a prompt as [`Segment::Special`] only,
//! so that no user text can forge one. Apart from that, ids equal those of Hugging Face's fast
//! tokenizers: the segments of a prompt are encoded as one string in which the specials are
//! already marked. Invariant: however ids are fed to a [`Detokenizer`], the joined output equals
//! [`Tokenizer::decode`] of all of them.

mod added;
mod detokenizer;
mod pieces;
#[cfg(test)]
mod tests;

use std::{
    ops::Range,
    panic::catch_unwind,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::Value;
use tokenizers::{
    Model, NormalizedString, Normalizer, OffsetType, PreTokenizedString, PreTokenizer, Token,
    normalizer::Range as Part,
};

pub use detokenizer::Detokenizer;

use crate::checkpoint::{FileError, read_text};
use added::AddedTokens;
use pieces::Pieces;

/// Largest `tokenizer.json` that is read; those of 256k-token vocabularies have about 35 MB.
const MAX_BYTES: u64 = 256 << 20;

/// A part of a prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Plain text; what looks like a special token in it stays text.
    Text(String),
    /// A special token by its literal.
    Special(String),
    /// Ids as they are.
    Tokens(Vec<u32>),
}

/// Why a tokenizer was refused, or a prompt could not be encoded.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// The file cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no `tokenizer.json`.
    #[error(
        "{path}: no such file; save the tokenizer as a fast tokenizer \
         (transformers: AutoTokenizer.from_pretrained(..).save_pretrained(..))"
    )]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// The file does not describe a tokenizer that is understood.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A segment names a special token that the tokenizer does not have.
    #[error("special token {special:?} is not in the tokenizer; it has: {}", known.join(" "))]
    UnknownSpecial {
        /// What was asked for.
        special: String,
        /// Those there are.
        known: Vec<String>,
    },
    /// A segment holds an id beyond the vocabulary.
    #[error("token id {id} is not below the vocabulary's size, {vocabulary}")]
    UnknownToken {
        /// The id.
        id: u32,
        /// Ids there are.
        vocabulary: usize,
    },
}

/// A range of a prompt's text that is already known to be these ids.
struct Mark {
    range: Range<usize>,
    ids: Vec<u32>,
}

struct Inner {
    hugging_face: tokenizers::Tokenizer,
    added: AddedTokens,
    pieces: Pieces,
}

/// A loaded tokenizer; clones share it.
#[derive(Clone)]
pub struct Tokenizer {
    inner: Arc<Inner>,
}

impl Tokenizer {
    /// Loads `tokenizer.json` from a model's directory.
    pub fn load(dir: &Path) -> Result<Self, TokenizerError> {
        let path = dir.join("tokenizer.json");
        let text = match read_text(&path, MAX_BYTES) {
            Err(error) if error.is_not_found() => return Err(TokenizerError::Missing { path }),
            other => other?,
        };
        let json: Value = serde_json::from_str(&text)
            .map_err(|source| FileError::Json { path: path.clone(), source })?;
        let invalid = |reason: String| TokenizerError::Invalid { path: path.clone(), reason };
        check_model(&json).map_err(invalid)?;
        // The parser below panics on some malformed files instead of refusing them.
        let built = catch_unwind(|| Self::build(&text, &json["decoder"]));
        let built = built.unwrap_or_else(|_| Err("its parts contradict each other".to_owned()));
        built.map_err(invalid)
    }

    /// Builds the parts and runs them once, since some faults show in use only.
    fn build(text: &str, decoder: &Value) -> Result<Self, String> {
        let said = |error: tokenizers::Error| error.to_string();
        let mut hugging_face = tokenizers::Tokenizer::from_bytes(text).map_err(said)?;
        hugging_face.with_padding(None);
        hugging_face.with_truncation(None).map_err(said)?;
        let pieces = Pieces::new(&hugging_face, decoder)?;
        let added = AddedTokens::new(&hugging_face);
        let tokenizer = Self { inner: Arc::new(Inner { hugging_face, added, pieces }) };
        tokenizer.run("probe", &[], true).map_err(said)?;
        Ok(tokenizer)
    }

    /// Ids of plain text: special tokens are neither recognised nor added.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.run(text, &[], false).expect("the model was checked to have a token for anything")
    }

    /// Ids of a bare prompt with what the tokenizer adds to one, such as a BOS.
    pub fn encode_prompt(&self, text: &str) -> Vec<u32> {
        self.run(text, &[], true).expect("the model was checked to have a token for anything")
    }

    /// Ids of a prompt in segments, nothing added. Adjacent text counts as one text.
    pub fn encode_segments(&self, segments: &[Segment]) -> Result<Vec<u32>, TokenizerError> {
        let mut text = String::new();
        let mut marks = Vec::new();
        for segment in segments {
            let start = text.len();
            let ids = match segment {
                Segment::Text(part) => {
                    text.push_str(part);
                    continue;
                }
                Segment::Special(special) => {
                    text.push_str(special);
                    vec![self.special_or_error(special)?]
                }
                Segment::Tokens(ids) => {
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.check_ids(ids)?;
                    ids.clone()
                }
            };
            marks.push(Mark { range: start..text.len(), ids });
        }
        self.inner.added.widen(&text, &mut marks);
        let ids = self.run(&text, &marks, false);
        Ok(ids.expect("the model was checked to have a token for anything"))
    }

    /// The text of ids, special tokens written out.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut detokenizer = self.detokenizer(true);
        let mut text: String = ids.iter().map(|&id| detokenizer.push(id)).collect();
        text.push_str(&detokenizer.finish());
        text
    }

    /// The bytes that a token stands for within a text; empty for an id there is not.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        self.inner.pieces.bytes(id).to_vec()
    }

    /// The id of an added token by its literal. Besides the special ones these are tokens such as
    /// `<tool_call>` that some tokenizers add without calling them special.
    pub fn special_id(&self, literal: &str) -> Option<u32> {
        self.inner.added.id(literal)
    }

    /// Whether an id is a special token, which has no place in an answer's text.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner.added.is_special(id)
    }

    /// The special tokens by id.
    pub fn specials(&self) -> Vec<(String, u32)> {
        self.inner.added.specials()
    }

    /// One more than the largest id.
    pub fn vocabulary(&self) -> usize {
        self.inner.pieces.len()
    }

    /// Starts to turn ids into text one by one.
    pub fn detokenizer(&self, keep_specials: bool) -> Detokenizer {
        Detokenizer::new(self.clone(), keep_specials)
    }

    fn special_or_error(&self, special: &str) -> Result<u32, TokenizerError> {
        self.special_id(special).ok_or_else(|| TokenizerError::UnknownSpecial {
            special: special.to_owned(),
            known: self.specials().into_iter().map(|(literal, _)| literal).collect(),
        })
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), TokenizerError> {
        let vocabulary = self.vocabulary();
        match ids.iter().find(|&&id| id as usize >= vocabulary) {
            Some(&id) => Err(TokenizerError::UnknownToken { id, vocabulary }),
            None => Ok(()),
        }
    }

    /// The pipeline of Hugging Face's encoder, with special tokens at `marks` and nowhere else.
    fn run(&self, text: &str, marks: &[Mark], add_specials: bool) -> tokenizers::Result<Vec<u32>> {
        let Inner { hugging_face, added, .. } = &*self.inner;
        let mut string = PreTokenizedString::from(text);
        string.split(|_, whole| Ok(cut(&whole, marks)))?;
        string.split(|_, part| Ok(cut(&part, &added.raw_matches(part.get()))))?;
        string.split(|_, mut part| {
            if let Some(normalizer) = hugging_face.get_normalizer() {
                normalizer.normalize(&mut part)?;
            }
            Ok(cut(&part, &added.normalized_matches(part.get())))
        })?;
        if let Some(pre_tokenizer) = hugging_face.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut string)?;
        }
        string.tokenize(|part| hugging_face.get_model().tokenize(part.get()))?;
        let encoding = string.into_encoding(None, 0, OffsetType::None)?;
        let encoding = hugging_face.post_process(encoding, None, add_specials)?;
        Ok(encoding.get_ids().to_vec())
    }
}

/// Cuts a text at its marks, which are in order and do not overlap.
fn cut(text: &NormalizedString, marks: &[Mark]) -> Vec<(NormalizedString, Option<Vec<Token>>)> {
    let mut parts = Vec::new();
    let slice = |range| text.slice(Part::Normalized(range)).expect("marks lie in the text");
    let mut start = 0;
    for mark in marks {
        parts.push((slice(start..mark.range.start), None));
        let tokens = mark.ids.iter().map(|&id| Token::new(id, String::new(), (0, 0))).collect();
        parts.push((slice(mark.range.clone()), Some(tokens)));
        start = mark.range.end;
    }
    parts.push((slice(start..text.get().len()), None));
    parts
}

/// Refuses models that could fail on some text, or answer differently from time to time.
fn check_model(json: &Value) -> Result<(), String> {
    let model = &json["model"];
    match model["type"].as_str() {
        Some("BPE") => {
            let unknown = &model["unk_token"];
            if unknown.as_str().is_some_and(|token| model["vocab"].get(token).is_none()) {
                return Err(format!("`model.unk_token` {unknown} is not in `model.vocab`"));
            }
            if model["dropout"].as_f64().is_some_and(|dropout| dropout > 0.0) {
                return Err("`model.dropout` must be null: encoding would be random".to_owned());
            }
        }
        Some("Unigram") if model["unk_id"].is_u64() => {}
        Some("Unigram") => return Err("`model.unk_id` must be given".to_owned()),
        _ => {
            return Err(format!("`model.type` must be BPE or Unigram, found {}", model["type"]));
        }
    }
    Ok(())
}
