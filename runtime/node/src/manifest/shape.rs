//! Holds a parsed manifest against the schema: unknown keys, missing keys, wrong types, words and numbers that are not
//! allowed. What fails is reported and taken out, so that everything else can be checked further.

use std::collections::BTreeSet;

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Places, child, header, quoted, without_indices};
use super::error::Problem;
use super::nearest::nearest;
use super::schema;

/// Checks `root` and takes out of it what is wrong.
pub(super) fn check(root: &mut DeTable<'_>, places: &mut Places) -> Vec<Problem> {
    let mut walk = Walk { places, problems: Vec::new() };
    walk.table("", root, schema::shared());
    walk.problems
}

struct Walk<'p> {
    places: &'p mut Places,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    /// Checks a value; says whether it can stay.
    fn value(&mut self, path: &str, value: &mut Spanned<DeValue<'_>>, schema: &Value) -> bool {
        if let Some(words) = words(schema) {
            return self.word(path, value, &words, schema);
        }
        let Some(schema) = alternative(schema, value.get_ref()) else {
            self.wrong_type(path, value, schema);
            return false;
        };
        match value.get_mut() {
            DeValue::Table(table) => self.table(path, table, schema),
            DeValue::Array(array) => {
                if !self.length(path, array.len(), schema) {
                    return false;
                }
                let items = &schema["items"];
                // Not `all`: every element's problems are told.
                let bad = array.iter_mut().enumerate().filter_map(|(n, item)| {
                    let kept = self.value(&format!("{path}[{n}]"), item, items);
                    (!kept).then_some(())
                });
                bad.count() == 0
            }
            DeValue::Integer(integer) => {
                let number = i64::from_str_radix(integer.as_str(), integer.radix()).ok();
                self.range(path, number, &integer.to_string(), schema)
            }
            _ => true,
        }
    }

    fn table(&mut self, path: &str, table: &mut DeTable<'_>, schema: &Value) -> bool {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let other = schema.get("additionalProperties").filter(|schema| schema.is_object());
        let mut suggested = BTreeSet::new();
        let mut wrong = Vec::new();
        for (key, value) in table.iter_mut() {
            let here = child(path, key.get_ref());
            let keep = match properties.get(key.get_ref().as_ref()).or(other) {
                Some(schema) => self.value(&here, value, schema),
                None => {
                    suggested.extend(self.unknown_key(path, key.get_ref(), properties));
                    false
                }
            };
            if !keep {
                wrong.push(key.get_ref().clone().into_owned());
            }
        }
        for key in wrong {
            table.remove(key.as_str());
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            // A key that was only misspelt has been told of.
            if !self.places.has(&child(path, key)) && !suggested.contains(key) {
                self.missing(path, key, &properties[key]);
            }
        }
        true
    }

    /// Reports a key that no manifest has; gives the one that is probably meant.
    fn unknown_key(&mut self, path: &str, key: &str, properties: &Map<String, Value>) -> Option<String> {
        let table = header(path);
        let here = child(path, key);
        let mut problem =
            Problem::new(&here, self.places.key(&here), format!("unknown key `{}` in {table}", quoted(key)))
                .because("no such key");
        // In an order of our own: that of the schema depends on features of serde_json which other crates may switch on.
        let mut known: Vec<&str> = properties.keys().map(String::as_str).collect();
        known.sort_unstable();
        let meant = nearest(key, known.iter().copied());
        if path == "coordination.auth"
            && ["pass", "passwd", "password", "pwd", "secret"].contains(&key.to_lowercase().as_str())
        {
            problem = problem.help(
                "a password does not belong in the manifest: name where it is with `password_env` or `password_file`",
            );
        } else if let Some(meant) = meant {
            problem = problem.help(format!("did you mean `{meant}`?"));
        } else if let [first, ..] = homes(key).as_slice() {
            problem = problem.help(format!("`{key}` is a key of {first}"));
        }
        // A misspelt key of little interest is shown with its value; what others hold, nobody knows.
        let holds_secrets =
            |key| matches!(key, "config" | "env" | "auth" | "connect" | "http" | "password_env" | "password_file");
        if path == "coordination.auth" || meant.is_none_or(holds_secrets) {
            self.places.veiled.insert(here.clone());
        }
        self.places.unknown.insert(here);
        let list: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        self.problems.push(problem.help(format!("the keys of {table} are {}", list.join(", "))));
        meant.map(str::to_owned)
    }

    fn missing(&mut self, path: &str, key: &str, schema: &Value) {
        let here = child(path, key);
        // Of a list, the key stands for the tables in it.
        let (what, inside) = match schema["type"].as_str() {
            Some("object") => (format!("[{here}]"), Some(schema)),
            Some("array") => (format!("[[{here}]]"), Some(&schema["items"])),
            _ => (format!("`{key}`"), None),
        };
        let meaning = schema["description"].as_str().map(first_sentence).unwrap_or_default();
        let add = match inside {
            Some(schema) => match required_examples(schema).as_slice() {
                [] => what.clone(),
                lines => format!("{what} with `{}`", lines.join("`, `")),
            },
            None => example(key, schema).map_or_else(|| what.clone(), |example| format!("`{example}`")),
        };
        let span = self.places.value_or_parent(&here).filter(|_| !path.is_empty());
        let problem = Problem::new(&here, span, format!("{what} is missing in {}", header(path)))
            .because(if path.is_empty() { String::new() } else { format!("{what} is required here") })
            .help(format!("add {add} ({meaning})"));
        self.problems.push(problem);
    }

    fn wrong_type(&mut self, path: &str, value: &Spanned<DeValue<'_>>, schema: &Value) {
        let is = described_value(value.get_ref());
        let mut problem =
            Problem::new(path, Some(value.span()), format!("`{path}` must be {}, not {is}", expected(schema)))
                .because(format!("this is {is}"));
        let key = path.rsplit('.').next().unwrap_or(path);
        let tables = value.get_ref().as_array().is_some_and(|array| array.iter().all(|item| item.get_ref().is_table()));
        problem = match value.get_ref() {
            DeValue::Table(_) if types(schema) == ["array"] && !schema["items"]["properties"].is_null() => {
                problem.help(format!("write {} for each", header(&format!("{path}[]"))))
            }
            DeValue::Array(_) if types(schema) == ["object"] && tables => {
                problem.help(format!("write it once, as {}", header(path)))
            }
            DeValue::Datetime(_) if types(schema).contains(&"string") => {
                problem.help("put it in quotes to make it a string")
            }
            DeValue::Table(_) | DeValue::Array(_) if example(key, schema).is_none() => problem,
            _ => problem.help(match example(key, schema) {
                Some(example) => format!("for example: `{example}`"),
                None => "put it in quotes to make it a string".to_owned(),
            }),
        };
        let nested = matches!(value.get_ref(), DeValue::Table(_) | DeValue::Array(_));
        if nested && without_indices(path).starts_with("group.config.") {
            problem = problem.help(
                "settings are flat: use one key for each, as in `\"db.host\" = \"…\"`, or put JSON into a string",
            );
        }
        self.problems.push(problem);
    }

    fn word(&mut self, path: &str, value: &Spanned<DeValue<'_>>, words: &[&str], schema: &Value) -> bool {
        let allowed: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
        let allowed = format!("allowed: {}", allowed.join(", "));
        let Some(word) = value.get_ref().as_str() else {
            let is = described_value(value.get_ref());
            self.problems.push(
                Problem::new(path, Some(value.span()), format!("`{path}` must be {}, not {is}", expected(schema)))
                    .because(format!("this is {is}"))
                    .help(allowed),
            );
            return false;
        };
        if words.contains(&word) {
            return true;
        }
        let mut problem = Problem::new(path, Some(value.span()), format!("`{path}` cannot be {word:?}"))
            .because("not an allowed value");
        if let Some(meant) = nearest(word, words.iter().copied()) {
            problem = problem.help(format!("did you mean {meant:?}?"));
        }
        self.problems.push(problem.help(allowed));
        false
    }

    fn range(&mut self, path: &str, number: Option<i64>, text: &str, schema: &Value) -> bool {
        let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
        let fits = number.is_some_and(|n| least.is_none_or(|least| n >= least) && most.is_none_or(|most| n <= most));
        if !fits {
            let (least, most) = (least.unwrap_or(i64::MIN), most.unwrap_or(i64::MAX));
            let low = number.is_some_and(|n| n < least) || text.starts_with('-');
            self.problems.push(
                Problem::new(
                    path,
                    self.places.value_or_parent(path),
                    format!("`{path}` must be {least} to {most}, not {text}"),
                )
                .because(if low {
                    format!("the least is {least}")
                } else {
                    format!("the most is {most}")
                }),
            );
        }
        fits
    }

    fn length(&mut self, path: &str, length: usize, schema: &Value) -> bool {
        let least = schema["minItems"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(0);
        let most = schema["maxItems"].as_u64().and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
        let why = if length < least {
            format!("has {length} elements; the least is {least}")
        } else if length > most {
            format!("has {length} elements; the most is {most}")
        } else {
            return true;
        };
        let mut problem = Problem::new(path, self.places.key(path), format!("`{path}` {why}")).because("this list");
        if length < least {
            let lines = required_examples(&schema["items"]);
            problem = problem.help(format!("write {} with `{}`", header(&format!("{path}[]")), lines.join("`, `")));
        }
        self.problems.push(problem);
        false
    }
}

