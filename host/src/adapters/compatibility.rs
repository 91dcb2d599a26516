//! Whether an adapter was trained on the base that is served.

use std::path::Path;

use super::{AdapterError, BaseIdentity, peft_config::PeftConfig};

/// Refuses an adapter that names another base. A fingerprint settles the matter where there is
/// one; otherwise what is stated of name and revision must agree, and what is not stated is
/// taken on trust.
pub(super) fn check(
    path: &Path,
    config: &PeftConfig,
    in_weights: Option<&str>,
    base: &BaseIdentity,
) -> Result<(), AdapterError> {
    let stated = in_weights.or(config.fingerprint.as_deref());
    if stated == Some(base.fingerprint.as_str()) {
        return Ok(());
    }
    let named = config.base.as_deref().is_none_or(|name| is_named(base, name));
    // A branch moves, so that it says nothing about the weights.
    let revision = config.revision.as_deref().filter(|revision| *revision != "main");
    let revised = match (revision, base.revision.as_deref()) {
        (Some(trained), Some(served)) => trained == served,
        _ => true,
    };
    if stated.is_none() && named && revised {
        return Ok(());
    }
    let side = |name: &str, revision: Option<&str>, fingerprint: Option<&str>| {
        let mut text = format!("{name:?}");
        if let Some(revision) = revision {
            text.push_str(&format!(" at revision {revision}"));
        }
        if let Some(fingerprint) = fingerprint {
            text.push_str(&format!(" with fingerprint {fingerprint}"));
        }
        text
    };
    let mut served = side(&base.id, base.revision.as_deref(), Some(&base.fingerprint));
    if !base.aliases.is_empty() {
        served.push_str(&format!(" (aliases {})", base.aliases.join(", ")));
    }
    let name = config.base.as_deref().unwrap_or("an unnamed base");
    Err(AdapterError::BaseMismatch {
        path: path.to_owned(),
        trained: side(name, config.revision.as_deref(), stated),
        served,
    })
}

/// Whether `name`, a repository or a path, may mean the base: it or its last part is one of the
/// base's names or the last part of one.
fn is_named(base: &BaseIdentity, name: &str) -> bool {
    let mut names = std::iter::once(&base.id).chain(&base.aliases);
    names.any(|known| known == name || last_part(known) == last_part(name))
}

fn last_part(name: &str) -> &str {
    name.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or(name)
}
