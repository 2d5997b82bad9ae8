//! `docs/kubernetes.md`, command by command, as a reader types them. There is no kubelet: where the chart's pod would start,
//! the test starts the operator, with the token of the pod's service account; where the reader carries a token to a gateway,
//! it enrols one.

use std::process::Command;

use xtask::tools::{self, Tool};
use xtask::workspace;

use super::plant::Plant;
use super::said;

/// Contents of the page's `sh` blocks.
fn blocks(page: &str) -> Vec<String> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.strip_prefix("sh\n")).map(str::to_owned).collect()
}

fn run(plant: &Plant, block: &str) -> String {
    let block = block.replace("https://models.example/", &plant.models.uri(""));
    let folders = [Tool::Kubectl, Tool::Helm].map(|tool| tools::path(tool).unwrap().parent().unwrap().to_owned());
    let system = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&system))).unwrap();
    let mut command = Command::new("sh");
    command.args(["-euc", &block]).current_dir(workspace::root());
    command.env("PATH", path).env("KUBECONFIG", plant.cluster.kubeconfig()).env("HOME", plant.folder.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{block}\n{}", said(&output));
    said(&output)
}

#[test]
fn the_page_of_the_operator_on_kubernetes_works_as_written() {
    let page = std::fs::read_to_string(workspace::root().join("docs/kubernetes.md")).unwrap();
    let mut plant = Plant::bare();
    let mut seen = 0;
    for block in blocks(&page) {
        if block.contains("helm uninstall") {
            // Somebody did not withdraw everything first.
            plant.apply(&plant.digits("1.0.0")).unwrap();
            plant.wait_for("jsonpath={.metadata.finalizers[0]}=ballast.dev/withdraw").unwrap();
        }
        let answer = run(&plant, &block);
        let holds = |words: &[&str]| words.iter().for_each(|word| assert!(answer.contains(word), "{word}:\n{answer}"));
        if block.contains("helm install") {
            super::established(&plant.cluster);
            plant.start_operator("ballast-0").unwrap();
        } else if block.contains("kind: EnrollmentToken") {
            holds(&["ballast-token-v1."]);
            plant.enrol().unwrap();
        } else if block.contains("kind: ModelDeployment") {
            holds(&["condition met", "1/1", "silenceDeadline"]);
            plant.serves("1.0.0").unwrap();
        } else if block.contains("status.conditions") {
            holds(&["Ready=True Complete", "Stalled=False", "Fits"]);
        } else if block.contains("helm uninstall") {
            holds(&["kept", "modeldeployments.ballast.dev"]);
        } else if block.contains("finalizers") {
            holds(&["digits patched", "\"digits\" deleted"]);
            let left = plant.cluster.get(&["mdep", "--all-namespaces"]).unwrap();
            assert_eq!(left["items"], serde_json::json!([]));
        } else {
            continue;
        }
        seen += 1;
    }
    assert_eq!(seen, 6, "a block that is judged above is gone from the page");
}
