//! A plant: an API server, an operator that works with what one kubeconfig allows, and gateways.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use ballast_tests::binaries;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use xtask::cluster::Cluster;
use xtask::demo::fleet::tail;
use xtask::demo::http::Connection;
use xtask::demo::traffic::Traffic;
use xtask::process::Process;

use super::charts::{IMAGE, chart};
use super::models::Models;

/// Generous, as in the other whole-system tests: a loaded machine must not fail a good build.
pub const LIMIT: Duration = Duration::from_secs(180);

/// Ends with this value: gateways and operators before the API server.
pub struct Plant {
    gateways: Vec<(Process, PathBuf)>,
    operators: Vec<Process>,
    pub cluster: Cluster,
    pub models: Models,
    pub folder: tempfile::TempDir,
}

impl Plant {
    /// An API server and models; nothing is installed.
    pub fn bare() -> Self {
        let (folder, cluster) = super::start_empty();
        let models = Models::start(folder.path());
        Self { gateways: Vec::new(), operators: Vec::new(), cluster, models, folder }
    }

    /// The same with both charts installed, the operator's in namespace `ballast`, and a team's namespace `plant`.
    pub fn start() -> Self {
        let plant = Self::bare();
        let cluster = &plant.cluster;
        let (definitions, operator) = (chart("ballast-crds"), chart("ballast"));
        cluster.helm(&["install", "ballast-crds", &definitions]).unwrap();
        super::established(cluster);
        let namespace = ["--namespace", "ballast", "--create-namespace"];
        cluster.helm(&[&["install", "ballast", &operator, "--set", IMAGE][..], &namespace].concat()).unwrap();
        cluster.kubectl(&["create", "namespace", "plant"]).unwrap();
        plant
    }

    /// Starts an operator as the pod `identity`, with nothing but a token of the chart's service account; where its log is.
    pub fn start_operator(&mut self, identity: &str) -> Result<PathBuf> {
        let kubeconfig = self.cluster.service_account("ballast", "ballast")?;
        let root = self.folder.path();
        let log = root.join(format!("{identity}.log"));
        let mut command = Command::new(binaries().operator);
        command.args(["--kubernetes", "--namespace", "ballast", "--identity", identity, "--sync", "1s"]);
        command.args(["--listen", "127.0.0.1:0", "--allow-private-sources"]);
        command.arg("--source-ca").arg(&self.models.certificate).arg("--state").arg(root.join("state"));
        command.env("KUBECONFIG", &kubeconfig).env("POD_NAME", identity);
        self.operators.push(Process::start(identity, &mut command, &log)?);
        Ok(log)
    }

    /// SIGTERM to the operator that was started first, and waits for its end.
    pub fn end_operator(&mut self) {
        let mut operator = self.operators.remove(0);
        assert!(operator.end(Duration::from_secs(60)), "{} did not end when asked to", operator.name);
    }

    /// SIGKILL to the operator that was started first.
    pub fn kill_operator(&mut self) {
        self.operators.remove(0).kill();
    }

    /// Waits until the operator that was started first has ended by itself, with a failure; its log.
    pub fn operator_fails(&mut self) -> String {
        let mut operator = self.operators.remove(0);
        let deadline = Instant::now() + LIMIT;
        loop {
            match operator.ended() {
                Some(status) => assert!(!status.success(), "{} ended well", operator.name),
                None if Instant::now() > deadline => panic!("{} goes on:\n{}", operator.name, tail(&operator.log)),
                None => {
                    std::thread::sleep(Duration::from_millis(50));
                    continue;
                }
            }
            return std::fs::read_to_string(&operator.log).unwrap();
        }
    }

    /// Applies an object as the administrator.
    pub fn apply(&self, object: &Value) -> Result<String> {
        self.cluster.kubectl_with(&["apply", "--filename", "-"], &object.to_string())
    }

    /// Lets gateways in, and enrols and starts one.
    pub fn add_gateway(&mut self) -> Result<()> {
        self.apply(&json!({
            "apiVersion": "ballast.dev/v1alpha1",
            "kind": "EnrollmentToken",
            "metadata": {"name": "hall-3", "namespace": "plant"},
            "spec": {"labels": {"hall": "3"}, "uses": 10},
        }))?;
        self.enrol()
    }

    /// Enrols a gateway with the token `hall-3`, and starts it.
    pub fn enrol(&mut self) -> Result<()> {
        let secret =
            ["get", "secret", "hall-3-enrollment", "--namespace", "plant", "--output", "jsonpath={.data.token}"];
        let token = self.until("the token's Secret", |plant| Ok(plant.cluster.kubectl(&secret).ok()))?;
        let n = self.gateways.len() + 1;
        let root = self.folder.path().to_owned();
        let (state, file) = (root.join(format!("gateway-{n}")), root.join(format!("token-{n}")));
        std::fs::write(&file, STANDARD.decode(token.trim())?)?;
        let mut command = Command::new(binaries().edge);
        let output = command.args(["enroll", "--token"]).arg(&file).arg("--state").arg(&state).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let mut command = Command::new(binaries().edge);
        command.arg("run").arg("--state").arg(&state).args(["--http", "127.0.0.1:0"]);
        let log = root.join(format!("gateway-{n}.log"));
        self.gateways.push((Process::start(&format!("gateway-{n}"), &mut command, &log)?, state));
        Ok(())
    }

