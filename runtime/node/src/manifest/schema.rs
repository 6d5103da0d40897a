//! The manifest's JSON Schema, generated from the code that reads it.

use std::sync::LazyLock;

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::raw::RawManifest;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    // Draft 7, without references: what the TOML plug-ins of editors understand.
    let settings = SchemaSettings::draft07().with(|settings| settings.inline_subschemas = true);
    let mut schema = settings.into_generator().into_root_schema_for::<RawManifest>().to_value();
    tidy(&mut schema);
    schema
});

/// The JSON Schema (draft 7) of `bellwether.toml`, for editors and other tools.
#[must_use]
pub fn schema() -> Value {
    SCHEMA.clone()
}

/// The schema, for `super::shape`.
pub(super) fn shared() -> &'static Value {
    &SCHEMA
}

/// Takes away what the optional fields of the raw structs leave behind: TOML has no null. Puts descriptions on one line.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if let Some(Value::Array(types)) = object.get_mut("type") {
                types.retain(|kind| kind != "null");
                if let [only] = types.as_slice() {
                    let only = only.clone();
                    object.insert("type".to_owned(), only);
                }
            }
            if let Some(Value::Array(values)) = object.get_mut("enum") {
                values.retain(|value| !value.is_null());
            }
            for choice in ["anyOf", "oneOf"] {
                let Some(Value::Array(choices)) = object.get_mut(choice) else { continue };
                choices.retain(|choice| choice["type"] != "null");
                let [Value::Object(_)] = choices.as_slice() else { continue };
                let Some(Value::Array(mut choices)) = object.remove(choice) else { continue };
                let Some(Value::Object(only)) = choices.pop() else { continue };
                for (key, value) in only {
                    object.entry(key).or_insert(value);
                }
            }
            if let Some(Value::String(description)) = object.get_mut("description") {
                *description = description.split_whitespace().collect::<Vec<_>>().join(" ");
            }
            object.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}
