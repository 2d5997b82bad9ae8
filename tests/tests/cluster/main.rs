//! Ballast on a real Kubernetes API server, with the real kubectl.

mod charts;
mod conformance;
mod definitions;
mod models;
mod operator;
mod page;
mod plant;
mod refusals;
#[path = "../../../crds/tests/it/wrong.rs"]
mod wrong;

use std::process::Output;

use xtask::cluster::Cluster;
use xtask::workspace;

/// A server without anything of Ballast's; all of it ends with these values.
fn start_empty() -> (tempfile::TempDir, Cluster) {
    xtask::process::end_children_with_us();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path()).unwrap();
    (folder, cluster)
}

/// One that knows Ballast's kinds.
fn start() -> (tempfile::TempDir, Cluster) {
    let (folder, cluster) = start_empty();
    let definitions = workspace::root().join("crds/yaml");
    cluster.kubectl(&["apply", "--server-side", "--filename", definitions.to_str().unwrap()]).unwrap();
    established(&cluster);
    (folder, cluster)
}

/// Waits until the kinds are served.
fn established(cluster: &Cluster) {
    for kind in ["modeldeployments", "hardwaretargets", "enrollmenttokens", "gateways"] {
        let name = format!("crd/{kind}.ballast.dev");
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]).unwrap();
    }
}

/// What a command says to a person.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
