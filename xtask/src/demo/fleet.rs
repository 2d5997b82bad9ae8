//! The fleet on this machine: one operator, its directory, N gateways with their own state, ports and cables.

use std::ffi::OsString;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::net::{self, AddressFamily, SocketType, sockopt};
use sha2::{Digest as _, Sha256};

use super::documents;
use super::proxy::Cable;
use super::status::Cli;
use crate::process::{Process, interrupted};

/// A child that has not come up after so long will not.
const START: Duration = Duration::from_secs(30);

/// The address that the trust root gives to gateways. Nobody listens there, so each of them keeps to the endpoint that it
/// enrolled at: a cable of its own, which can be cut.
const NOWHERE: &str = "https://127.0.0.1:1";

/// The three binaries.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `ballast-operator`.
    pub operator: PathBuf,
    /// `ballast-edge`.
    pub edge: PathBuf,
    /// `ballast`.
    pub cli: PathBuf,
}

impl Binaries {
    /// All of one folder.
    pub fn of(folder: &Path) -> Self {
        Self {
            operator: folder.join("ballast-operator"),
            edge: folder.join("ballast-edge"),
            cli: folder.join("ballast"),
        }
    }
}

/// One gateway.
#[derive(Debug)]
pub struct Gateway {
    /// `gateway-1`, ….
    pub name: String,
    /// Where it answers.
    pub http: SocketAddr,
    /// Its way to the operator.
    pub cable: Cable,
    /// Denied newer CPU features, so that it needs another build.
    pub held_back: bool,
    /// Arguments of `ballast-edge run`.
    run: Vec<OsString>,
    log: PathBuf,
    process: Process,
}

impl Gateway {
    /// Of its process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }
}

/// How a gateway is started where that is not as the others are.
#[derive(Debug, Clone, Default)]
pub struct Seat<'a> {
    /// Denied newer CPU features, so that it needs another build.
    pub held_back: bool,
    /// `--set KEY=VALUE`.
    pub sets: &'a [&'a str],
    /// A program and its first arguments instead of the fleet's `ballast-edge`: an emulator, for one.
    pub program: &'a [OsString],
}

/// Everything that runs; ended when dropped.
#[derive(Debug)]
pub struct Fleet {
    /// Holds logs, states, the directory.
    pub root: PathBuf,
    /// The user's command line.
    pub cli: Cli,
    /// All of them.
    pub gateways: Vec<Gateway>,
    binaries: Binaries,
    listen: SocketAddr,
    _port: OwnedFd,
    operator: Option<Process>,
}

impl Fleet {
    /// Makes the directory and starts the operator; no gateway yet.
    pub fn start(root: &Path, binaries: Binaries, gateways: usize) -> Result<Self> {
        for folder in ["fleet", "logs", "gateways"] {
            fs::create_dir_all(root.join(folder))
                .with_context(|| format!("cannot make {}", root.join(folder).display()))?;
        }
        documents::put(&root.join("fleet"), "fleet.yaml", documents::FLEET.as_bytes())?;
        documents::put(&root.join("fleet"), "token.yaml", documents::token(gateways).as_bytes())?;
        // A socket's path may have about 100 bytes: the target directory's may be longer.
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = std::env::temp_dir().join(format!("ballast-demo-{}-{number}.sock", std::process::id()));
        let cli = Cli { binary: binaries.cli.clone(), socket };
        let (port, listen) = reserve_port().context("no free port")?;
        let mut fleet =
            Self { root: root.to_owned(), cli, gateways: Vec::new(), binaries, listen, _port: port, operator: None };
        fleet.start_operator()?;
        Ok(fleet)
    }

    /// Where the operator listens.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// The directory that the operator watches.
    pub fn directory(&self) -> PathBuf {
        self.root.join("fleet")
    }

    fn operator_state(&self) -> PathBuf {
        self.root.join("state")
    }

