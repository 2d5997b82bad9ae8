//! The YAML in the repository is what the types say.

use std::path::Path;

use ballast_crds::definitions;
use serde_json::Value;

#[test]
fn the_yaml_is_what_the_types_say() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    for definition in definitions() {
        let path = directory.join(format!("{}.yaml", definition.spec.names.plural));
        let stored = std::fs::read_to_string(&path).unwrap_or_default();
        let made = serde_saphyr::to_string(&definition).unwrap();
        assert!(stored == made, "{} is stale: cargo run -p ballast-crds --example crds -- crds/yaml", path.display());
    }
}

/// What may stand in a schema besides what the structure check and CEL hold values to.
const SAYS_NOTHING: &[&str] = &["description", "title", "default", "format", "x-kubernetes-validations"];

fn walk(schema: &Value, path: &str, seen: &mut dyn FnMut(&str, &str, &Value)) {
    let Some(map) = schema.as_object() else { return };
    for (key, value) in map {
        seen(path, key, value);
        match key.as_str() {
            "properties" => value.as_object().unwrap().iter().for_each(|(k, v)| walk(v, &format!("{path}.{k}"), seen)),
            "items" | "additionalProperties" => walk(value, &format!("{path}[]"), seen),
            _ => {}
        }
    }
}

#[test]
fn directory_mode_checks_every_keyword_of_the_schemas() {
    for definition in definitions() {
        let schema =
            serde_json::to_value(&definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema).unwrap();
        walk(&schema, &definition.spec.names.kind, &mut |path, key, value| {
            let known = ballast_crds::validate::CHECKED_KEYWORDS.contains(&key) || SAYS_NOTHING.contains(&key);
            assert!(known, "{path}: {key} is checked by the API server only");
            // Formats that the API server does not know are warnings at every apply.
            if key == "format" {
                assert!(matches!(value.as_str(), Some("int32" | "int64" | "date-time")), "{path}: format {value}");
            }
        });
    }
}

#[test]
fn every_list_map_and_text_of_a_spec_is_bounded_and_every_list_says_its_type() {
    for definition in definitions() {
        let schema =
            serde_json::to_value(&definition.spec.versions[0].schema.as_ref().unwrap().open_api_v3_schema).unwrap();
        let spec = &schema["properties"]["spec"];
        let mut lists = vec![];
        walk(spec, &definition.spec.names.kind, &mut |path, key, value| {
            if key == "type" && value == "array" {
                lists.push(path.to_owned());
            }
        });
        let mut bounded = vec![];
        let mut typed = vec![];
        walk(spec, &definition.spec.names.kind, &mut |path, key, _| match key {
            "maxItems" => bounded.push(path.to_owned()),
            "x-kubernetes-list-type" => typed.push(path.to_owned()),
            _ => {}
        });
        // Words of an enum bound themselves, and ints or texts their pattern.
        let mut texts = vec![];
        let mut short = vec![];
        walk(spec, &definition.spec.names.kind, &mut |path, key, value| match key {
            "type" if value == "string" => texts.push(path.to_owned()),
            "maxLength" | "enum" => short.push(path.to_owned()),
            _ => {}
        });
        assert!(!texts.is_empty());
        for text in texts {
            assert!(short.contains(&text), "{text} has no maxLength");
        }
        let mut maps = vec![];
        let mut counted = vec![];
        walk(spec, &definition.spec.names.kind, &mut |path, key, _| match key {
            "additionalProperties" => maps.push(path.to_owned()),
            "maxProperties" => counted.push(path.to_owned()),
            _ => {}
        });
        for map in maps {
            assert!(counted.contains(&map), "{map} has no maxProperties");
        }
        for list in lists {
            assert!(bounded.contains(&list), "{list} has no maxItems");
            assert!(typed.contains(&list), "{list} has no x-kubernetes-list-type");
        }
    }
}
