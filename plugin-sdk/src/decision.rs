//! Short ways to write what a router and a template return.

use crate::{Decision, Kv, Rendered, Segment, Selection};

impl Decision {
    /// Serves the request with the adapter `name`.
    pub fn adapter(name: impl Into<String>) -> Self {
        Self::Select(Selection::new(Some(name.into())))
    }
}

impl Selection {
    /// An adapter, or the base model, and nothing else.
    pub fn new(adapter: Option<String>) -> Self {
        Self { adapter, fallbacks: Vec::new(), priority: 0, reason: None, ext: Vec::new() }
    }
}

impl Rendered {
    /// A prompt and nothing else.
    pub fn new(segments: Vec<Segment>) -> Self {
        Self {
            segments,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            parser_init: None,
            ext: Vec::new(),
        }
    }
}

impl Kv {
    /// A pair.
    pub fn new(key: impl Into<String>, value: impl Into<String>) -> Self {
        Self { key: key.into(), value: value.into() }
    }
}