    /// A deployment of the digits for hall 3, everywhere at once.
    pub fn digits(&self, version: &str) -> Value {
        digits(|file| self.models.uri(file), &json!({"hall": "3"}), version)
    }

    /// The deployment as the API server has it.
    pub fn deployment(&self) -> Result<Value> {
        self.cluster.get(&["mdep", "digits", "--namespace", "plant", "--show-managed-fields"])
    }

    /// Waits with `kubectl wait`.
    pub fn wait_for(&mut self, what: &str) -> Result<()> {
        let (what, timeout) = (format!("--for={what}"), format!("--timeout={}s", LIMIT.as_secs()));
        let waited = self.cluster.kubectl(&["wait", "mdep/digits", "--namespace", "plant", &what, &timeout]);
        waited.map(drop).or_else(|error| bail!("{error:#}\n{}", self.story()))
    }

    /// What is known, for whoever reads a failure.
    fn story(&mut self) -> String {
        let status = self.deployment().map(|d| d["status"].to_string());
        let processes = self.operators.iter().chain(self.gateways.iter().map(|(process, _)| process));
        let logs = processes.map(|p| format!("{}:\n{}", p.name, tail(&p.log)));
        format!("{status:?}\n{}", logs.collect::<Vec<_>>().join("\n"))
    }

    /// Asks again and again, within a bound.
    pub fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.cluster.check()?;
            let processes = self.operators.iter_mut().chain(self.gateways.iter_mut().map(|(process, _)| process));
            for process in processes {
                if let Some(status) = process.ended() {
                    bail!("{} ended ({status}); the end of its log:\n{}", process.name, tail(&process.log));
                }
            }
            if let Some(found) = ask(self)? {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "waited {} s for {what}\n{}", LIMIT.as_secs(), self.story());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn connect(&self, gateway: usize) -> Result<Connection> {
        let text = std::fs::read_to_string(self.gateways[gateway].1.join("http")).context("not up yet")?;
        let address: SocketAddr = text.trim().trim_start_matches("http://").parse()?;
        Ok(Connection::new(address, Duration::from_secs(10)))
    }

    /// Fails unless every gateway gives right answers by `version`.
    pub fn serves(&self, version: &str) -> Result<()> {
        let traffic = Traffic::digits("digits")?;
        for gateway in 0..self.gateways.len() {
            let mut connection = self.connect(gateway)?;
            for image in 0..5 {
                let (body, length) = traffic.binary(image);
                let answer = connection.post("/v2/models/digits/infer", Some(length), &body)?;
                ensure!(answer.status == 200, "gateway {gateway} answered {}", answer.status);
                let answered = traffic.judge(image, &answer)?;
                ensure!(answered.version == version, "gateway {gateway} answers with {}", answered.version);
            }
        }
        Ok(())
    }

    /// Whether the first gateway knows the model.
    pub fn knows(&self) -> Result<bool> {
        Ok(self.connect(0)?.get("/v2/models/digits")?.status == 200)
    }
}

/// A file of the digits example.
pub fn example(file: &str) -> PathBuf {
    let digits = xtask::workspace::digits();
    let path = [digits.join(file), digits.join("models").join(file)].into_iter().find(|path| path.is_file());
    path.unwrap_or_else(|| panic!("{file} is no file of the digits example"))
}

/// The digits in some version, for gateways with these labels, everywhere at once.
pub fn digits(uri: impl Fn(&str) -> String, labels: &Value, version: &str) -> Value {
    let source = |file: &str| {
        let digest = ballast_bundle::Digest::of(&std::fs::read(example(file)).unwrap());
        json!({"uri": uri(file), "digest": digest.to_string()})
    };
    let golden = json!({"source": source("golden.safetensors"), "match": "ArgMax", "minMatching": "90%"});
    json!({
        "apiVersion": "ballast.dev/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": "digits", "namespace": "plant"},
        "spec": {
            "model": {"version": version, "source": source(&format!("digits-{version}.onnx"))},
            "gatewaySelector": {"matchLabels": labels},
            "runtime": {"deadline": "4s"},
            "verification": {"golden": golden},
            "rollout": {
                "steps": [{"gateways": "100%"}],
                "soak": "1s",
                "silenceDeadline": "60s",
                "trial": {"minDuration": "1s", "minRequests": 20, "maxFailures": 0},
            },
        },
    })
}
