//! The whole loop with Kubernetes: declared with kubectl, compiled, signed, on a gateway, rolled forward and back, taken
//! over by another operator, deleted.

use serde_json::{Value, json};

use super::plant::Plant;

fn counter(deployment: &Value) -> u64 {
    deployment["metadata"]["annotations"]["ballast.dev/counter"].as_str().unwrap().parse().unwrap()
}

#[test]
fn a_model_is_declared_rolled_out_and_back_and_withdrawn() {
    let mut plant = Plant::start();
    plant.start_operator("ballast-0").unwrap();
    plant.add_gateway().unwrap();
    plant.apply(&plant.digits("1.0.0")).unwrap();
    plant.wait_for("condition=Ready").unwrap();
    plant.serves("1.0.0").unwrap();

    // What people look at.
    let shown = plant.cluster.kubectl(&["get", "mdep", "--namespace", "plant"]).unwrap();
    let line: Vec<_> = shown.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(line[..3], ["digits", "1.0.0", "Active"], "{shown}");
    assert!(line.contains(&"1/1"), "{shown}");
    let first = plant.deployment().unwrap();
    assert_eq!(first["status"]["observedGeneration"], first["metadata"]["generation"]);
    assert_eq!(first["status"]["currentRelease"]["counter"], counter(&first));
    assert_eq!(first["metadata"]["finalizers"], json!(["ballast.dev/withdraw"]));
    let managers: Vec<_> = first["metadata"]["managedFields"].as_array().unwrap().iter().collect();
    let ours = |m: &&&Value| m["manager"] == "ballast-operator" && m["operation"] == "Apply";
    assert_eq!(managers.iter().filter(ours).count(), 2, "the object's and its status: {managers:?}");
    let events = plant.cluster.get(&["events.events.k8s.io", "--namespace", "plant"]).unwrap();
    let said = |reason: &str| {
        let is = |event: &&Value| event["reason"] == reason && event["regarding"]["name"] == "digits";
        events["items"].as_array().unwrap().iter().filter(is).count()
    };
    assert_eq!((said("Fits"), said("Complete")), (1, 1), "{events:#}");
    let lease = ["get", "lease", "ballast-operator", "--namespace", "ballast", "--output"];
    let holder =
        |plant: &Plant| plant.cluster.kubectl(&[&lease[..], &["jsonpath={.spec.holderIdentity}"]].concat()).unwrap();
    assert_eq!(holder(&plant), "ballast-0");

    // Forward, and back as `kubectl rollout undo` would.
    plant.apply(&plant.digits("2.0.0")).unwrap();
    plant.wait_for("jsonpath={.status.currentRelease.version}=2.0.0").unwrap();
    plant.serves("2.0.0").unwrap();
    plant.apply(&plant.digits("1.0.0")).unwrap();
    plant.wait_for("jsonpath={.status.currentRelease.version}=1.0.0").unwrap();
    plant.serves("1.0.0").unwrap();
    let third = plant.deployment().unwrap();
    assert!(counter(&third) > counter(&first));

    // Another operator waits, and takes over when the first one is asked to end; nothing is done twice.
    let log = plant.start_operator("ballast-1").unwrap();
    plant
        .until("the second operator to wait", |_| {
            let waits = std::fs::read_to_string(&log)?.contains("is held by ballast-0; waiting");
            Ok(waits.then_some(()))
        })
        .unwrap();
    plant.end_operator();
    plant
        .until("the second operator to hold the Lease", |plant| Ok((holder(plant) == "ballast-1").then_some(())))
        .unwrap();
    let ready = |log: &std::path::Path| Ok(std::fs::read_to_string(log)?.contains(" ready ").then_some(()));
    plant.until("the second operator to be ready", |_| ready(&log)).unwrap();
    plant.serves("1.0.0").unwrap();
    assert_eq!(counter(&plant.deployment().unwrap()), counter(&third));

    // After a power cut a restart of the same name does not wait for the Lease to expire.
    plant.kill_operator();
    std::fs::remove_file(&log).unwrap();
    let log = plant.start_operator("ballast-1").unwrap();
    plant.until("the restarted operator", |_| ready(&log)).unwrap();
    assert!(!std::fs::read_to_string(&log).unwrap().contains("waiting"));

    // Deleted: first gateways are told, then the object goes.
    plant.cluster.kubectl(&["delete", "mdep", "digits", "--namespace", "plant", "--timeout=120s"]).unwrap();
    plant.until("the gateway to let the model go", |plant| Ok((!plant.knows()?).then_some(()))).unwrap();

    // All of that with what the chart grants, and the chart grants nothing that none of it needed.
    let asked = plant.cluster.asked_by("system:serviceaccount:ballast:ballast").unwrap();
    let refused: Vec<_> = asked.iter().filter(|(.., code)| *code == 403).collect();
    assert!(refused.is_empty(), "{refused:?}");
    for role in [["clusterrole", "ballast-operator"], ["role", "ballast"]] {
        let role = plant.cluster.get(&[&role[..], &["--namespace", "ballast"]].concat()).unwrap();
        for (group, resource, verb) in grants(&role) {
            let used = asked.iter().any(|(g, r, v, _)| (g, r, v) == (&group, &resource, &verb));
            assert!(used, "nothing needed {verb} on {resource}.{group}: {asked:?}");
        }
    }
}

