//! What is wrong with a configuration: every error at once, each with the line it stands on.

use std::fmt::{self, Write};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};

use super::{node::Place, source::Source};

/// One error.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Diagnostic {
    /// `None` where no text is at fault, such as a missing file.
    pub place: Option<Place>,
    pub title: String,
    /// Written beside the carets; may be empty.
    pub hint: String,
}

impl Diagnostic {
    pub(super) fn at(place: Place, title: String) -> Self {
        Self { place: Some(place), title, hint: String::new() }
    }

    pub(super) fn general(title: String) -> Self {
        Self { place: None, title, hint: String::new() }
    }

    pub(super) fn hint(mut self, hint: String) -> Self {
        self.hint = hint;
        self
    }

    fn render(&self, sources: &[Source], renderer: &Renderer) -> String {
        let title = Level::ERROR.primary_title(normalize_untrusted_str(&self.title));
        let Some((place, source)) = self.place.and_then(|p| Some((p, sources.get(p.source)?)))
        else {
            let mut group = Group::with_title(title);
            if !self.hint.is_empty() {
                group = group.element(Level::HELP.message(normalize_untrusted_str(&self.hint)));
            }
            return renderer.render(&[group]);
        };
        let end = source.text.len();
        let span = place.start.min(end)..place.end.min(end);
        let mut mark = AnnotationKind::Primary.span(span);
        if !self.hint.is_empty() {
            mark = mark.label(normalize_untrusted_str(&self.hint));
        }
        let snippet = Snippet::source(source.text.as_str()).path(source.name.as_str());
        renderer.render(&[title.element(snippet.annotation(mark))])
    }
}

/// Why a configuration was refused; prints all that is wrong with it.
#[derive(Clone, Debug)]
pub struct ConfigError {
    pub(super) sources: Vec<Source>,
    /// At least one.
    pub(super) diagnostics: Vec<Diagnostic>,
}

impl ConfigError {
    pub(super) fn new(sources: Vec<Source>, mut diagnostics: Vec<Diagnostic>) -> Self {
        diagnostics.sort();
        diagnostics.dedup();
        Self { sources, diagnostics }
    }

    /// The text for a terminal (`styled`) or a log.
    pub fn render(&self, styled: bool) -> String {
        let renderer = if styled { Renderer::styled() } else { Renderer::plain() };
        let mut text = String::new();
        for diagnostic in &self.diagnostics {
            text.push_str(&diagnostic.render(&self.sources, &renderer));
            text.push_str("\n\n");
        }
        let count = self.diagnostics.len();
        let plural = if count == 1 { "" } else { "s" };
        // Writing to a string cannot fail.
        let _ = write!(text, "the configuration has {count} error{plural}");
        text
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

impl std::error::Error for ConfigError {}

/// `file:line:column` of a place, both counted from 1, the column in characters.
pub(super) fn locate(sources: &[Source], place: Place) -> String {
    let source = &sources[place.source];
    let before = &source.text[..place.start.min(source.text.len())];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("{}:{line}:{column}", source.name)
}
