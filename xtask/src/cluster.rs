//! A private Kubernetes API server: etcd and kube-apiserver on free ports of this machine with fresh data, RBAC on, up in
//! seconds, ended with the value that holds them.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::demo::fleet::tail;
use crate::process::{Process, interrupted};
use crate::tools::{self, Tool};

/// An API server that has not come up after so long will not; it takes three seconds on an idle machine.
const START: Duration = Duration::from_secs(120);
/// A port that was free may be taken before its program asks for it.
const ATTEMPTS: u32 = 5;
/// Service account tokens are this server's.
const ISSUER: &str = "https://kubernetes.default.svc";

/// The processes; ended when dropped. Their data is thrown away, so nobody is asked to end in order.
#[derive(Debug)]
pub struct Cluster {
    folder: PathBuf,
    kubectl: PathBuf,
    server: String,
    controllers: Option<Process>,
    api: Process,
    etcd: Process,
}

impl Cluster {
    /// Starts one with all its files below `folder`.
    pub fn start(folder: &Path) -> Result<Self> {
        let programs = [tools::path(Tool::Etcd)?, tools::path(Tool::ApiServer)?, tools::path(Tool::Kubectl)?];
        let mut attempt = 1;
        loop {
            match Self::attempt(&folder.join(format!("cluster-{attempt}")), &programs) {
                Err(error) if attempt < ATTEMPTS && !interrupted() && is_about_ports(&error) => attempt += 1,
                other => return other,
            }
        }
    }