/// The words that a schema allows, if it is a choice of words.
fn words(schema: &Value) -> Option<Vec<&str>> {
    if let Some(word) = schema["const"].as_str() {
        return Some(vec![word]);
    }
    let list = schema.get("enum").or_else(|| schema.get("oneOf")).or_else(|| schema.get("anyOf"))?.as_array()?;
    let mut words = Vec::new();
    for choice in list {
        match choice {
            Value::String(word) => words.push(word.as_str()),
            choice => match (choice.get("const"), words_of(choice)) {
                (Some(Value::String(word)), _) => words.push(word),
                (_, Some(more)) => words.extend(more),
                _ => return None,
            },
        }
    }
    Some(words)
}

fn words_of(choice: &Value) -> Option<Vec<&str>> {
    choice.get("enum")?.as_array()?.iter().map(Value::as_str).collect()
}

/// The part of a schema that fits the type of a value.
fn alternative<'s>(schema: &'s Value, value: &DeValue<'_>) -> Option<&'s Value> {
    if let Some(choices) = schema.get("anyOf").and_then(Value::as_array) {
        return choices.iter().find_map(|choice| alternative(choice, value));
    }
    let kind = match value {
        DeValue::String(_) => "string",
        DeValue::Integer(_) => "integer",
        DeValue::Float(_) => "number",
        DeValue::Boolean(_) => "boolean",
        DeValue::Datetime(_) => "date-time",
        DeValue::Array(_) => "array",
        DeValue::Table(_) => "object",
    };
    // Whoever may write a number may write a whole one.
    let whole = kind == "integer" && schema["type"] == "number";
    (schema["type"] == kind || whole).then_some(schema)
}

