//! The text of a manifest and where everything stands in it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where a key and its value stand.
#[derive(Debug, Clone)]
pub(super) struct Place {
    /// The key; none for an element of an array.
    pub key: Option<Range<usize>>,
    /// The value; of a table with a header, the header.
    pub value: Range<usize>,
}

/// Where everything stands, by key paths such as `group[0].limits.memory`.
#[derive(Debug, Default)]
pub(super) struct Places {
    places: BTreeMap<String, Place>,
    /// Paths of keys that no manifest has.
    pub unknown: BTreeSet<String>,
    /// Those of them whose values must not be shown.
    pub veiled: BTreeSet<String>,
}

impl Places {
    /// Takes note of everything below `table`.
    pub fn collect(table: &DeTable<'_>) -> Self {
        let mut places = Self::default();
        places.table("", table);
        places
    }

    fn table(&mut self, path: &str, table: &DeTable<'_>) {
        for (key, value) in table {
            self.value(child(path, key.get_ref()), Some(key.span()), value);
        }
    }

    fn value(&mut self, path: String, key: Option<Range<usize>>, value: &Spanned<DeValue<'_>>) {
        match value.get_ref() {
            DeValue::Table(table) => self.table(&path, table),
            DeValue::Array(array) => {
                for (n, element) in array.iter().enumerate() {
                    self.value(format!("{path}[{n}]"), None, element);
                }
            }
            _ => {}
        }
        self.places.insert(path, Place { key, value: value.span() });
    }

    /// Whether the text has this key, whatever its value.
    pub fn has(&self, path: &str) -> bool {
        self.places.contains_key(path)
    }

    /// Where the key stands, or the element.
    pub fn key(&self, path: &str) -> Option<Range<usize>> {
        self.places.get(path).map(|place| place.key.clone().unwrap_or_else(|| place.value.clone()))
    }

    /// Where the value stands; if there is none, the innermost table around it.
    pub fn value_or_parent(&self, path: &str) -> Option<Range<usize>> {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return Some(place.value.clone());
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }

    /// Whether the table `path` has keys that no manifest has.
    pub fn has_unknown_keys(&self, path: &str) -> bool {
        self.unknown.iter().any(|key| key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
    }

    /// Everything, by path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.places.iter().map(|(path, place)| (path.as_str(), place))
    }
}

/// The path of `key` in the table `path`.
pub(super) fn child(path: &str, key: &str) -> String {
    let key = quoted(key);
    if path.is_empty() { key } else { format!("{path}.{key}") }
}

/// A key as it is written in TOML.
pub(super) fn quoted(key: &str) -> String {
    let bare = !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'));
    if bare { key.to_owned() } else { format!("{key:?}") }
}

/// The header of the table `path`, without the numbers of array elements: `[group.limits]`; of the root, `the manifest`.
pub(super) fn header(path: &str) -> String {
    if path.is_empty() {
        return "the manifest".to_owned();
    }
    let list = path.ends_with(']');
    let name = without_indices(path);
    if list { format!("[[{name}]]") } else { format!("[{name}]") }
}

/// A path without the numbers of array elements: `group.limits`.
pub(super) fn without_indices(path: &str) -> String {
    let mut name = String::new();
    let mut inside = false;
    for c in path.chars() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            c if !inside => name.push(c),
            _ => {}
        }
    }
    name
}
