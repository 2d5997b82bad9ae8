//! `cargo xtask tools`: the programs of Kubernetes that tests run against, built from pinned sources into `target/tools`.
//!
//! `tests/tools/*/go.mod` names the programs and their versions, `go.sum` their contents. What a person already has, in
//! `KUBEBUILDER_ASSETS` or on the PATH, is used instead where it is of the same minor version.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};
use sha2::{Digest as _, Sha256};

use crate::process::run;
use crate::workspace;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// What the API server keeps its objects in.
    Etcd,
    /// The API server.
    ApiServer,
    /// What carries out Kubernetes' own objects: garbage, namespaces, StatefulSets.
    ControllerManager,
    /// The user's command line.
    Kubectl,
    /// Installs charts.
    Helm,
}

impl Tool {
    /// In the order in which they are built: what takes longest shares most with what comes after it.
    pub const ALL: [Self; 5] = [Self::Etcd, Self::ApiServer, Self::Kubectl, Self::ControllerManager, Self::Helm];

    /// The program's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Kubectl => "kubectl",
            Self::Helm => "helm",
        }
    }

    /// Its folder below `tests/tools`, and the module and package there.
    const fn source(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Etcd => ("etcd", "go.etcd.io/etcd/server/v3", "go.etcd.io/etcd/server/v3"),
            Self::ApiServer => ("kubernetes", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
            Self::ControllerManager => {
                ("kubernetes", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager")
            }
            Self::Kubectl => ("kubernetes", "k8s.io/kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
            Self::Helm => ("helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm"),
        }
    }

    /// How it is asked for its version.
    const fn version_arguments(self) -> &'static [&'static str] {
        match self {
            Self::Etcd | Self::ApiServer | Self::ControllerManager => &["--version"],
            Self::Kubectl => &["version", "--client"],
            Self::Helm => &["version", "--short"],
        }
    }

    fn module(self) -> PathBuf {
        workspace::root().join("tests/tools").join(self.source().0)
    }

    /// `vMAJOR.MINOR.PATCH` as `go.mod` pins it.
    fn wanted(self) -> Result<String> {
        let path = self.module().join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        pinned(&text, self.source().1)
            .with_context(|| format!("{} requires no {}", path.display(), self.source().1))
            .map(str::to_owned)
    }
}

/// The version of a module that a `go.mod` requires.
fn pinned<'a>(go_mod: &'a str, module: &str) -> Option<&'a str> {
    go_mod.lines().find_map(|line| {
        let line = line.trim();
        let mut words = line.strip_prefix("require ").unwrap_or(line).split_ascii_whitespace();
        (words.next() == Some(module)).then(|| words.next()).flatten().filter(|version| version.starts_with('v'))
    })
}

/// `(major, minor)` of the first thing in a text that looks like a version.
fn minor(text: &str) -> Option<(u32, u32)> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.'));
    words.filter(|word| word.matches('.').count() >= 2).find_map(|word| {
        let mut numbers = word.trim_start_matches('v').split('.').map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    })
}

/// `cargo xtask tools`: all of them are there afterwards.
pub fn all() -> Result<()> {
    for tool in Tool::ALL {
        println!("{}: {}", tool.name(), path(tool)?.display());
    }
    Ok(())
}

/// Where a tool is: one that a person has, or the one in `target/tools`, which is built if it is not there.
pub fn path(tool: Tool) -> Result<PathBuf> {
    let wanted = tool.wanted()?;
    if let Some(found) = theirs(tool, &wanted) {
        return Ok(found);
    }
    let folder = workspace::target_dir()?.join("tools");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let lock_path = folder.join("lock");
    let lock = File::create(&lock_path).with_context(|| format!("cannot write {}", lock_path.display()))?;
    // Tests of several programs may ask at once; the first one builds.
    lock.lock().with_context(|| format!("cannot lock {}", lock_path.display()))?;
    let (program, stamp) = (folder.join(tool.name()), folder.join(format!("{}.stamp", tool.name())));
    let made = fingerprint(tool, &wanted)?;
    if program.is_file() && fs::read_to_string(&stamp).is_ok_and(|known| known == made) {
        return Ok(program);
    }
    build(tool, &wanted, &program)?;
    fs::write(&stamp, made).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(program)
}

