//! A line for a program.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use super::Line;
use super::fields::epoch;

/// The fields that stand at the top, beside what every line has.
const TOP: [&str; 4] = ["node", "group", "epoch", "message"];

pub fn render(line: &Line<'_>, now: SystemTime) -> String {
    let mut top = Map::new();
    top.insert("timestamp".to_owned(), json!(humantime::format_rfc3339_millis(now).to_string()));
    top.insert("level".to_owned(), json!(line.level.as_str()));
    top.insert("target".to_owned(), json!(line.target));
    for name in TOP {
        if let Some(value) = line.fields.0.get(name) {
            let value =
                if name == "epoch" { epoch(value).map_or_else(|| value.clone(), Value::from) } else { value.clone() };
            top.insert(name.to_owned(), value);
        }
    }
    let others: Map<_, _> = line
        .fields
        .0
        .iter()
        .filter(|(name, _)| !TOP.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if !others.is_empty() {
        top.insert("fields".to_owned(), others.into());
    }
    format!("{}\n", Value::Object(top))
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::super::fields::Fields;
    use super::*;

    #[test]
    fn the_line_is_one_object() {
        let Value::Object(map) = json!({"node":"n","epoch":"e42","message":"a\nb","level":"mine"}) else { panic!() };
        let fields = Fields(map.into_iter().collect());
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
