//! ONNX Runtime in a Python process, driven line by line; `tests/python/engine_peer.py` is the other end.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use ballast_bundle::TensorSpec;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

/// The running peer; ends with its standard input.
pub struct Peer {
    child: Child,
    stdin: ChildStdin,
    stdout: BufReader<ChildStdout>,
}

impl Peer {
    pub fn start() -> Result<Self> {
        let environment = std::env::var_os("BALLAST_PYTHON")
            .context("set BALLAST_PYTHON to a Python with onnxruntime; `cargo xtask bench engine` does")?;
        // Either the interpreter itself or the virtual environment that has it.
        let given = Path::new(&environment);
        let python = if given.is_dir() { given.join("bin/python") } else { given.to_path_buf() };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/engine_peer.py");
        let mut child = Command::new(&python)
            .arg(script)
            .env("OMP_NUM_THREADS", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {}", python.display()))?;
        let stdin = child.stdin.take().context("a pipe")?;
        let stdout = BufReader::new(child.stdout.take().context("a pipe")?);
        Ok(Self { child, stdin, stdout })
    }

    fn ask(&mut self, request: &Value) -> Result<Value> {
        serde_json::to_writer(&mut self.stdin, request)?;
        self.stdin.write_all(b"\n")?;
        self.stdin.flush()?;
        let mut line = String::new();
        self.stdout.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).context("the peer gave no answer; its error is above")?;
        match answer["error"].as_str() {
            Some(error) => bail!("the peer: {error}"),
            None => Ok(answer),
        }
    }

    pub fn version(&mut self) -> Result<String> {
        let answer = self.ask(&json!({"version": true}))?;
        Ok(answer["version"].as_str().context("a version")?.to_owned())
    }

    pub fn load(&mut self, model: &Path) -> Result<()> {
        self.ask(&json!({"load": model.to_str().context("a path in UTF-8")?})).map(drop)
    }

    pub fn inputs(&mut self, specs: &[TensorSpec], inputs: &[Vec<u8>]) -> Result<()> {
        let tensors: serde_json::Map<String, Value> = specs
            .iter()
            .zip(inputs)
            .map(|(spec, bytes)| {
                let tensor = json!({"shape": spec.shape, "datatype": spec.datatype, "data": STANDARD.encode(bytes)});
                (spec.name.clone(), tensor)
            })
            .collect();
        self.ask(&json!({"inputs": tensors})).map(drop)
    }

    pub fn answer(&mut self) -> Result<Vec<Vec<u8>>> {
        let answer = self.ask(&json!({"answer": true}))?;
        let outputs = answer["outputs"].as_array().context("outputs")?;
        outputs.iter().map(|o| Ok(STANDARD.decode(o.as_str().context("base64")?)?)).collect()
    }

    pub fn run(&mut self) -> Result<Duration> {
        let answer = self.ask(&json!({"run": true}))?;
        Ok(Duration::from_nanos(answer["nanos"].as_u64().context("nanoseconds")?))
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
