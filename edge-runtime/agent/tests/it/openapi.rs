//! `/openapi.json` beside what is really answered.

use serde_json::{Value, json};

use crate::gateway::Reply;
use crate::models::Live;
use crate::requests::serving;

/// Whether a value is what a schema says; of JSON Schema only what the description uses. `Err` is the place that is not.
fn check(description: &Value, schema: &Value, value: &Value, place: &str) -> Result<(), String> {
    if let Some(name) = schema.get("$ref") {
        let path = name.as_str().unwrap().strip_prefix('#').unwrap();
        return check(description, description.pointer(path).unwrap(), value, place);
    }
    let wrong = |what: &str| Err(format!("{place} {what}: {value}"));
    let known = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "minimum",
        "maxItems",
        "maxLength",
        "description",
    ];
    for word in schema.as_object().unwrap().keys() {
        assert!(known.contains(&word.as_str()), "{word} is not checked");
    }
    let is = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => panic!("{other}"),
    };
    let kinds = match &schema["type"] {
        Value::Null => return Ok(()), // anything
        Value::Array(kinds) => kinds.iter().map(|k| k.as_str().unwrap()).collect(),
        kind => vec![kind.as_str().unwrap()],
    };
    if !kinds.into_iter().any(is) {
        return wrong("has another type");
    }
    if schema.get("enum").is_some_and(|all| !all.as_array().unwrap().contains(value)) {
        return wrong("is none of those that there are");
    }
    if schema.get("minimum").is_some_and(|least| value.as_f64() < least.as_f64()) {
        return wrong("is too small");
    }
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        if let Some(schema) = schema.get("items") {
            check(description, schema, item, &format!("{place}[{n}]"))?;
        }
    }
    let Some(object) = value.as_object() else { return Ok(()) };
    for name in schema.get("required").and_then(Value::as_array).into_iter().flatten() {
        if !object.contains_key(name.as_str().unwrap()) {
            return wrong(&format!("has no {name}"));
        }
    }
    for (name, value) in object {
        match schema["properties"].get(name) {
            Some(schema) => check(description, schema, value, &format!("{place}.{name}"))?,
            None if schema["additionalProperties"] == json!(false) => return wrong(&format!("has {name}")),
            None => {}
        }
    }
    Ok(())
}

/// A real answer beside what is said of it.
fn hold(description: &Value, method: &str, template: &str, reply: &Reply) {
    let item = &description["paths"][template][method.to_lowercase()];
    let place = format!("{method} {template}: {}", reply.status);
    let said = item["responses"].get(reply.status.to_string()).unwrap_or_else(|| panic!("{place} is not described"));
    let kind = reply.header("content-type").unwrap().split(';').next().unwrap();
    let schema = said["content"].get(kind).unwrap_or_else(|| panic!("{place}: {kind} is not described"));
    assert_eq!(reply.header("retry-after").is_some(), said["headers"].get("Retry-After").is_some(), "{place}");
    if kind != "text/plain" {
        check(description, &schema["schema"], &reply.json(), &place).unwrap();
    }
}

#[test]
fn the_description_is_what_is_answered() {
    let (_fleet, gateway) = serving();
    let description = gateway.call("GET", "/openapi.json", &[], b"").json();
    let image: Vec<f32> =
        Live::load().image(0).chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect();
    let request = json!({
        "id": "1",
        "parameters": {"timeout": 60_000_000},
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8], "data": image}],
        "outputs": [{"name": "scores", "parameters": {"binary_data": false}}],
    });
    let raw = json!({"inputs": request["inputs"], "parameters": {"binary_data_output": true}});
    for request in [&request, &raw] {
        check(&description, &description["components"]["schemas"]["Request"], request, "request").unwrap();
    }
    let (request, raw) = (request.to_string().into_bytes(), raw.to_string().into_bytes());
    let mut calls = 0;
    for (template, item) in description["paths"].as_object().unwrap() {
        let path = template.replace("{model}", "digits").replace("{version}", "1.0.0");
        let method = if item.get("post").is_some() { "POST" } else { "GET" };
        let bodies = if template.ends_with("/infer") { vec![&request[..], &raw, b"rubbish"] } else { vec![&b""[..]] };
        let statuses: Vec<u16> = bodies
            .into_iter()
            .map(|body| {
                let reply = gateway.call(method, &path, &[], body);
                hold(&description, method, template, &reply);
                reply.status
            })
            .collect();
        calls += statuses.len();
        assert!(statuses == [200] || statuses == [200, 200, 400], "{path}: {statuses:?}");
        // What is described must be true of errors, too.
        let other = gateway.call(if method == "GET" { "DELETE" } else { "GET" }, &path, &[], b"");
        assert_eq!(other.status, 405);
        hold(&description, method, template, &other);
        if template.contains("{model}") {
            let unknown = gateway.call(method, &path.replace("digits", "other"), &[], b"");
            assert_eq!(unknown.status, 404);
            hold(&description, method, template, &unknown);
        }
    }
    assert!(calls > 20, "{calls}");
    let large = gateway.call("POST", "/v2/models/digits/infer", &[], &vec![b' '; 1 << 20]);
    hold(&description, "POST", "/v2/models/{model}/infer", &large);
}
