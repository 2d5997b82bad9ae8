//! The definitions are what an API server takes without a complaint, and what people read of them reads well.

use serde_json::Value;
use xtask::workspace;

use super::start;

#[test]
fn definitions_are_accepted_whole_and_samples_too() {
    let (_folder, mut cluster) = start();
    let definitions = cluster.get(&["crd"]).unwrap();
    let items = definitions["items"].as_array().unwrap();
    assert_eq!(items.len(), 4);
    for item in items {
        let conditions = item["status"]["conditions"].as_array().unwrap();
        let status = |name: &str| {
            let found = conditions.iter().find(|c| c["type"] == name);
            found.map_or("absent", |c| c["status"].as_str().unwrap())
        };
        let name = &item["metadata"]["name"];
        assert_eq!((status("NamesAccepted"), status("Established")), ("True", "True"), "{name}: {conditions:?}");
        assert_eq!(status("NonStructuralSchema"), "absent", "{name}: {conditions:?}");
    }

    cluster.kubectl(&["create", "namespace", "plant"]).unwrap();
    let samples = workspace::root().join("examples/kubernetes");
    cluster.kubectl(&["apply", "--filename", samples.to_str().unwrap()]).unwrap();
    let digits = cluster.get(&["mdep", "digits", "--namespace", "plant"]).unwrap();
    assert_eq!(digits["spec"]["rollout"]["onFailure"], "Rollback");
    let shown = cluster.kubectl(&["get", "mdep", "--namespace", "plant"]).unwrap();
    let heading: Vec<_> = shown.lines().next().unwrap().split_whitespace().collect();
    assert_eq!(heading, ["NAME", "VERSION", "PHASE", "STEP", "READY", "FAILED", "REASON", "AGE"], "{shown}");
    cluster.check().unwrap();
}

#[test]
fn every_field_is_explained() {
    let (_folder, cluster) = start();
    let definitions = cluster.get(&["crd"]).unwrap();
    let mut missing = Vec::new();
    for item in definitions["items"].as_array().unwrap() {
        let schema = &item["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            let path = format!("{}.{part}", item["spec"]["names"]["singular"].as_str().unwrap());
            unexplained(&schema["properties"][part], &path, &mut missing);
        }
    }
    assert!(missing.is_empty(), "without a description: {missing:#?}");

    let explained = cluster.kubectl(&["explain", "modeldeployment.spec.rollout"]).unwrap();
    for word in ["FIELDS:", "soak", "silenceDeadline", "onFailure", "enum: Rollback, Pause", "paused"] {
        assert!(explained.contains(word), "{word}:\n{explained}");
    }
    assert!(!explained.contains("<no description>"), "{explained}");
}

/// Paths of fields that say nothing of themselves.
fn unexplained(schema: &Value, path: &str, missing: &mut Vec<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if field["description"].as_str().is_none_or(str::is_empty) {
            missing.push(path.clone());
        }
        unexplained(field, &path, missing);
        unexplained(&field["items"], &path, missing);
        unexplained(&field["additionalProperties"], &path, missing);
    }
}
