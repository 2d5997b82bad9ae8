//! The real `tritonclient` asks a real gateway.

use std::path::PathBuf;
use std::process::Command;

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{AssignedDeployment, DeploymentRef, Role};

use crate::fleet::{Fleet, deployment, trial};
use crate::gateway::{Gateway, wait_for};
use crate::models;

/// The environment of the checks written in Python; `cargo xtask test` makes it.
fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("BALLAST_PYTHON") {
        return python.into();
    }
    let target = std::env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned();
    let python = target.join("python/bin/python");
    assert!(python.is_file(), "{} is missing; `cargo xtask test --only tools` makes it", python.display());
    python
}

/// Two models at once, whose tensors have the same names: digits, and digits that take several images.
fn two_models() -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let batched = models::with_contract(models::batched(), |contract| contract.model = "digits-batch".to_owned());
    let deployments = [("digits", models::digits("1.0.0")), ("digits-batch", batched)].map(|(model, artifacts)| {
        let deployment = DeploymentRef { name: model.to_owned(), ..deployment() };
        let release = fleet.release_of(&deployment, &artifacts, "1.0.0", 1, fleet.key(Role::Release));
        let (want, stable) = (Some(release.clone()), Some(release));
        AssignedDeployment { deployment, model: model.to_owned(), want, stable, trial: trial(), escalation: None }
    });
    fleet.assign_all(deployments.into(), Some(fleet.runner_signed_by(Role::Runtime)));
    let gateway = Gateway::started(&fleet);
    let active = |name: &str| {
        let reports = &fleet.state().reports;
        reports.iter().any(|r| r.deployment.name == name && r.state == ReleaseState::Active)
    };
    wait_for("both are active", || active("digits") && active("digits-batch"));
    (fleet, gateway)
}

#[test]
fn tritons_own_client_finds_what_it_expects() {
    let (_fleet, gateway) = two_models();
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut command = Command::new(python());
    command.arg("-B").arg(root.join("tests/python/triton_clients.py")).current_dir(root);
    let output = command.args(["--http", &gateway.address()]).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    // What it must have done at least, so that a script that does nothing is no success.
    let checks: u32 = text.lines().last().and_then(|l| l.strip_suffix(" checks")?.parse().ok()).unwrap_or(0);
    assert!(checks >= 17, "{text}");
}
