//! The charts: linted, rendered, and taken by a real API server without a warning.

use std::collections::BTreeMap;

use serde_json::Value;
use xtask::cluster::Cluster;
use xtask::workspace;

use super::{said, start_empty};

/// What the image would be; nobody pulls it here.
pub const IMAGE: &str = "image.repository=registry.example/ballast-operator";

pub fn chart(name: &str) -> String {
    workspace::root().join("charts").join(name).display().to_string()
}

/// Every option away from its default.
const ALL: &[&str] = &[
    "image.tag=1.2.3",
    "image.pullPolicy=Always",
    "imagePullSecrets[0].name=registry",
    "publicEndpoint=https://fleet.example:443",
    "sync=5m",
    "workers=4",
    "logFormat=text",
    "sources.allowPrivate=true",
    "keyPasswordSecret=key-password",
    "service.type=LoadBalancer",
    "service.port=443",
    "service.annotations.example=yes",
    "persistence.size=100Gi",
    "persistence.storageClass=fast",
    "networkPolicy.apiServerPorts[0]=16443",
    "networkPolicy.dnsPorts[0]=1053",
    "networkPolicy.extraEgress[0].ports[0].port=8443",
    "nodeSelector.disk=fast",
    "tolerations[0].operator=Exists",
    "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey=kubernetes.io/hostname",
    "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].labelSelector.matchLabels.app=ballast",
    "podAnnotations.example=yes",
];

/// What is installed by these values, as a server-side dry run answers it.
fn dry_run(cluster: &Cluster, name: &str, values: &[&str]) -> String {
    let chart = chart(name);
    let sets = values.iter().flat_map(|value| ["--set", value]);
    let arguments: Vec<&str> =
        ["template", "ballast", chart.as_str(), "--namespace", "ballast"].into_iter().chain(sets).collect();
    let manifest = cluster.helm(&arguments).unwrap();
    let arguments = ["apply", "--dry-run=server", "--namespace", "ballast", "--filename", "-"];
    let output = cluster.try_with(&arguments, &manifest).unwrap();
    assert!(output.status.success(), "{values:?}: {}", said(&output));
    // Pod Security says by warnings what it would refuse of a template's pods.
    assert!(output.stderr.is_empty(), "{values:?}: {}", said(&output));
    said(&output)
}

/// Read by a template and written again, they must still say the same.
fn the_definitions_are_those_of_the_repository(cluster: &Cluster) {
    let specs = |manifest: &str| -> BTreeMap<String, Value> {
        let answer = ["apply", "--dry-run=server", "--output", "json", "--filename", "-"];
        let list: Value = serde_json::from_str(&cluster.kubectl_with(&answer, manifest).unwrap()).unwrap();
        let spec = |item: &Value| (item["metadata"]["name"].to_string(), item["spec"].clone());
        list["items"].as_array().unwrap().iter().map(spec).collect()
    };
    let chart = cluster.helm(&["template", "ballast-crds", &chart("ballast-crds")]).unwrap();
    assert_eq!(chart.matches("helm.sh/resource-policy: keep").count(), 4);
    let files = std::fs::read_dir(workspace::root().join("crds/yaml")).unwrap();
    let own: Vec<String> = files.map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    assert_eq!(specs(&chart), specs(&own.join("\n---\n")));
}

#[test]
fn the_operators_charts_are_sound_and_an_api_server_takes_every_rendering() {
    let (_folder, cluster) = start_empty();
    for (name, values) in [("ballast-crds", vec![]), ("ballast", vec!["--set", IMAGE])] {
        let chart = chart(name);
        cluster.helm(&[vec!["lint", "--strict"], values, vec![chart.as_str()]].concat()).unwrap();
    }
    cluster.kubectl(&["create", "namespace", "ballast"]).unwrap();
    let restricted = ["enforce", "warn", "audit"].map(|mode| format!("pod-security.kubernetes.io/{mode}=restricted"));
    let label: Vec<&str> =
        ["label", "namespace", "ballast"].into_iter().chain(restricted.iter().map(String::as_str)).collect();
    cluster.kubectl(&label).unwrap();

    assert_eq!(dry_run(&cluster, "ballast-crds", &[]).matches("created").count(), 4);
    the_definitions_are_those_of_the_repository(&cluster);
    let all = [&[IMAGE][..], ALL].concat();
    for values in [vec![IMAGE], all, vec![IMAGE, "networkPolicy.enabled=false"]] {
        let answer = dry_run(&cluster, "ballast", &values);
        for kind in ["statefulset.apps/ballast ", "service/ballast ", "serviceaccount/ballast ", "clusterrole.rbac"] {
            assert!(answer.contains(kind), "{values:?}: {kind}: {answer}");
        }
        let policy = !values.contains(&"networkPolicy.enabled=false");
        assert_eq!(answer.contains("networkpolicy.networking.k8s.io/ballast "), policy, "{answer}");
    }

    // Every value is described.
    let read = |file: &str| std::fs::read_to_string(workspace::root().join("charts/ballast").join(file)).unwrap();
    let (schema, page) = (read("values.schema.json"), read("README.md"));
    let schema: Value = serde_json::from_str(&schema).unwrap();
    for name in schema["properties"].as_object().unwrap().keys().filter(|name| *name != "global") {
        assert!(page.contains(&format!("`{name}")), "charts/ballast/README.md does not describe {name}");
    }

    // The ports that a network policy lets out are the installation's own.
    let ports = ["--set", "networkPolicy.apiServerPorts={16443}", "--set", "networkPolicy.dnsPorts={1053,53}"];
    let (own, file) = (chart("ballast"), ["--show-only", "templates/networkpolicy.yaml"]);
    let rendered = cluster.helm(&[&["template", "ballast", &own, "--set", IMAGE][..], &ports, &file].concat()).unwrap();
    let out: Vec<&str> = rendered.lines().filter_map(|line| line.trim().strip_prefix("- {port: ")).collect();
    let dns = ["1053, protocol: UDP}", "1053, protocol: TCP}", "53, protocol: UDP}", "53, protocol: TCP}"];
    assert_eq!(out[1..], [&dns[..], &["16443, protocol: TCP}"]].concat(), "{rendered}");

    // One installation per cluster: two would write over each other's objects.
    cluster.helm(&["install", "ballast", &own, "--set", IMAGE, "--namespace", "ballast"]).unwrap();
    for release in ["ballast", "another"] {
        let second = ["install", release, &own, "--set", IMAGE, "--namespace", "second", "--create-namespace"];
        let refused = cluster.helm(&second).unwrap_err().to_string();
        assert!(refused.contains("ballast-operator") && refused.contains("cannot be imported"), "{refused}");
    }

    // What is wrong is said before anything is installed.
    let chart = chart("ballast");
    let wrong = [
        (vec![], "image.repository is empty"),
        (vec!["--set", IMAGE, "--set", "service.type=Tunnel"], "service"),
        (vec!["--set", IMAGE, "--set", "replicas=2"], "replicas"),
        (vec!["--set", IMAGE, "--set", "networkPolicy.dnsPorts[0]=0"], "dnsPorts"),
        (vec!["--set", IMAGE, "--set", "publicEndpoint=http://fleet.example"], "publicEndpoint"),
    ];
    for (values, word) in wrong {
        let arguments = [vec!["template", "ballast", chart.as_str()], values].concat();
        let refused = cluster.helm(&arguments).unwrap_err().to_string();
        assert!(refused.contains(word), "{word}: {refused}");
    }
}
