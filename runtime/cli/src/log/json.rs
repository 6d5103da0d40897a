//! A line for a program.

use std::collections::BTreeMap;
use std::time::SystemTime;

use serde::Serialize;
use serde_json::Value;

use super::Line;
use super::fields::epoch;

/// The fields that stand at the top, beside what every line has.
const TOP: [&str; 4] = ["node", "group", "epoch", "message"];

#[derive(Serialize)]
struct Object<'a> {
    timestamp: String,
    level: &'a str,
    target: &'a str,
    #[serde(flatten)]
    top: BTreeMap<&'a str, &'a Value>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<&'a str, &'a Value>,
}

pub fn render(line: &Line<'_>, now: SystemTime) -> String {
    let epoch = line.fields.0.get("epoch").and_then(epoch).map(Value::from);
    let (mut top, fields): (BTreeMap<_, _>, _) =
        line.fields.0.iter().map(|(name, value)| (*name, value)).partition(|(name, _)| TOP.contains(name));
    if let Some(epoch) = &epoch {
        top.insert("epoch", epoch);
    }
    let timestamp = humantime::format_rfc3339_millis(now).to_string();
    let object = Object { timestamp, level: line.level.as_str(), target: line.target, top, fields };
    // Texts, numbers and booleans under names that are texts: nothing of it can fail.
    let mut text = serde_json::to_string(&object).unwrap_or_default();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tracing::Level;

    use super::super::fields::Fields;
    use super::*;

    #[test]
    fn the_line_is_one_object() {
        let fields = Fields::of(json!({"node":"n","epoch":"e42","message":"a\nb","level":"mine"}));
        let line = Line { level: Level::INFO, target: "guest", fields: &fields };
        let text = render(&line, SystemTime::UNIX_EPOCH);
        assert_eq!(text.matches('\n').count(), 1);
        assert_eq!(
            serde_json::from_str::<Value>(&text).unwrap(),
            json!({"timestamp":"1970-01-01T00:00:00.000Z","level":"INFO","target":"guest","node":"n","epoch":42,
                "message":"a\nb","fields":{"level":"mine"}})
        );
    }
}
