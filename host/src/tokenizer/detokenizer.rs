//! Token ids to text, one by one.

use super::Tokenizer;

/// Text of a growing answer. Bytes of a character that is not complete yet are held back.
pub struct Detokenizer {
    tokenizer: Tokenizer,
    keep_specials: bool,
    /// Whether a token has been taken.
    started: bool,
    /// Blanks that may still be dropped from the start.
    leading_blanks: usize,
    /// At most three bytes: the head of a character.
    held: Vec<u8>,
}

impl Detokenizer {
    pub(super) fn new(tokenizer: Tokenizer, keep_specials: bool) -> Self {
        let leading_blanks = tokenizer.inner.pieces.leading_blanks();
        Self { tokenizer, keep_specials, started: false, leading_blanks, held: Vec::new() }
    }

    /// Takes a token and returns the characters that it completes, often none.
    pub fn push(&mut self, id: u32) -> String {
        let pieces = &self.tokenizer.inner.pieces;
        let skipped = !self.keep_specials && self.tokenizer.is_special(id);
        if skipped || !pieces.contains(id) {
            return String::new();
        }
        let bytes = if self.started { pieces.bytes(id) } else { pieces.first_bytes(id) };
        self.started = true;
        self.held.extend_from_slice(bytes);
        let text = self.take_complete();
        self.without_leading_blanks(text)
    }

    /// Ends the text. A character that was never completed becomes U+FFFD.
    pub fn finish(&mut self) -> String {
        let rest = String::from_utf8_lossy(&std::mem::take(&mut self.held)).into_owned();
        self.without_leading_blanks(rest)
    }

    /// Everything held up to a possibly incomplete last character; broken bytes become U+FFFD.
    fn take_complete(&mut self) -> String {
        let mut text = String::new();
        let mut rest = &self.held[..];
        let incomplete = loop {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    text.push_str(valid);
                    break 0;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    text.push_str(&String::from_utf8_lossy(valid));
                    let Some(broken) = error.error_len() else { break after.len() };
                    text.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[broken..];
                }
            }
        };
        self.held.drain(..self.held.len() - incomplete);
        text
    }

    fn without_leading_blanks(&mut self, text: String) -> String {
        if self.leading_blanks == 0 || text.is_empty() {
            return text;
        }
        let blanks = text.bytes().take_while(|&byte| byte == b' ').count();
        let dropped = blanks.min(self.leading_blanks);
        self.leading_blanks -= dropped;
        if dropped < text.len() {
            self.leading_blanks = 0;
        }
        text[dropped..].to_owned()
    }
}