    /// Starts the operator, on the port of last time if there was one, and waits until it answers.
    pub fn start_operator(&mut self) -> Result<()> {
        let mut command = Command::new(&self.binaries.operator);
        command.arg("--directory").arg(self.directory()).arg("--state").arg(self.operator_state());
        command.arg("--listen").arg(self.listen.to_string()).arg("--admin-socket").arg(&self.cli.socket);
        command.args(["--public-endpoint", NOWHERE]);
        // Gateways hear of a new release with their next sync: by default within a minute.
        command.args(["--sync", "1s"]);
        self.operator = Some(Process::start("ballast-operator", &mut command, &self.root.join("logs/operator.log"))?);
        let deadline = Instant::now() + START;
        while let Err(error) = self.cli.run(&["gateways", "list", "-o", "json"]) {
            self.check()?;
            ensure!(Instant::now() < deadline && !interrupted(), "the operator does not answer: {error:#}");
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// As in a power cut.
    pub fn kill_operator(&mut self) {
        if let Some(mut operator) = self.operator.take() {
            operator.kill();
        }
    }

    /// Enrols and starts one more gateway.
    pub fn add_gateway(&mut self, held_back: bool) -> Result<()> {
        self.add(&Seat { held_back, ..Seat::default() })
    }

    /// The same for one that is not as the others are.
    pub fn add(&mut self, seat: &Seat<'_>) -> Result<()> {
        let held_back = seat.held_back;
        let name = format!("gateway-{}", self.gateways.len() + 1);
        let folder = self.root.join("gateways").join(&name);
        let state = folder.join("state");
        fs::create_dir_all(&folder)?;
        let cable = Cable::lay(self.listen).context("no free port")?;
        let token = self.wait_for_file(&self.operator_state().join("tokens/demo"), None)?;
        let token_file = folder.join("token");
        fs::write(&token_file, token_at(&token, cable.address())?)?;
        let deny = if held_back { denied_features() } else { &[] };
        let config = format!(
            "# Written by the demo; every key is described in docs/edge-configuration.md
state = {state:?}
name = \"{name}\"

[serve]
http = \"127.0.0.1:0\"

[cpu_features]
deny = {deny:?}

# Short for the demo: after a cut it is soon back.
[sync]
max_backoff_seconds = 2

[fetch]
retry_seconds = 1
"
        );
        let config_file = folder.join("edge.toml");
        fs::write(&config_file, config)?;
        let sets = || seat.sets.iter().flat_map(|set| ["--set", set]);
        let output = self
            .edge(seat.program)
            .args(["enroll", "--config"])
            .arg(&config_file)
            .args(sets())
            .arg("--token")
            .arg(&token_file)
            .arg("--state")
            .arg(&state)
            .output()
            .context("cannot start ballast-edge enroll")?;
        ensure!(output.status.success(), "{name} could not enrol: {}", String::from_utf8_lossy(&output.stderr).trim());
        let mut run: Vec<OsString> = vec!["run".into(), "--config".into(), config_file.into()];
        run.extend(sets().map(OsString::from));
        let log = self.root.join(format!("logs/{name}.log"));
        let mut process = Process::start(&name, self.edge(seat.program).args(&run), &log)?;
        let http = self.wait_until_served(&name, &state, &mut process)?;
        self.gateways.push(Gateway { name, http, cable, held_back, run, log, process });
        Ok(())
    }

    fn edge(&self, program: &[OsString]) -> Command {
        let Some((program, arguments)) = program.split_first() else { return Command::new(&self.binaries.edge) };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    fn wait_until_served(&mut self, name: &str, state: &Path, process: &mut Process) -> Result<SocketAddr> {
        let http = self.wait_for_file(&state.join("http"), Some(process))?;
        http.trim_start_matches("http://").parse().with_context(|| format!("{name} says it serves at {http:?}"))
    }

    /// Ends a gateway and starts it again by another program (see [`Seat::program`]), with the state that it had.
    pub fn restart_gateway(&mut self, index: usize, program: &[OsString]) -> Result<()> {
        ensure!(index < self.gateways.len(), "no such gateway");
        // Taken out meanwhile: it is no failure that its process ended.
        let mut gateway = self.gateways.remove(index);
        ensure!(gateway.process.end(START), "{} did not end when asked to", gateway.name);
        gateway.process = Process::start(&gateway.name, self.edge(program).args(&gateway.run), &gateway.log)?;
        let state = self.root.join("gateways").join(&gateway.name).join("state");
        gateway.http = self.wait_until_served(&gateway.name, &state, &mut gateway.process)?;
        self.gateways.insert(index, gateway);
        Ok(())
    }

    /// Kinds of gateways, each of which needs a build of its own: two, where one is held back and this machine has
    /// something to hold back.
    pub fn kinds(&self) -> usize {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let newer = ["avx2", "atomics"].iter().any(|flag| cpu.split_ascii_whitespace().any(|word| word == *flag));
        1 + usize::from(newer && self.gateways.iter().any(|g| g.held_back))
    }

    /// An error if a process ended that should run.
    pub fn check(&mut self) -> Result<()> {
        let processes = self.operator.iter_mut().chain(self.gateways.iter_mut().map(|g| &mut g.process));
        for process in processes {
            if let Some(status) = process.ended() {
                bail!("{} ended ({status}); the end of its log:\n{}", process.name, tail(&process.log));
            }
        }
        Ok(())
    }

    /// Copies a file into the directory; its digest.
    pub fn add_file(&self, from: &Path, name: &str) -> Result<String> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        documents::put(&self.directory(), name, &bytes)?;
        Ok(format!("sha256:{}", Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect::<String>()))
    }

    fn wait_for_file(&mut self, path: &Path, mut process: Option<&mut Process>) -> Result<String> {
        let deadline = Instant::now() + START;
        loop {
            if let Ok(text) = fs::read_to_string(path)
                && !text.trim().is_empty()
            {
                return Ok(text.trim().to_owned());
            }
            self.check()?;
            if let Some(process) = process.as_deref_mut()
                && let Some(status) = process.ended()
            {
                bail!("{} ended ({status}); the end of its log:\n{}", process.name, tail(&process.log));
            }
            ensure!(!interrupted(), "interrupted");
            ensure!(Instant::now() < deadline, "{} did not appear within {} s", path.display(), START.as_secs());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // All are asked first, then each is waited for.
        self.gateways.iter_mut().for_each(|g| g.process.ask_to_end());
        self.operator.iter_mut().for_each(Process::ask_to_end);
        self.gateways.clear();
        self.operator = None;
        let _ = fs::remove_file(&self.cli.socket);
    }
}

/// A port that is the operator's over all its restarts: bound here without listening, so that nobody else is given it;
/// who asks for it by number (with `SO_REUSEADDR`, as every server does) gets it.
pub(super) fn reserve_port() -> Result<(OwnedFd, SocketAddr)> {
    let socket = net::socket(AddressFamily::INET, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0))?;
    let address = net::getsockname(&socket)?.try_into()?;
    Ok((socket, address))
}

/// The token with another address of the operator, a cable's for one: the gateway knows no other way. TLS goes through
/// unread, and the certificate is checked against the same pinned CA.
pub fn token_at(token: &str, address: SocketAddr) -> Result<String> {
    const PREFIX: &str = "ballast-token-v1.";
    let body = token.trim().strip_prefix(PREFIX).context("not an enrolment token")?;
    let mut json: serde_json::Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body)?)?;
    json["endpoint"] = format!("https://{address}").into();
    Ok(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json.to_string())))
}

