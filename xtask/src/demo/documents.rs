//! The YAML files that the demo puts into the operator's directory: what a user would write.

use std::path::Path;

use anyhow::{Context, Result};

/// The demo's deployment and the name it serves under.
pub const DEPLOYMENT: &str = "digits";

/// Marks the directory as a fleet's, so that an unmounted one does not read as "delete everything".
pub const FLEET: &str = "\
apiVersion: ballast.dev/v1alpha1
kind: Fleet
metadata:
  name: demo
";

/// Lets `uses` gateways in.
pub fn token(uses: usize) -> String {
    format!(
        "\
apiVersion: ballast.dev/v1alpha1
kind: EnrollmentToken
metadata:
  name: demo
spec:
  labels:
    fleet: demo
  uses: {uses}
"
    )
}

/// One version of a model.
#[derive(Debug, Clone)]
pub struct Deployment<'a> {
    /// `metadata.name`.
    pub name: &'a str,
    /// `spec.model.version`.
    pub version: &'a str,
    /// Below the directory.
    pub source: &'a str,
    /// `sha256:…` of the source.
    pub digest: &'a str,
    /// Digest of `golden.safetensors`, if there is one.
    pub golden: Option<&'a str>,
    /// Shapes of inputs that the model leaves open.
    pub shapes: &'a [(String, Vec<u64>)],
    /// From dequeue to answer, in seconds. Long: gateways that share one machine's cores with each other, and with a
    /// compiler, wait for their turn, which is not the model's fault.
    pub deadline: u32,
    /// Whether an output must be finite; switched off only to force a bad release through.
    pub finite_outputs: bool,
    /// Of the rollout, in order.
    pub steps: &'a [&'a str],
    /// Length of soak and trial, in seconds: short, the defaults are minutes.
    pub soak: u32,
    /// See `soak`.
    pub trial: u32,
    /// Of a trial; without traffic golden replays count.
    pub min_requests: u32,
    /// The label that gateways must have.
    pub selects: &'a str,
}

impl<'a> Deployment<'a> {
    /// Version 1 of a model that says everything itself, for every gateway.
    pub fn new(name: &'a str, source: &'a str, digest: &'a str) -> Self {
        Self {
            name,
            version: "1",
            source,
            digest,
            golden: None,
            shapes: &[],
            deadline: 4,
            finite_outputs: true,
            steps: &["1", "\"50%\"", "\"100%\""],
            soak: 1,
            trial: 2,
            min_requests: 20,
            selects: "fleet: demo",
        }
    }

    /// As YAML.
    pub fn yaml(&self) -> String {
        let Self { name, version, source, digest, golden, shapes, finite_outputs, selects, .. } = self;
        let Self { deadline, steps, soak, trial, min_requests, .. } = self;
        let steps: String = steps.iter().map(|step| format!("    - gateways: {step}\n")).collect();
        let mut inputs = String::new();
        if !shapes.is_empty() {
            inputs.push_str("    inputs:\n");
        }
        for (input, shape) in *shapes {
            inputs.push_str(&format!("    - {{name: {input:?}, shape: {shape:?}}}\n"));
        }
        let golden = golden.map_or(String::new(), |digest| {
            format!(
                "    golden:
      source:
        uri: file:///golden.safetensors
        digest: \"{digest}\"
      match: ArgMax
      minMatching: \"90%\"
"
            )
        });
        format!(
            "\
apiVersion: ballast.dev/v1alpha1
kind: ModelDeployment
metadata:
  name: {name}
spec:
  model:
    version: \"{version}\"
    source:
      uri: file:///{source}
      digest: \"{digest}\"
{inputs}  gatewaySelector:
    matchLabels:
      {selects}
  runtime:
    deadline: {deadline}s
  verification:
{golden}    finiteOutputs: {finite_outputs}
  rollout:
    steps:
{steps}    soak: {soak}s
    silenceDeadline: 60s
    trial:
      minDuration: {trial}s
      minRequests: {min_requests}
      maxFailures: 0
"
        )
    }
}

/// Writes a file so that a watcher never sees half of it.
pub fn put(directory: &Path, name: &str, text: &[u8]) -> Result<()> {
    let (hidden, path) = (directory.join(format!(".{name}.new")), directory.join(name));
    std::fs::write(&hidden, text)
        .and_then(|()| std::fs::rename(&hidden, &path))
        .with_context(|| format!("cannot write {}", path.display()))
}
