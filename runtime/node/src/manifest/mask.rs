//! Keeps secrets out of the excerpts of error messages.

use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

use super::document::{Places, without_indices};
use super::schema;

/// The text of a valid document with everything masked that may be a secret. Offsets into it stay what they were.
///
/// Masked are: what stands in `[coordination.auth]` besides the documented keys, the user information of an address, the
/// values of `[group.config]` and `[group.grants.env]`, what belongs to keys that nobody knows, and every value whose
/// key speaks of a secret.
pub(super) fn mask(text: &str, places: &Places) -> String {
    let spans = places
        .iter()
        .filter(|(path, place)| {
            let value = text.get(place.value.clone()).unwrap_or_default();
            !value.starts_with(['[', '{']) && (is_secret(path, value) || is_below(path, &places.veiled))
        })
        .map(|(_, place)| place.value.clone());
    stars(text, spans)
}

/// The same for a text that is not valid TOML. What stands where is then a guess, so that only lines are left as they are
/// which look as if nothing in them could be a secret.
pub(super) fn mask_broken(text: &str) -> String {
    let known = keys();
    let mut spans = Vec::new();
    let mut doubtful = false;
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.trim_end().len();
        let trimmed = line.trim();
        if let Some(name) = header(trimmed) {
            doubtful = ["config", "env", "auth"].iter().any(|secret| name.split('.').any(|part| part == *secret));
        } else if let Some((key, value)) = line.split_once('=') {
            if !is_harmless(key.trim(), value.trim(), &known, doubtful) {
                let leading = value.len() - value.trim_start().len();
                let from = start + key.len() + 1 + leading;
                spans.push(if is_bare(key.trim()) { from..end.max(from) } else { start..end });
            }
        } else if !trimmed.is_empty() {
            // A part of a value, or a header that went wrong: then nobody knows what the next lines belong to.
            doubtful |= trimmed.starts_with('[') || trimmed.ends_with(']');
            spans.push(start..end);
        }
        start += line.len();
    }
    stars(text, spans.into_iter())
}

fn stars(text: &str, spans: impl Iterator<Item = Range<usize>>) -> String {
    let mut masked = text.to_owned();
    for span in spans {
        let Some(part) = text.get(span.clone()) else { continue };
        let stars: String = part
            .chars()
            .flat_map(|c| {
                let kept = matches!(c, '"' | '\'' | '\n' | '\r' | '[' | ']' | '{' | '}');
                std::iter::repeat_n(if kept { c } else { '*' }, c.len_utf8())
            })
            .collect();
        masked.replace_range(span, &stars);
    }
    masked
}

fn is_secret(path: &str, value: &str) -> bool {
    let path = without_indices(path);
    let key = path.rsplit('.').next().unwrap_or(&path);
    if let Some(key) = path.strip_prefix("coordination.auth.") {
        return match key {
            "scheme" | "user" | "password_file" => false,
            "password_env" => !is_variable(value),
            _ => true,
        };
    }
    // Tables that are no tables: what was written instead may be anything.
    matches!(path.as_str(), "coordination.auth" | "group.config")
        || path.starts_with("group.config.")
        || path.starts_with("group.grants.env.")
        // An element of a list of names; somebody may write `NAME=value` there.
        || (path == "group.grants.env" && !is_variable(value))
        || ((is_address(key) || path == "group.grants.http") && value.contains('@'))
        || (key == "component" && holds_access(value))
        // A private key in the place of a public one.
        || (path.starts_with("signatures.keys") && !value.contains(":ed25519:"))
        || speaks_of_a_secret(key)
}

fn is_below(path: &str, tops: &BTreeSet<String>) -> bool {
    tops.iter()
        .any(|top| path.strip_prefix(top.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '['])))
}

/// Whether a value is the name of an environment variable, and not what the variable should hold.
fn is_variable(value: &str) -> bool {
    value.trim_matches(['"', '\'']).chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn is_address(key: &str) -> bool {
    matches!(key, "connect" | "advertise" | "listen" | "admin")
}

/// Whether an address shows who asks: by user information before its host, or in its query.
fn holds_access(value: &str) -> bool {
    value.split_once("://").is_some_and(|(_, rest)| {
        rest.contains('?') || rest.split('/').next().is_some_and(|authority| authority.contains('@'))
    })
}

fn speaks_of_a_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    !key.ends_with("_env")
        && !key.ends_with("_file")
        && ["pass", "secret", "token", "credential"].iter().any(|word| key.contains(word))
}

/// Whether a line of a broken text can be shown.
fn is_harmless(key: &str, value: &str, known: &BTreeSet<String>, doubtful: bool) -> bool {
    let documented = match key {
        "scheme" | "user" | "password_file" => true,
        "password_env" => is_variable(value),
        _ => !doubtful && known.contains(key),
    };
    let table = value.contains(['{', '=']) || matches!(key, "config" | "env" | "auth" | "labels");
    documented && !table && !value.contains(['@', '?']) && key != "keys"
}

fn is_bare(key: &str) -> bool {
    !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
}

/// The name in a table's header.
fn header(line: &str) -> Option<&str> {
    let name = line.strip_prefix('[')?.strip_suffix(']')?;
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).trim();
    is_bare(name).then_some(name)
}

/// Every key that a manifest may have, of whatever table.
fn keys() -> BTreeSet<String> {
    fn search(schema: &Value, found: &mut BTreeSet<String>) {
        for (key, schema) in schema["properties"].as_object().into_iter().flatten() {
            found.insert(key.clone());
            search(schema, found);
        }
        if schema["items"].is_object() {
            search(&schema["items"], found);
        }
    }
    let mut found = BTreeSet::new();
    search(schema::shared(), &mut found);
    found
}