/// What a machine one generation older does not have.
fn denied_features() -> &'static [&'static str] {
    if cfg!(target_arch = "x86_64") {
        &["avx2", "fma", "bmi1", "bmi2"]
    } else {
        &["lse", "dotprod", "rdm", "rcpc", "fp16"]
    }
}

/// The last lines of a log.
pub fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(15)..].iter().map(|l| format!("    {l}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_free_for_its_owner_only() {
        let (port, address) = reserve_port().unwrap();
        for _ in 0..3 {
            drop(std::net::TcpListener::bind(address).unwrap());
        }
        for _ in 0..100 {
            let other = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
            assert_ne!(other.local_addr().unwrap(), address);
        }
        drop(port);
    }

    #[test]
    fn only_the_endpoint_of_a_token_changes() {
        let token = format!(
            "ballast-token-v1.{}",
            URL_SAFE_NO_PAD.encode(r#"{"endpoint":"https://a:1","caSha256":"x","secret":"s"}"#)
        );
        let changed = token_at(&token, "127.0.0.1:9".parse().unwrap()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(
            &URL_SAFE_NO_PAD.decode(changed.strip_prefix("ballast-token-v1.").unwrap()).unwrap(),
        )
        .unwrap();
        assert_eq!(json, serde_json::json!({"endpoint": "https://127.0.0.1:9", "caSha256": "x", "secret": "s"}));
        assert!(token_at("something else", "127.0.0.1:9".parse().unwrap()).is_err());
    }
}
