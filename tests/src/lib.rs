//! A fleet for whole-system tests: the demo's processes, in a temporary directory, with bounded waiting.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xtask::demo::documents::{self, Deployment};
use xtask::demo::fleet::{Binaries, Fleet, tail, token_at};
use xtask::demo::http::{Answer, Connection};
use xtask::demo::status::ReleaseStatus;
use xtask::demo::traffic::Traffic;
use xtask::workspace;

/// Generous: a loaded machine must not fail a good build. Nothing waits so long when it works.
const LIMIT: Duration = Duration::from_secs(120);

/// The binaries, built once per test process.
///
/// # Panics
/// When they do not build; no test can run then.
pub fn binaries() -> Binaries {
    static BINARIES: OnceLock<Binaries> = OnceLock::new();
    BINARIES.get_or_init(|| xtask::demo::build().expect("the workspace's binaries build")).clone()
}

/// An operator and its gateways in a directory of their own; all of it ends with this value.
pub struct System {
    /// The processes.
    pub fleet: Fleet,
    folder: tempfile::TempDir,
}

impl System {
    /// An operator and `gateways` gateways.
    pub fn start(gateways: usize) -> Result<Self> {
        // A test that is ended from outside leaves nobody behind.
        xtask::process::end_children_with_us();
        let folder = tempfile::tempdir()?;
        let mut fleet = Fleet::start(folder.path(), binaries(), gateways.max(1))?;
        for _ in 0..gateways {
            fleet.add_gateway(false)?;
        }
        Ok(Self { fleet, folder })
    }

    /// Where everything of it lies.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The directory that the operator watches.
    pub fn directory(&self) -> PathBuf {
        self.fleet.directory()
    }

    /// Puts a file of the digits example into the directory; its digest.
    pub fn add_digits(&self, version: &str) -> Result<String> {
        let name = format!("digits-{version}.onnx");
        self.fleet.add_file(&workspace::digits().join("models").join(&name), &name)
    }

    /// Applies a deployment of the digits and waits until 1.0.0 is Active.
    pub fn with_digits(gateways: usize) -> Result<Self> {
        let mut system = Self::start(gateways)?;
        let digest = system.add_digits("1.0.0")?;
        system.apply(&digits("1.0.0", "digits-1.0.0.onnx", &digest))?;
        system.until_phase("digits", "1.0.0", "Active")?;
        Ok(system)
    }

    /// Writes a deployment's YAML.
    pub fn apply(&self, deployment: &Deployment<'_>) -> Result<()> {
        self.put(&format!("{}.yaml", deployment.name), &deployment.yaml())
    }

    /// Writes a file into the directory.
    pub fn put(&self, name: &str, text: &str) -> Result<()> {
        documents::put(&self.directory(), name, text.as_bytes())
    }

    /// Waits until a release is in a phase; its status.
    pub fn until_phase(&mut self, deployment: &str, version: &str, phase: &str) -> Result<ReleaseStatus> {
        self.until(&format!("{deployment} {version} to be {phase}"), |system| {
            let status = system.fleet.cli.release(deployment, version);
            let found = status.as_ref().is_some_and(|s| s.phase == phase);
            Ok(if found { status } else { None })
        })
    }

    /// Asks again and again, within a bound; the error says what Ballast says meanwhile.
    pub fn until<T>(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Result<Option<T>>) -> Result<T> {
        let deadline = Instant::now() + LIMIT;
        loop {
            self.fleet.check()?;
            if let Some(found) = ask(self)? {
                return Ok(found);
            }
            if Instant::now() > deadline {
                let status = self.fleet.cli.run(&["rollout", "status", "digits"]);
                let log = tail(&self.path().join("logs/operator.log"));
                bail!("waited {} s for {what}; {status:?}; the end of the operator's log:\n{log}", LIMIT.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// A connection to a gateway's inference port.
    pub fn connect(&self, gateway: usize) -> Connection {
        Connection::new(self.fleet.gateways[gateway].http, Duration::from_secs(10))
    }

    /// Fails unless every gateway gives the right answers to the first live images, by `version`.
    pub fn serves(&self, version: &str) -> Result<()> {
        let traffic = Traffic::digits("digits")?;
        for (gateway, g) in self.fleet.gateways.iter().enumerate() {
            let mut connection = self.connect(gateway);
            for image in 0..5 {
                let (body, length) = traffic.binary(image);
                let answer = connection.post("/v2/models/digits/infer", Some(length), &body)?;
                anyhow::ensure!(answer.status == 200, "{} answered {}: {}", g.name, answer.status, text(&answer));
                let answered = traffic.judge(image, &answer)?;
                anyhow::ensure!(answered.version == version, "{} answers with {}", g.name, answered.version);
            }
        }
        Ok(())
    }

    /// The token NAME, as a gateway gets it that reaches the operator directly.
    pub fn token(&self, name: &str) -> Result<String> {
        let text = std::fs::read_to_string(self.path().join("state/tokens").join(name))?;
        token_at(&text, self.fleet.listen())
    }

    /// The operator's log so far.
    pub fn operator_log(&self) -> Result<String> {
        std::fs::read_to_string(self.path().join("logs/operator.log")).context("the operator's log")
    }

    /// Does something, and waits until the operator's log has a line with all of `words` that it had not before.
    pub fn until_said(&mut self, words: &[&str], act: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        let before = self.operator_log()?.len();
        act(self)?;
        self.until(&format!("{words:?} in the operator's log"), |system| {
            let log = system.operator_log()?;
            let found = log[before..].lines().any(|line| words.iter().all(|word| line.contains(word)));
            Ok(found.then_some(()))
        })
    }
}

/// The demo's deployment, everywhere at once and without golden vectors: what tests do not need costs only time.
pub fn digits<'a>(version: &'a str, source: &'a str, digest: &'a str) -> Deployment<'a> {
    let rollout = Deployment { steps: &["\"100%\""], soak: 1, trial: 1, ..Deployment::new("digits", source, digest) };
    Deployment { version, ..rollout }
}

/// An answer's body as text.
pub fn text(answer: &Answer) -> String {
    String::from_utf8_lossy(&answer.body).into_owned()
}
