//! The fields of an event or a span.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};

/// The most of one value that a line takes; guests and errors of others may say a lot.
const MAX_VALUE: usize = 16 << 10;

/// The fields by name, each as what it is: a text, a number or a boolean.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fields(pub BTreeMap<&'static str, Value>);

impl Fields {
    /// Takes the fields of a span in.
    pub fn take_in(&mut self, span: &Self) {
        self.0.extend(span.0.iter().map(|(name, value)| (*name, value.clone())));
    }

    /// A field as text, without quotes.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).map(plain)
    }

    /// The fields of a JSON object.
    #[cfg(test)]
    pub fn of(object: Value) -> Self {
        let Value::Object(map) = object else { panic!("{object} is no object") };
        // The names of real fields are in the program.
        Self(map.into_iter().map(|(name, value)| (&*name.leak(), value)).collect())
    }

    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        let name = field.name();
        // `r#type` and its like are written so for Rust's sake alone.
        self.0.insert(name.strip_prefix("r#").unwrap_or(name), value.into());
    }

    fn put_text(&mut self, field: &Field, mut text: String) {
        if text.len() > MAX_VALUE {
            let cut = text.len() - MAX_VALUE;
            text.truncate(text.floor_char_boundary(MAX_VALUE));
            text.push_str(&format!("… ({cut} bytes cut)"));
        }
        self.put(field, text);
    }
}

/// A value as text, without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put_text(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put_text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(error) = source {
            text.push_str(&format!(": {error}"));
            source = error.source();
        }
        self.put_text(field, text);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

/// The number of an epoch, however it was recorded.
pub fn epoch(value: &Value) -> Option<u64> {
    match value {
        Value::String(text) => text.strip_prefix('e').unwrap_or(text).parse().ok(),
        other => other.as_u64(),
    }
}
