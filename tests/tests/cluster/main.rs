//! Ballast on a real Kubernetes API server, with the real kubectl.

mod definitions;
mod refusals;
#[path = "../../../crds/tests/it/wrong.rs"]
mod wrong;

use std::process::Output;

use xtask::cluster::Cluster;
use xtask::workspace;

/// A server that knows Ballast's kinds; all of it ends with these values.
fn start() -> (tempfile::TempDir, Cluster) {
    xtask::process::end_children_with_us();
    let folder = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(folder.path()).unwrap();
    let definitions = workspace::root().join("crds/yaml");
    cluster.kubectl(&["apply", "--server-side", "--filename", definitions.to_str().unwrap()]).unwrap();
    let kinds = ["modeldeployments", "hardwaretargets", "enrollmenttokens", "gateways"];
    for kind in kinds {
        let name = format!("crd/{kind}.ballast.dev");
        cluster.kubectl(&["wait", "--for=condition=Established", "--timeout=60s", &name]).unwrap();
    }
    (folder, cluster)
}

/// What a command says to a person.
fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout)
}
