//! Release identity: what makes one release another.

use ballast_bundle::Digest;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{ModelDeploymentSpec, Runtime, Verification};

/// Hash of model, runtime, verification and targets, and of nothing else: no other field makes or retries a release.
///
/// Over canonical JSON (RFC 8785 for the strings, integers and booleans that a spec holds), without what is absent,
/// empty, or written out although it is the default. So a field that a later version adds changes no identity by itself.
pub fn release_identity(spec: &ModelDeploymentSpec) -> Digest {
    let mut identity = Map::new();
    let mut put = |key: &str, value: Option<Value>| {
        if let Some(value) = value {
            identity.insert(key.to_owned(), value);
        }
    };
    put("model", pruned(to_value(&spec.model), None));
    put("runtime", pruned(to_value(&spec.runtime), Some(&to_value(&Runtime::default()))));
    put("verification", pruned(to_value(&spec.verification), Some(&to_value(&Verification::default()))));
    put("targets", pruned(to_value(&spec.targets), None));
    // serde_json's map is sorted by key; the domain keeps this hash apart from every other digest.
    let canonical = format!("ballast.dev/release-identity/v1\n{}", Value::Object(identity));
    Digest::of(canonical.as_bytes())
}

fn to_value<T: Serialize>(value: &T) -> Value {
    // Our own types of strings, integers and lists: there is nothing in them that JSON cannot say.
    serde_json::to_value(value).unwrap_or_default()
}

/// The value without nulls, `false`s, empty lists and maps, and without what equals its default.
fn pruned(value: Value, default: Option<&Value>) -> Option<Value> {
    if default == Some(&value) {
        return None;
    }
    match value {
        Value::Null => None,
        // A default of `true` makes `false` worth keeping; elsewhere `false` is what absent means.
        Value::Bool(false) if default.is_none() => None,
        Value::Object(map) => {
            let map: Map<_, _> = map
                .into_iter()
                .filter_map(|(key, value)| {
                    let default = default.and_then(|d| d.get(&key));
                    pruned(value, default).map(|value| (key, value))
                })
                .collect();
            (!map.is_empty()).then_some(Value::Object(map))
        }
        Value::Array(list) if list.is_empty() => None,
        // Places in a list matter: nothing is dropped from it, only inside its elements.
        Value::Array(list) => {
            Some(Value::Array(list.into_iter().map(|value| pruned(value, None).unwrap_or_default()).collect()))
        }
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn spec(value: Value) -> ModelDeploymentSpec {
        serde_json::from_value(value).unwrap()
    }

    fn base() -> Value {
        json!({
            "model": {"version": "1.0.0", "source": {"uri": "file:///a", "digest": Digest::of(b"a").to_string()}},
            "gatewaySelector": {"matchLabels": {"line": "a"}},
        })
    }

    #[test]
    fn writing_a_default_out_is_no_new_release() {
        let mut explicit = base();
        explicit["runtime"] =
            json!({"memoryLimit": "256Mi", "instances": 1, "maxQueue": 16, "sequences": {"maxIdle": "1m"}});
        explicit["verification"] = json!({"tolerance": {"absolute": "1e-4"}, "finiteOutputs": true});
        explicit["model"]["allowContractChange"] = json!(false);
        explicit["targets"] = json!([]);
        assert_eq!(release_identity(&spec(base())), release_identity(&spec(explicit)));
    }

    #[test]
    fn only_the_four_fields_make_a_release() {
        let id = release_identity(&spec(base()));
        let mut other = base();
        other["rollout"] = json!({"paused": true, "soak": "1s"});
        other["gatewaySelector"] = json!({"matchLabels": {"line": "b"}});
        other["revisionHistoryLimit"] = json!(1);
        assert_eq!(id, release_identity(&spec(other)));
        for (pointer, key, value) in [
            ("/model", "version", json!("1.0.1")),
            ("/model", "inputs", json!([{"name": "x", "shape": [1]}])),
            ("", "runtime", json!({"instances": 2})),
            ("", "verification", json!({"finiteOutputs": false})),
            ("", "targets", json!([{"name": "aarch64"}])),
        ] {
            let mut changed = base();
            changed.pointer_mut(pointer).unwrap()[key] = value;
            assert_ne!(id, release_identity(&spec(changed)), "{pointer}/{key}");
        }
    }

    #[test]
    fn the_hash_is_pinned() {
        // A change here retries every release of every fleet that upgrades: it needs a reason and a line in CHANGELOG.
        insta::assert_snapshot!(release_identity(&spec(base())));
    }
}
