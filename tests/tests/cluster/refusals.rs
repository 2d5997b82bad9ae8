//! What is wrong is refused at `kubectl apply`, with the sentence that the rule holds: the same one that directory mode says.

use std::collections::{BTreeMap, BTreeSet};

use ballast_crds::validate::Admission;
use serde_json::{Value, json};

use super::{said, start, wrong};

/// What no schema and no rule of an API server can say: the operator says it, when it reads the object.
const FOR_THE_OPERATOR: [&str; 2] = ["steps that count gateways must increase", "steps in per cent must increase"];
/// What an API server passes over in silence, and why nothing is lost by it.
const PASSED_OVER: [&str; 2] = [
    // Its own field: the client's value is dropped.
    "metadata.uid: is not a field here",
    // The default takes the place of null.
    "spec.revisionHistoryLimit: is null",
];

/// Messages of every rule in a schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(map) => {
            for rule in map.get("x-kubernetes-validations").and_then(Value::as_array).into_iter().flatten() {
                found.insert(rule["message"].as_str().expect("every rule has a message").to_owned());
            }
            map.values().for_each(|value| rules(value, found));
        }
        Value::Array(list) => list.iter().for_each(|value| rules(value, found)),
        _ => {}
    }
}

#[test]
fn every_rule_refuses_at_apply_with_its_sentence() {
    let (_folder, cluster) = start();
    cluster.kubectl(&["create", "namespace", "plant"]).unwrap();
    let mut messages = BTreeSet::new();
    rules(&cluster.get(&["crd"]).unwrap(), &mut messages);
    assert!(messages.len() > 20, "{messages:?}");
    let mut heard = BTreeSet::new();
    let mut hear = |text: &str| heard.extend(messages.iter().filter(|message| text.contains(*message)).cloned());

    let offline = Admission::default();
    let mut documents = String::new();
    let mut expected = BTreeMap::new();
    for (n, object) in wrong::objects().into_iter().enumerate() {
        let refused = offline.admit(&object, None).unwrap_err();
        let known = object["apiVersion"] == ballast_crds::API_VERSION && object["kind"] != "Pod";
        // A name that is wrong stays, and names no object here; nor does a kind that nobody serves.
        if !known || object["metadata"]["name"].as_str().is_some_and(|name| name != name.to_lowercase()) {
            continue;
        }
        let name = format!("wrong-{n}");
        let mut object = object;
        object["metadata"]["name"] = json!(name);
        documents.push_str(&format!("---\n{object}\n"));
        expected.insert(name, refused);
    }
    let output = cluster.try_with(&["create", "--dry-run=server", "--filename", "-"], &documents).unwrap();
    let answer = said(&output);
    let parts: Vec<&str> = answer.split("Error from server").collect();
    for (name, refused) in &expected {
        let accepted = answer.contains(&format!("/{name} created"));
        let sentence = refused.to_string();
        let is_one_of = |list: &[&str]| list.iter().any(|words| sentence.contains(words));
        assert_eq!(accepted, is_one_of(&FOR_THE_OPERATOR) || is_one_of(&PASSED_OVER), "{name}: {sentence}\n{answer}");
        let part = parts.iter().find(|part| part.contains(&format!("\"{name}\" is invalid"))).unwrap_or(&"");
        for violation in refused.0.iter().filter(|violation| messages.contains(&violation.message)) {
            assert!(part.contains(&violation.message), "{name}: {violation}\n{part}");
        }
        hear(part);
    }

    for (before, after) in wrong::changes() {
        cluster.kubectl_with(&["apply", "--filename", "-"], &before.to_string()).unwrap();
        let output = cluster.try_with(&["apply", "--filename", "-"], &after.to_string()).unwrap();
        assert!(!output.status.success(), "{after} after {before}: {}", said(&output));
        let old = offline.admit(&before, None).unwrap();
        let refused = offline.admit(&after, Some(&old)).unwrap_err().to_string();
        hear(&said(&output));
        let sentence = refused.split_once(": ").unwrap().1;
        assert!(said(&output).contains(sentence), "{sentence}\n{}", said(&output));
        cluster.kubectl_with(&["delete", "--filename", "-"], &before.to_string()).unwrap();
    }
    let silent: Vec<_> = messages.difference(&heard).collect();
    assert!(silent.is_empty(), "no wrong object shows these rules: {silent:#?}");
}
