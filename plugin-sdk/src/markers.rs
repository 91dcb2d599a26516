//! Finds markers such as `<tool_call>` in text that comes in chunks cut anywhere. Each byte is
//! looked at once (plus once per chunk for the few held back), and only what may still become a
//! marker is held: the longest end of the text that begins one. So any chunking gives the same
//! pieces once neighbouring texts are joined.

#[cfg(test)]
mod tests;

/// A piece of the scanned text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Text without a marker.
    Text(&'a str),
    /// The marker with this index in the list that was asked for.
    Marker(usize),
}

/// Text on its way in, read piece by piece.
///
/// Each call of [`Scanner::next`] says which markers count now, so a state machine can ask for
/// others after each marker that it meets. Of markers that begin at one place the longest wins.
#[derive(Debug, Default)]
pub struct Scanner {
    text: String,
    /// `text[..read]` is done with.
    read: usize,
    closed: bool,
}

impl Scanner {
    /// Adds text at the end.
    pub fn push(&mut self, text: &str) {
        self.text.drain(..self.read);
        self.read = 0;
        self.text.push_str(text);
    }

    /// Says that no more text comes: the beginning of a marker is plain text now.
    pub fn close(&mut self) {
        self.closed = true;
    }

    /// All text that is not read yet.
    pub fn rest(&self) -> &str {
        &self.text[self.read..]
    }

    /// Reads `bytes` of [`Scanner::rest`] without looking for markers.
    pub fn skip(&mut self, bytes: usize) {
        self.read += bytes;
        assert!(self.text.is_char_boundary(self.read), "skipped into a character");
    }

    /// The next piece that is certain, or none until more text comes.
    pub fn next(&mut self, markers: &[&str]) -> Option<Piece<'_>> {
        let from = self.read;
        let rest = &self.text[from..];
        let (length, found) = self.search(rest, markers);
        if length > 0 {
            self.read += length;
            return Some(Piece::Text(&self.text[from..self.read]));
        }
        let marker = found?;
        self.read += markers[marker].len();
        Some(Piece::Marker(marker))
    }

    /// How much of `rest` is plain text, and the marker behind it if it is complete.
    fn search(&self, rest: &str, markers: &[&str]) -> (usize, Option<usize>) {
        for (at, _) in rest.char_indices() {
            let tail = &rest[at..];
            if !self.closed && markers.iter().any(|m| m.len() > tail.len() && m.starts_with(tail)) {
                return (at, None);
            }
            let complete = (0..markers.len()).filter(|&i| tail.starts_with(markers[i]));
            if let Some(marker) = complete.max_by_key(|&i| markers[i].len()) {
                return (at, Some(marker));
            }
        }
        (rest.len(), None)
    }
}