fn types(schema: &Value) -> Vec<&str> {
    let mut all = Vec::new();
    for choice in ["anyOf", "oneOf"].iter().filter_map(|key| schema[key].as_array()).flatten() {
        all.extend(types(choice));
    }
    all.extend(schema["type"].as_str());
    all.dedup();
    all
}

/// The types that a schema allows, for a person.
fn expected(schema: &Value) -> String {
    let kinds = types(schema);
    let described: Vec<&str> = kinds
        .iter()
        .filter_map(|&kind| match kind {
            "object" => Some("a table"),
            "array" => Some("a list"),
            "string" => Some("a string"),
            "integer" if kinds.contains(&"number") => None,
            "integer" => Some("a whole number"),
            "number" => Some("a number"),
            "boolean" if kinds.len() == 1 => Some("true or false"),
            "boolean" => Some("a boolean"),
            _ => None,
        })
        .collect();
    match described.as_slice() {
        [] => "something else".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

fn described_value(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// `key = value` as it could be written, from the schema's default or example.
fn example(key: &str, schema: &Value) -> Option<String> {
    let is_empty =
        |value: &Value| value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(Map::is_empty);
    if let Some(value) = schema.get("default").filter(|value| !is_empty(value)).or_else(|| schema["examples"].get(0)) {
        return Some(format!("{key} = {}", inline(value)));
    }
    let lines = required_examples(schema);
    (!lines.is_empty()).then(|| format!("{key} = {{ {} }}", lines.join(", ")))
}

/// Examples of the keys that a table must have.
fn required_examples(schema: &Value) -> Vec<String> {
    let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    required.filter_map(|key| example(key, &schema["properties"][key])).collect()
}

/// A value as it is written in TOML, on one line.
fn inline(value: &Value) -> String {
    match value {
        Value::Array(items) => format!("[{}]", items.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Object(entries) => {
            let entries: Vec<String> =
                entries.iter().map(|(key, value)| format!("{} = {}", quoted(key), inline(value))).collect();
            format!("{{ {} }}", entries.join(", "))
        }
        // Strings, numbers and booleans are written alike in JSON and TOML.
        value => value.to_string(),
    }
}

fn first_sentence(text: &str) -> &str {
    text.split(". ").next().unwrap_or(text).trim_end_matches('.')
}

/// The tables in which a key would be known.
fn homes(key: &str) -> Vec<String> {
    fn search(path: &str, schema: &Value, key: &str, found: &mut Vec<String>) {
        if let Some(properties) = schema["properties"].as_object() {
            if properties.contains_key(key) {
                found.push(header(path));
            }
            for (name, schema) in properties {
                search(&child(path, name), schema, key, found);
            }
        }
        if schema["items"].is_object() {
            search(&format!("{path}[]"), &schema["items"], key, found);
        }
    }
    let mut found = Vec::new();
    search("", schema::shared(), key, &mut found);
    found.sort_unstable();
    found
}