/// `(API group, resource, verb)` of every rule.
fn grants(role: &Value) -> Vec<(String, String, String)> {
    let words = |rule: &Value, key: &str| -> Vec<String> {
        rule[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut grants = Vec::new();
    for rule in role["rules"].as_array().unwrap() {
        for group in words(rule, "apiGroups") {
            for resource in words(rule, "resources") {
                grants.extend(words(rule, "verbs").into_iter().map(|verb| (group.clone(), resource.clone(), verb)));
            }
        }
    }
    assert!(!grants.is_empty());
    grants
}

#[test]
fn what_only_the_operator_can_refuse_is_said_in_the_status() {
    let mut plant = Plant::start();
    plant.start_operator("ballast-0").unwrap();
    plant.add_gateway().unwrap();
    let mut digits = plant.digits("1.0.0");
    digits["spec"]["model"]["source"]["uri"] = json!("file:///etc/passwd");
    plant.apply(&digits).unwrap();
    plant.wait_for("condition=Stalled").unwrap();
    let status = plant.deployment().unwrap()["status"].clone();
    assert!(status.to_string().contains("files are read in directory mode only"), "{status}");
    // Nothing was signed: the object waits for nobody.
    plant.cluster.kubectl(&["delete", "mdep", "digits", "--namespace", "plant", "--timeout=60s"]).unwrap();

    // Whoever has the operator's token reads no Secret of a team, and makes none but those that the operator makes.
    let who = "--as=system:serviceaccount:ballast:ballast";
    let may =
        |plant: &Plant, verb| plant.cluster.kubectl(&["auth", "can-i", verb, "secrets", "-n", "plant", who]).is_ok();
    assert_eq!(
        ["create", "get", "list", "update", "delete"].map(|verb| may(&plant, verb)),
        [true, false, false, false, false]
    );
    let make = |plant: &Plant, namespace: &str, name: &str, kind: &str| {
        let (namespace, kind) = (format!("--namespace={namespace}"), format!("--type={kind}"));
        plant.cluster.kubectl(&["create", "secret", "generic", name, &namespace, &kind, "--dry-run=server", who])
    };
    for (namespace, name, kind) in [
        ("kube-system", "bootstrap-token-abcdef", "bootstrap.kubernetes.io/token"),
        ("plant", "hall-9-enrollment", "bootstrap.kubernetes.io/token"),
        ("plant", "another", "Opaque"),
        ("plant", "ballast-key-root", "Opaque"),
    ] {
        // A policy that is new is not in force at once.
        let refused = plant.until("the policy", |plant| Ok(make(plant, namespace, name, kind).err())).unwrap();
        assert!(refused.to_string().contains("Secrets of enrolment tokens and of its own keys"), "{name}: {refused}");
    }
    make(&plant, "plant", "hall-9-enrollment", "Opaque").unwrap();
    make(&plant, "ballast", "ballast-key-another", "Opaque").unwrap();
}

#[test]
fn an_operator_stops_without_its_lease_and_makes_no_key_that_gateways_do_not_trust() {
    let mut plant = Plant::start();
    plant.start_operator("ballast-0").unwrap();
    plant.add_gateway().unwrap();
    let hold = |plant: &Plant, holder: &str| {
        let patch = json!({"spec": {"holderIdentity": holder}}).to_string();
        let lease = ["patch", "lease", "ballast-operator", "--namespace", "ballast", "--type", "merge", "--patch"];
        plant.cluster.kubectl(&[&lease[..], &[&patch]].concat()).unwrap();
    };
    hold(&plant, "somebody-else");
    let said = plant.operator_fails();
    assert!(said.contains("was taken away") && said.contains("this one stops"), "{said}");

    hold(&plant, "");
    let key = ["secret", "ballast-key-release", "--namespace", "ballast"];
    plant.cluster.kubectl(&[&["delete"][..], &key].concat()).unwrap();
    plant.start_operator("ballast-0").unwrap();
    let said = plant.operator_fails();
    assert!(said.contains("ballast-key-release") && said.contains("gateways of this fleet trust it"), "{said}");
    let made = |plant: &Plant| plant.cluster.kubectl(&[&["get"][..], &key].concat()).is_ok();
    assert!(!made(&plant), "a new key was made");

    // The volume is lost too: the other Secrets still tell that there was one.
    std::fs::remove_dir_all(plant.folder.path().join("state")).unwrap();
    plant.start_operator("ballast-1").unwrap();
    let said = plant.operator_fails();
    assert!(said.contains("ballast-key-release") && said.contains("gateways of this fleet trust it"), "{said}");
    assert!(!made(&plant), "a new key was made");
}
