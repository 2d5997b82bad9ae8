//! What must never be linked into a gateway.

use std::process::Command;

#[test]
fn nothing_of_the_cloud_is_in_the_gateways_tree() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    // Resolved by itself, without the features that other members of the workspace ask for.
    let output = Command::new(cargo)
        .args(["tree", "-p", "ballast-edge", "-e", "normal,build", "--prefix", "none", "--locked", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8(output.stdout).unwrap();
    assert!(tree.contains("wasmtime v"), "{tree}");
    for banned in ["cranelift", "kube", "k8s-openapi", "schemars", "aws-lc", "winch"] {
        // Wasmtime's runtime shares containers with Cranelift that hold no compiler.
        let shared = ["cranelift-bforest", "cranelift-bitset", "cranelift-entity"];
        let found: Vec<_> =
            tree.lines().filter(|l| l.starts_with(banned) && !shared.iter().any(|s| l.starts_with(s))).collect();
        assert!(found.is_empty(), "{found:?}");
    }
}
