//! Every key there is, and whether a change of it needs a restart.
//!
//! The list serves to find unknown keys, to suggest near ones, to plan a reload and to test that
//! `config.toml` documents each of them. `*` stands for a name the operator chose.

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applies {
    /// At once, for requests that start from then on.
    Live,
    /// Only in a new process.
    AtRestart,
}

use Applies::{AtRestart, Live};

/// All keys, sections in the order of `config.toml`.
pub(super) const KEYS: &[(&str, Applies)] = &[
    ("server.listen", AtRestart),
    ("server.drain_timeout", AtRestart),
    ("server.request_timeout", Live),
    ("server.body_limit", Live),
    ("model.path", AtRestart),
    ("model.id", AtRestart),
    ("model.aliases", AtRestart),
    ("model.dtype", AtRestart),
    ("engine.device", AtRestart),
    ("engine.isa", AtRestart),
    ("engine.threads", AtRestart),
    ("engine.memory", AtRestart),
    ("engine.max_running", AtRestart),
    ("engine.max_step_tokens", AtRestart),
    ("engine.max_waiting", AtRestart),
    ("adapters.dirs", Live),
    ("adapters.cache", AtRestart),
    ("adapters.host_memory", Live),
    ("adapters.options.*.allow_base_mismatch", Live),
    ("adapters.options.*.tags", Live),
    ("plugins.*.name", Live),
    ("plugins.*.path", Live),
    ("plugins.*.config", Live),
    ("plugins.*.memory", Live),
    ("plugins.*.deadline", Live),
    ("plugins.*.output", Live),
    ("plugins.*.grant", Live),
    ("limits.requests", Live),
    ("limits.choices", Live),
    ("limits.messages", Live),
    ("limits.tools", Live),
    ("limits.stop", Live),
    ("limits.logprobs", Live),
    ("log.level", Live),
    ("log.format", AtRestart),
];

/// The next part of every key that begins with `section` (empty for the root), without repeats.
pub(super) fn children(section: &str) -> Vec<&'static str> {
    let mut found: Vec<&'static str> = Vec::new();
    for (key, _) in KEYS.iter().copied() {
        let rest = match section {
            "" => Some(key),
            _ => key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.')),
        };
        let part = rest.and_then(|rest| rest.split('.').next());
        if let Some(part) = part.filter(|part| !found.contains(part)) {
            found.push(part);
        }
    }
    found
}

/// When a change of the key takes effect; `pattern` is one of [`KEYS`] or a section of live keys.
pub(super) fn applies(pattern: &str) -> Applies {
    KEYS.iter().find(|(key, _)| *key == pattern).map_or(Live, |(_, applies)| *applies)
}

/// What the writer of an unknown key most likely meant: a near key of the section, or a key of
/// that very name elsewhere.
pub(super) fn suggest(section: &str, unknown: &str) -> Option<String> {
    let near = nearest(unknown, &children(section)).map(str::to_owned);
    near.or_else(|| {
        let elsewhere = KEYS.iter().find(|(key, _)| key.rsplit('.').next() == Some(unknown));
        elsewhere.map(|(key, _)| (*key).to_owned())
    })
}

/// The candidate within a third of the word's length in edits, if any.
pub(super) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let lower = word.to_lowercase();
    let scored = candidates.iter().map(|candidate| {
        let distance = strsim::damerau_levenshtein(&lower, candidate);
        (distance, *candidate)
    });
    let (distance, best) = scored.filter(|(_, candidate)| *candidate != "*").min()?;
    let length = lower.chars().count().max(best.chars().count());
    (distance <= length.div_ceil(3)).then_some(best)
}
