//! Holds the dependencies to `deny.toml` without cargo-deny: licences, banned names, sources; and keeps out of the
//! gateway what only the cloud needs.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::workspace;

/// Crates that must not reach `ballast-edge`: compilers and Kubernetes.
const CLOUD_ONLY: [&str; 5] = ["cranelift-codegen", "k8s-openapi", "kube", "rten-onnx", "schemars"];

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    license: Option<String>,
    source: Option<String>,
}

/// The two lists of `deny.toml` that are checked here.
#[derive(Debug, PartialEq, Eq)]
struct Rules {
    licences: Vec<String>,
    banned: Vec<String>,
}

/// All that breaks a rule, in one error.
pub fn check() -> Result<()> {
    let rules = Rules::read(&std::fs::read_to_string(workspace::root().join("deny.toml")).context("deny.toml")?);
    let output = workspace::cargo()
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .context("cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata --locked failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let metadata: Metadata = serde_json::from_slice(&output.stdout).context("cargo metadata")?;
    let mut broken: Vec<String> = metadata.packages.iter().filter_map(|p| rules.broken_by(p)).collect();
    let registries: BTreeSet<&String> = metadata.packages.iter().filter_map(|p| p.source.as_ref()).collect();
    ensure!(registries.len() <= 1, "dependencies come from more than one place: {registries:?}");

    let output = workspace::cargo()
        .args(["tree", "--package", "ballast-edge", "--edges", "normal", "--prefix", "none", "--format", "{p}"])
        .output()
        .context("cargo tree")?;
    ensure!(output.status.success(), "cargo tree failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    let tree = String::from_utf8_lossy(&output.stdout);
    let in_tree = |name: &str| tree.lines().any(|line| line.split(' ').next() == Some(name));
    ensure!(in_tree("wasmtime") || in_tree("ballast-bundle"), "cargo tree shows nothing of ballast-edge");
    broken.extend(
        CLOUD_ONLY
            .iter()
            .filter(|n| in_tree(n))
            .map(|n| format!("ballast-edge depends on {n}, which only the cloud needs")),
    );
    ensure!(broken.is_empty(), "{}", broken.join("\n"));
    Ok(())
}

impl Rules {
    fn read(text: &str) -> Self {
        Self { licences: list(text, "allow = ["), banned: list(text, "deny = [") }
    }

    fn broken_by(&self, package: &Package) -> Option<String> {
        let Package { name, version, license, source } = package;
        if self.banned.contains(name) {
            return Some(format!("{name} {version} is banned by deny.toml"));
        }
        if source.as_ref().is_some_and(|s| !s.starts_with("registry+")) {
            return Some(format!("{name} {version} comes from a source that is no registry"));
        }
        let license = license.as_deref().unwrap_or("nothing");
        (!self.permits(license)).then(|| format!("{name} {version} is under {license}, which deny.toml does not allow"))
    }

    /// An SPDX expression: one alternative of every conjunct must be allowed. `/` is the old way to write OR.
    fn permits(&self, expression: &str) -> bool {
        let conjuncts = expression.replace('/', " OR ");
        conjuncts.split(" AND ").all(|conjunct| {
            let conjunct = conjunct.trim().trim_start_matches('(').trim_end_matches(')');
            conjunct.split(" OR ").any(|licence| self.licences.iter().any(|l| l == licence.trim()))
        })
    }
}

/// The strings of a TOML array that starts on a line of its own; enough for our own file.
fn list(text: &str, start: &str) -> Vec<String> {
    let Some(at) = text.lines().position(|line| line.starts_with(start)) else { return Vec::new() };
    let mut out = Vec::new();
    for line in text.lines().skip(at) {
        let line = line.split('#').next().unwrap_or(line);
        out.extend(line.split('"').skip(1).step_by(2).map(str::to_owned));
        if line.trim_end().ends_with(']') {
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> Rules {
        Rules::read(&std::fs::read_to_string(workspace::root().join("deny.toml")).unwrap())
    }

    fn package(name: &str, license: &str, source: &str) -> Package {
        Package { name: name.into(), version: "1".into(), license: Some(license.into()), source: Some(source.into()) }
    }

    const CRATES: &str = "registry+https://registry.example/index";

    #[test]
    fn the_lists_are_found() {
        let rules = rules();
        assert!(rules.licences.contains(&"Apache-2.0 WITH LLVM-exception".to_owned()));
        assert!(rules.banned.contains(&"aws-lc-rs".to_owned()));
    }

    #[test]
    fn what_breaks_a_rule_is_named() {
        let rules = rules();
        assert_eq!(rules.broken_by(&package("a", "MIT OR Apache-2.0", CRATES)), None);
        assert_eq!(rules.broken_by(&package("a", "(GPL-3.0 OR MIT) AND Unicode-3.0", CRATES)), None);
        for bad in [
            package("aws-lc-rs", "MIT", CRATES),
            package("a", "GPL-3.0", CRATES),
            package("a", "MIT AND GPL-3.0", CRATES),
            package("a", "MIT", "git+https://example.com/a"),
        ] {
            assert!(rules.broken_by(&bad).is_some(), "{} {:?}", bad.name, bad.license);
        }
    }
}