fn build(tool: Tool, wanted: &str, program: &Path) -> Result<()> {
    if !crate::demo::prerequisites::answers("go", "version") {
        bail!(
            "{0} {wanted} is missing: install Go 1.26 or newer (https://go.dev/dl) to build it from pinned sources, or put {0} \
             of the same minor version on the PATH or into the folder that KUBEBUILDER_ASSETS names",
            tool.name()
        );
    }
    println!("building {} {wanted} into {}; this is done once", tool.name(), program.display());
    let started = Instant::now();
    let mut command = Command::new("go");
    command.current_dir(tool.module()).args(build_arguments(tool, wanted)).arg("-o").arg(program).arg(tool.source().2);
    // Static, and nothing but what go.mod and go.sum say.
    run(command.env("CGO_ENABLED", "0").env("GOFLAGS", "-mod=readonly").env("GOWORK", "off"))?;
    println!("built {} in {:.0} s", tool.name(), started.elapsed().as_secs_f64());
    Ok(())
}

fn build_arguments(tool: Tool, wanted: &str) -> [String; 5] {
    // Some take their own version from the linker.
    let version = match tool {
        Tool::Etcd => String::new(),
        Tool::ApiServer | Tool::ControllerManager | Tool::Kubectl => {
            format!(" -X k8s.io/component-base/version.gitVersion={wanted}")
        }
        Tool::Helm => format!(" -X helm.sh/helm/v4/internal/version.version={wanted}"),
    };
    ["build", "-trimpath", "-buildvcs=false", "-ldflags", &format!("-s -w{version}")].map(str::to_owned)
}

/// Of all that decides what is built.
fn fingerprint(tool: Tool, wanted: &str) -> Result<String> {
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = tool.module().join(file);
        hash.update(fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    build_arguments(tool, wanted).iter().for_each(|argument| hash.update(argument));
    Ok(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
}

/// A program that the person has already, if it is of the pinned minor version.
fn theirs(tool: Tool, wanted: &str) -> Option<PathBuf> {
    let assets = std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let candidates = assets.into_iter().chain(std::env::split_paths(&path)).map(|folder| folder.join(tool.name()));
    candidates.filter(|program| program.is_file()).find(|program| fits(tool, program, wanted).is_ok())
}

fn fits(tool: Tool, program: &Path, wanted: &str) -> Result<()> {
    let output = Command::new(program).args(tool.version_arguments()).output().context("it does not start")?;
    ensure!(output.status.success(), "it does not say its version");
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(minor(&said).is_some_and(|found| Some(found) == minor(wanted)), "it is another version");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_is_pinned_by_version_and_content() {
        for tool in Tool::ALL {
            let wanted = tool.wanted().unwrap();
            assert!(minor(&wanted).is_some(), "{}: {wanted}", tool.name());
            let module = fs::read_to_string(tool.module().join("go.mod")).unwrap();
            assert!(module.contains(tool.source().2), "{} is no tool of its go.mod", tool.name());
            let sums = fs::read_to_string(tool.module().join("go.sum")).unwrap();
            assert!(sums.contains(&format!("{} {wanted} h1:", tool.source().1)), "{}: no sum", tool.name());
        }
    }

    #[test]
    fn versions_are_read_as_the_programs_say_them() {
        for (said, version) in [
            ("Kubernetes v1.36.3", (1, 36)),
            ("Client Version: v1.36.3\nKustomize Version: v5.8.0", (1, 36)),
            ("etcd Version: 3.6.16\nGit SHA: GitNotFound\nGo Version: go1.26.8", (3, 6)),
            ("v4.3.1+g1234567", (4, 3)),
        ] {
            assert_eq!(minor(said), Some(version), "{said}");
        }
        for said in ["", "not found", "1.x.y"] {
            assert_eq!(minor(said), None, "{said}");
        }
    }

    #[test]
    fn a_version_is_the_one_that_is_required() {
        let module = "module x\n\ntool a.b/c\n\nrequire (\n\ta.b/c v1.2.3 // indirect\n\ta.b/c/d v0.1.0\n)\nrequire e.f/g v4.5.6\n";
        assert_eq!(pinned(module, "a.b/c"), Some("v1.2.3"));
        assert_eq!(pinned(module, "e.f/g"), Some("v4.5.6"));
        assert_eq!(pinned(module, "h"), None);
    }

    #[test]
    fn a_program_of_another_version_does_not_fit() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("etcd");
        for (said, fit) in [("3.6.1", true), ("3.5.16", false), ("4.6.16", false)] {
            fs::write(&program, format!("#!/bin/sh\necho etcd Version: {said}\n")).unwrap();
            fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
            assert_eq!(fits(Tool::Etcd, &program, "v3.6.16").is_ok(), fit, "{said}");
        }
    }
}
