//! The real `ballast-edge`, started as a person would start it.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::fleet::Fleet;

pub(crate) struct Gateway {
    pub(crate) dir: tempfile::TempDir,
    child: Option<Child>,
}

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ballast-edge"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Polls until it is so. The bound is for a machine that does ten other things.
pub(crate) fn wait_for(what: &str, mut so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !so() {
        assert!(start.elapsed() < Duration::from_secs(120), "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

impl Gateway {
    pub(crate) fn enrolled(fleet: &Fleet) -> Self {
        let gateway = Self { dir: tempfile::tempdir().unwrap(), child: None };
        let output = run(&["enroll", "--token", &fleet.token(), "--state", gateway.state()]);
        assert!(output.status.success(), "{}", stderr(&output));
        gateway
    }

    pub(crate) fn started(fleet: &Fleet) -> Self {
        let mut gateway = Self::enrolled(fleet);
        gateway.start(&[]);
        gateway
    }

    pub(crate) fn state(&self) -> &str {
        self.dir.path().to_str().unwrap()
    }

    pub(crate) fn start(&mut self, more: &[&str]) {
        let log = std::fs::File::create(self.dir.path().join("log")).unwrap();
        let mut arguments =
            vec!["run", "--state", self.state(), "--set", "serve.http=127.0.0.1:0", "--set", "fetch.retry_seconds=0"];
        arguments.extend(more);
        let child = command(&arguments).stderr(Stdio::from(log)).spawn().unwrap();
        self.child = Some(child);
        let file = self.dir.path().join("http");
        wait_for("it serves", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {}", self.log());
            file.exists()
        });
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// As a power cut would.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            child.wait().unwrap();
            let _ = std::fs::remove_file(self.dir.path().join("http"));
        }
    }

    /// SIGTERM; whether it ended well.
    pub(crate) fn terminate(&mut self) -> bool {
        let mut child = self.child.take().unwrap();
        let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
        assert!(killed.success());
        child.wait().unwrap().success()
    }

    pub(crate) fn address(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("http")).unwrap().trim().to_owned()
    }

    pub(crate) fn status(&self) -> Value {
        let output = run(&["status", "--state", self.state(), "-o", "json"]);
        assert!(output.status.success(), "{}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    pub(crate) fn call(&self, method: &str, path: &str, headers: &[(&str, String)], body: &[u8]) -> Reply {
        call(&self.address(), method, path, headers, body).unwrap()
    }

    pub(crate) fn image(&self, image: &[u8]) -> Reply {
        infer(&self.address(), image).unwrap()
    }

    pub(crate) fn metrics(&self) -> String {
        let reply = self.call("GET", "/metrics", &[], b"");
        assert_eq!(reply.status, 200, "{reply:?}");
        String::from_utf8(reply.body).unwrap()
    }

    /// Whether this version answers now.
    pub(crate) fn answers_as(&self, version: &str, by: &str) -> bool {
        let reply = self.image(&[0; 256]);
        reply.status == 200 && reply.version() == version && reply.by() == by
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let failed = std::thread::panicking();
        self.kill();
        if failed {
            eprintln!("--- log of the gateway\n{}", self.log());
        }
    }
}

#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = |line: &&str| line.to_ascii_lowercase().starts_with(&format!("{name}:"));
        self.head.lines().find(found).and_then(|line| line.split_once(':')).map(|(_, value)| value.trim())
    }

    pub(crate) fn json(&self) -> Value {
        let length = self.header("inference-header-content-length").map_or(self.body.len(), |l| l.parse().unwrap());
        serde_json::from_slice(&self.body[..length]).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    pub(crate) fn error(&self) -> String {
        self.json()["error"].as_str().unwrap().to_owned()
    }

    pub(crate) fn version(&self) -> String {
        self.json()["model_version"].as_str().unwrap().to_owned()
    }

    pub(crate) fn by(&self) -> String {
        self.json()["parameters"]["ballast_answered_by"].as_str().unwrap().to_owned()
    }

    /// Of a binary answer with one FP32 output.
    pub(crate) fn scores(&self) -> Vec<f32> {
        let length: usize = self.header("inference-header-content-length").unwrap().parse().unwrap();
        self.body[length..].chunks_exact(4).map(|c| f32::from_le_bytes(c.try_into().unwrap())).collect()
    }
}

/// One image by the binary extension.
pub(crate) fn infer(address: &str, image: &[u8]) -> std::io::Result<Reply> {
    hear(ask(address, image)?)
}

/// Connects and asks; the answer can be heard later.
pub(crate) fn ask(address: &str, image: &[u8]) -> std::io::Result<TcpStream> {
    let head = json!({
        "parameters": {"binary_data_output": true},
        "inputs": [{"name": "image", "shape": [1, 1, 8, 8], "datatype": "FP32", "parameters": {"binary_data_size": image.len()}}],
    })
    .to_string();
    let length = [("Inference-Header-Content-Length", head.len().to_string())];
    send(address, "POST", "/v2/models/digits/infer", &length, &[head.as_bytes(), image].concat())
}

pub(crate) fn call(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<Reply> {
    hear(send(address, method, path, headers, body)?)
}

fn send(
    address: &str,
    method: &str,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut head =
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    // A server that refuses early does not read the rest.
    let _ = stream.write_all(body);
    Ok(stream)
}

pub(crate) fn hear(mut stream: TcpStream) -> std::io::Result<Reply> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    let cut = || std::io::Error::new(std::io::ErrorKind::UnexpectedEof, "no whole answer");
    let end = all.windows(4).position(|w| w == b"\r\n\r\n").ok_or_else(cut)?;
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|s| s.parse().ok()).ok_or_else(cut)?;
    let body = all.split_off(end + 4);
    let reply = Reply { status, head, body };
    let length: usize = reply.header("content-length").and_then(|l| l.parse().ok()).ok_or_else(cut)?;
    if reply.body.len() != length { Err(cut()) } else { Ok(reply) }
}