    fn attempt(folder: &Path, [etcd, api, kubectl]: &[PathBuf; 3]) -> Result<Self> {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let [store, secure] = free_ports()?;
        let store = format!("http://{store}");
        let mut command = Command::new(etcd);
        command.arg("--data-dir").arg(folder.join("etcd"));
        command.args(["--listen-client-urls", &store, "--advertise-client-urls", &store]);
        // Nobody joins; and a test's data need not survive a power cut.
        command.args(["--listen-peer-urls", "http://127.0.0.1:0", "--unsafe-no-fsync", "--log-level", "warn"]);
        let etcd = Process::start("etcd", &mut command, &folder.join("etcd.log"))?;

        let token = random()?;
        private(&folder.join("tokens.csv"), &format!("{token},admin,admin,system:masters\n"))?;
        let certificates = folder.join("certificates");
        let key = certificates.join("apiserver.key");
        let mut command = Command::new(api);
        command.args(["--etcd-servers", &store, "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"]);
        command.args(["--secure-port", &secure.port().to_string()]).arg("--cert-dir").arg(&certificates);
        command.arg("--token-auth-file").arg(folder.join("tokens.csv"));
        command.args(["--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.0.0.0/24"]);
        // The server makes this key with its certificate, before it reads it for these.
        command.arg("--service-account-key-file").arg(&key).arg("--service-account-signing-key-file").arg(&key);
        command.args(["--service-account-issuer", ISSUER]);
        let (policy, audit) = (folder.join("audit-policy.json"), folder.join("audit.log"));
        let rules = json!([{"level": "Metadata", "omitStages": ["RequestReceived"]}]);
        let rules = json!({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": rules});
        private(&policy, &rules.to_string())?;
        command.arg("--audit-policy-file").arg(policy).arg("--audit-log-path").arg(audit);
        // Its own address is a loopback's, which no endpoint may have.
        command.args(["--endpoint-reconciler-type", "none"]);
        let api = Process::start("kube-apiserver", &mut command, &folder.join("kube-apiserver.log"))?;

        let server = format!("https://{secure}");
        let (folder, kubectl) = (folder.to_owned(), kubectl.clone());
        let mut cluster = Self { folder, kubectl, server, controllers: None, api, etcd };
        cluster.wait_until("its certificate", |c| c.certificate().is_ok())?;
        cluster.write_kubeconfig("admin", &token)?;
        cluster
            .wait_until("an answer", |c| c.kubectl(&["get", "--raw", "/readyz"]).is_ok_and(|ready| ready == "ok"))?;
        Ok(cluster)
    }

    /// Starts the controllers of Kubernetes' own objects as well: garbage collection, namespaces, StatefulSets.
    pub fn start_controllers(&mut self) -> Result<()> {
        let program = tools::path(Tool::ControllerManager)?;
        let mut command = Command::new(program);
        let key = self.folder.join("certificates/apiserver.key");
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--service-account-private-key-file").arg(key);
        command.args(["--use-service-account-credentials", "--leader-elect=false", "--secure-port", "0"]);
        command.arg("--root-ca-file").arg(self.certificate_path());
        let log = self.folder.join("kube-controller-manager.log");
        self.controllers = Some(Process::start("kube-controller-manager", &mut command, &log)?);
        // The first of its works that everybody sees.
        self.wait_until("the service account of a namespace", |c| {
            c.kubectl(&["get", "serviceaccount", "default", "--namespace", "default"]).is_ok()
        })
    }

    fn wait_until(&mut self, what: &str, mut found: impl FnMut(&Self) -> bool) -> Result<()> {
        let deadline = Instant::now() + START;
        while !found(self) {
            self.check()?;
            ensure!(!interrupted(), "interrupted");
            ensure!(
                Instant::now() < deadline,
                "waited {} s for {what} of kube-apiserver; the end of its log:\n{}",
                START.as_secs(),
                tail(&self.api.log)
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// An error if a process ended that should run.
    pub fn check(&mut self) -> Result<()> {
        for process in [&mut self.etcd, &mut self.api].into_iter().chain(&mut self.controllers) {
            if let Some(status) = process.ended() {
                bail!("{} ended ({status}); the end of its log:\n{}", process.name, tail(&process.log));
            }
        }
        Ok(())
    }

    /// `https://127.0.0.1:PORT`.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The administrator's.
    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.join("admin.kubeconfig")
    }

    fn certificate_path(&self) -> PathBuf {
        self.folder.join("certificates/apiserver.crt")
    }

    fn certificate(&self) -> Result<String> {
        let path = self.certificate_path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // With its issuer, whole: it is being written at the first looks.
        ensure!(text.matches("-----END CERTIFICATE-----").count() == 2, "{} is not whole", path.display());
        Ok(text)
    }

    /// A kubeconfig for whoever has `token`; `name` is its file's.
    pub fn write_kubeconfig(&self, name: &str, token: &str) -> Result<PathBuf> {
        let authority = STANDARD.encode(self.certificate()?);
        let config = json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {"server": self.server, "certificate-authority-data": authority}}],
            "users": [{"name": name, "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": name}}],
            "current-context": "test",
        });
        let path = self.folder.join(format!("{name}.kubeconfig"));
        private(&path, &config.to_string())?;
        Ok(path)
    }

    /// A kubeconfig with a short-lived token of a service account: what a pod would work with.
    pub fn service_account(&self, namespace: &str, name: &str) -> Result<PathBuf> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration", "1h"])?;
        self.write_kubeconfig(&format!("{namespace}-{name}"), token.trim())
    }

    /// `kubectl` as the administrator, not started yet.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.kubectl);
        // A cache of its own: what another server of this port once offered is no answer.
        command.arg("--kubeconfig").arg(self.kubeconfig()).arg("--cache-dir").arg(self.folder.join("cache"));
        command.args(arguments);
        command
    }

    /// Runs `kubectl` as the administrator; what it prints.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        let output = self.command(arguments).stdin(Stdio::null()).output().context("cannot start kubectl")?;
        said(arguments, &output)
    }

    /// The same with something on its standard input, a manifest for one.
    pub fn kubectl_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        said(arguments, &self.try_with(arguments, input)?)
    }

    /// The same, however it ends.
    pub fn try_with(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("no pipe")?;
        let input = input.to_owned();
        // Beside the reading below: it may print before it has read all.
        let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
        let output = child.wait_with_output().context("kubectl")?;
        // It may end without having read all; what it says then is the answer.
        drop(writer.join());
        Ok(output)
    }

    /// Runs `helm` as the administrator; what it prints.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::path(Tool::Helm)?);
        command.args(arguments).env("KUBECONFIG", self.kubeconfig()).stdin(Stdio::null());
        // Nothing of the person who runs this.
        for (name, folder) in [("HELM_CACHE_HOME", "cache"), ("HELM_CONFIG_HOME", "config"), ("HELM_DATA_HOME", "data")]
        {
            command.env(name, self.folder.join("helm").join(folder));
        }
        let output = command.output().context("cannot start helm")?;
        let error = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        ensure!(output.status.success(), "helm {}: {}{said}", arguments.join(" "), error.trim());
        Ok(said)
    }

    /// What a user asked for since the start: `(API group, resource, verb)` and the answer's code, from the audit log.
    pub fn asked_by(&self, user: &str) -> Result<BTreeSet<(String, String, String, u64)>> {
        let path = self.folder.join("audit.log");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let mut asked = BTreeSet::new();
        for line in text.lines() {
            // The last line may be half written.
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            if entry["user"]["username"] != user {
                continue;
            }
            let word = |pointer: &str| entry.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (mut resource, part) = (word("/objectRef/resource"), word("/objectRef/subresource"));
            if !part.is_empty() {
                resource = format!("{resource}/{part}");
            }
            let code = entry.pointer("/responseStatus/code").and_then(Value::as_u64).unwrap_or(0);
            asked.insert((word("/objectRef/apiGroup"), resource, word("/verb"), code));
        }
        Ok(asked)
    }

    /// An object or a list as JSON.
    pub fn get(&self, arguments: &[&str]) -> Result<Value> {
        let text = self.kubectl(&[&["get", "--output", "json"], arguments].concat())?;
        serde_json::from_str(&text).context("kubectl's JSON")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(controllers) = &mut self.controllers {
            controllers.kill();
        }
        self.api.kill();
        self.etcd.kill();
    }
}

fn said(arguments: &[&str], output: &Output) -> Result<String> {
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl {}: {}", arguments.join(" "), error.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn is_about_ports(error: &anyhow::Error) -> bool {
    error.to_string().contains("address already in use")
}

/// Free a moment ago.
fn free_ports<const N: usize>() -> Result<[SocketAddr; N]> {
    let listeners: Vec<TcpListener> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<SocketAddr> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("no free ports"))
}

fn random() -> Result<String> {
    let mut bytes = [0_u8; 24];
    std::io::Read::read_exact(&mut fs::File::open("/dev/urandom")?, &mut bytes)?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Writes what only this user may read.
fn private(path: &Path, text: &str) -> Result<()> {
    let open = fs::OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path);
    open.and_then(|mut file| file.write_all(text.as_bytes()))
        .with_context(|| format!("cannot write {}", path.display()))
}
