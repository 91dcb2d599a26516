//! A prompt as it grows: special tokens apart from the text between them.

use switchyard_plugin::Segment;

/// The prompt so far; text is joined until a special token comes.
#[derive(Default)]
pub(crate) struct Prompt {
    segments: Vec<Segment>,
    text: String,
}

impl Prompt {
    /// Begins a turn.
    pub(crate) fn begin(&mut self, role: &str) {
        self.special("<|im_start|>");
        self.text(role);
        self.text("\n");
    }

    /// A whole turn.
    pub(crate) fn turn(&mut self, role: &str, content: &str) {
        self.begin(role);
        self.text(content);
        self.special("<|im_end|>");
        self.text("\n");
    }

    /// Adds what is never special.
    pub(crate) fn text(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// The segments.
    pub(crate) fn finish(mut self) -> Vec<Segment> {
        self.flush();
        self.segments
    }

    fn special(&mut self, token: &str) {
        self.flush();
        self.segments.push(Segment::Special(token.to_owned()));
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.segments.push(Segment::Text(std::mem::take(&mut self.text)));
        }
    }
}
