//! The part of a structural schema that is not CEL: types, required and unknown fields, bounds, list keys. What the API
//! server checks (with strict field validation), for the keywords that our own schemas use; a test keeps the two together.

use regex::Regex;
use serde_json::{Map, Value};

use super::Violation;

/// Keywords that constrain a value and are checked here.
pub(super) const CHECKED: &[&str] = &[
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "nullable",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minimum",
    "maximum",
    "maxProperties",
    "pattern",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
];

/// Everything wrong with `value` by `schema`, at most [`super::MAX_VIOLATIONS`].
pub(super) fn check(schema: &Value, value: &Value, path: &str, out: &mut Vec<Violation>) {
    if out.len() >= super::MAX_VIOLATIONS {
        return;
    }
    let mut say = |message: String| out.push(Violation { path: path.to_owned(), message });
    if value.is_null() {
        if schema.get("nullable") != Some(&Value::Bool(true)) {
            say("is null: write a value, or leave the field out".to_owned());
        }
        return;
    }
    if let Some(words) = schema.get("enum").and_then(Value::as_array)
        && !words.contains(value)
    {
        let words: Vec<_> = words.iter().filter_map(Value::as_str).collect();
        say(format!("{} is not known here: write {}", shown(value), words.join(", ")));
        return;
    }
    if schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        // Numbers of a schema are floats once they went through the API's own types.
        let minimum = schema.get("minimum").and_then(Value::as_f64).unwrap_or(f64::NEG_INFINITY);
        let pattern = schema.get("pattern").and_then(Value::as_str).unwrap_or_default();
        let fits = match value {
            Value::String(text) => Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text)),
            number => number.as_i64().is_some() && number.as_f64().is_some_and(|n| n >= minimum),
        };
        if !fits {
            let expected = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            say(format!("{} is not {expected}", shown(value)));
        }
        return;
    }
    match schema.get("type").and_then(Value::as_str) {
        Some("object") => match value.as_object() {
            Some(map) => object(schema, map, path, out),
            None => say(format!("{} is not a map of fields", shown(value))),
        },
        Some("array") => match value.as_array() {
            Some(list) => array(schema, list, path, out),
            None => say(format!("{} is not a list", shown(value))),
        },
        Some("string") => match value.as_str() {
            Some(text) => {
                let length = text.chars().count() as u64;
                if let Some(message) = bounds(length, schema, "minLength", "maxLength", "characters") {
                    say(message);
                }
            }
            None => say(format!("{} is not a text: put it in quotes", shown(value))),
        },
        Some("integer") => match value.as_i64() {
            Some(n) => {
                let bound = |key: &str| schema.get(key).and_then(Value::as_f64);
                #[allow(clippy::cast_precision_loss)] // our bounds are far below 2^52
                let number = n as f64;
                if bound("minimum").is_some_and(|min| number < min) || bound("maximum").is_some_and(|max| number > max)
                {
                    let word = |key| bound(key).map_or_else(|| "…".to_owned(), |b| b.to_string());
                    say(format!("{n} is out of range: write {} to {}", word("minimum"), word("maximum")));
                }
            }
            None => say(format!("{} is not a whole number", shown(value))),
        },
        Some("boolean") if !value.is_boolean() => say(format!("{} is neither true nor false", shown(value))),
        _ => {}
    }
}

fn object(schema: &Value, map: &Map<String, Value>, path: &str, out: &mut Vec<Violation>) {
    let known = schema.get("properties").and_then(Value::as_object);
    let values = schema.get("additionalProperties");
    for key in schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str) {
        if !map.contains_key(key) {
            out.push(Violation { path: join(path, key), message: "is missing".to_owned() });
        }
    }
    if let Some(max) = schema.get("maxProperties").and_then(Value::as_u64)
        && map.len() as u64 > max
    {
        out.push(Violation { path: path.to_owned(), message: format!("{} entries: write at most {max}", map.len()) });
    }
    for (key, value) in map {
        match (known.and_then(|known| known.get(key)), values) {
            (Some(schema), _) | (None, Some(schema)) => check(schema, value, &join(path, key), out),
            (None, None) if known.is_some() => {
                let names: Vec<_> = known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                let message = format!("is not a field here: write one of {}", names.join(", "));
                out.push(Violation { path: join(path, key), message });
            }
            // A free object, like metadata: its owner checks it.
            (None, None) => {}
        }
    }
}

fn array(schema: &Value, list: &[Value], path: &str, out: &mut Vec<Violation>) {
    if let Some(message) = bounds(list.len() as u64, schema, "minItems", "maxItems", "entries") {
        out.push(Violation { path: path.to_owned(), message });
        return;
    }
    if let Some(items) = schema.get("items") {
        for (i, value) in list.iter().enumerate() {
            check(items, value, &format!("{path}[{i}]"), out);
        }
    }
    let keys: Vec<&str> = schema
        .get("x-kubernetes-list-map-keys")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let unique = schema.get("x-kubernetes-list-type").and_then(Value::as_str);
    for (i, value) in list.iter().enumerate() {
        let same = |other: &Value| match unique {
            Some("map") => keys.iter().all(|key| other.get(key) == value.get(key)),
            Some("set") => other == value,
            _ => false,
        };
        if list.iter().take(i).any(same) {
            let by = if keys.is_empty() { String::new() } else { format!(" ({})", keys.join(", ")) };
            out.push(Violation {
                path: format!("{path}[{i}]"),
                message: format!("is there twice{by}: write each once"),
            });
        }
    }
}

fn bounds(n: u64, schema: &Value, min: &str, max: &str, unit: &str) -> Option<String> {
    let bound = |key: &str| schema.get(key).and_then(Value::as_u64);
    match (bound(min), bound(max)) {
        (Some(min), _) if n < min => Some(format!("{n} {unit}: write at least {min}")),
        (_, Some(max)) if n > max => Some(format!("{n} {unit}: write at most {max}")),
        _ => None,
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Object(_) => "a map of fields".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        other => other.to_string().chars().take(60).collect(),
    }
}
