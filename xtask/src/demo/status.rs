//! What Ballast says of the rollout: `ballast rollout status NAME -o json`, as any user would ask.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

/// The user's command line.
#[derive(Debug, Clone)]
pub struct Cli {
    /// The `ballast` binary.
    pub binary: PathBuf,
    /// The administrator's socket.
    pub socket: PathBuf,
}

/// The part that the demo reads.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// Newest last, refused ones too.
    pub releases: Vec<ReleaseStatus>,
}

/// One release.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReleaseStatus {
    /// `spec.model.version`.
    pub version: String,
    /// `RollingOut`, `Active`, `RolledBack`, `Refused`, `Superseded`, `Paused`, ….
    pub phase: String,
    /// Machine-readable.
    pub reason: Option<String>,
    /// For people.
    pub message: Option<String>,
    /// How far the rollout is.
    pub gateways: GatewayCounts,
    /// Detection to first fallback answer, the maximum.
    pub rollback_millis: Option<f64>,
    /// What it was built for.
    pub targets: Vec<TargetStatus>,
}

/// Counts of gateways.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayCounts {
    /// Enrolled and selected.
    pub selected: u64,
    /// With a target that the release was built for.
    pub eligible: u64,
    /// Passed their trial.
    pub updated: u64,
    /// Rolled back.
    pub failed: u64,
}

/// One target.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct TargetStatus {
    /// `x86-64-v3`, ….
    pub name: String,
    /// The bundle's manifest; absent when nothing was signed.
    pub digest: Option<String>,
    /// Of the bundle.
    pub size_bytes: Option<u64>,
}

/// What `ballast gateways show` says of a gateway, as far as it is read here.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayStatus {
    /// Its HardwareTarget, once it has one.
    pub target: Option<String>,
    /// What it reports of itself.
    pub facts: GatewayFacts,
    /// Of every release that it has or had.
    pub reports: Vec<ReleaseReport>,
}

/// See [`GatewayStatus`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GatewayFacts {
    /// Measured by the gateway with its first runner.
    pub speed: Option<Speed>,
}

/// Of one thread in the sandbox.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    /// f32 matrix product, GFLOP/s.
    pub gflops: f64,
    /// Streaming read, GB/s.
    pub memory_bandwidth: f64,
}

/// See [`GatewayStatus`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ReleaseReport {
    /// Which deployment's.
    pub deployment: DeploymentName,
    /// `spec.model.version`.
    pub version: String,
    /// `Active`, `Candidate`, `Fallback`; none when it is gone.
    pub slot: Option<String>,
    /// `Fetching`, … `Active`, `RolledBack`.
    pub state: String,
    /// For people.
    pub message: Option<String>,
}

/// See [`ReleaseReport`].
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct DeploymentName {
    /// `metadata.name`.
    pub name: String,
}

impl Cli {
    /// `ballast …` with the socket.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(&self.socket);
        command
    }

    /// Its standard output, or what it complained of.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self
            .command()
            .args(arguments)
            .output()
            .with_context(|| format!("cannot start {}", self.binary.display()))?;
        ensure!(
            output.status.success(),
            "ballast {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        String::from_utf8(output.stdout).context("ballast wrote something that is not UTF-8")
    }

    /// The rollout of one deployment.
    pub fn status(&self, deployment: &str) -> Result<Status> {
        let text = self.run(&["rollout", "status", deployment, "-o", "json"])?;
        serde_json::from_str(&text).context("ballast rollout status -o json")
    }

    /// One gateway, by its name.
    pub fn gateway(&self, name: &str) -> Result<GatewayStatus> {
        let text = self.run(&["gateways", "show", name, "-o", "json"])?;
        serde_json::from_str(&text).context("ballast gateways show -o json")
    }

    /// One release of it, once Ballast knows of it. Not being able to ask (the operator is down) is "not yet".
    pub fn release(&self, deployment: &str, version: &str) -> Option<ReleaseStatus> {
        let status = self.status(deployment).ok()?;
        // A version that was published twice (a retry) counts by its newest attempt.
        status.releases.into_iter().rfind(|r| r.version == version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_we_do_not_read_do_not_matter_and_absent_ones_are_empty() {
        let text = r#"{"kind":"ModelDeployment","releases":[{"version":"1.0.0","counter":5,"phase":"Active",
            "gateways":{"selected":5,"updated":5,"silent":0},"targets":[{"name":"x86-64","verdict":"Fits"}]}]}"#;
        let status: Status = serde_json::from_str(text).unwrap();
        assert_eq!(status.releases[0].gateways.updated, 5);
        assert_eq!(status.releases[0].targets[0].digest, None);
    }
}
