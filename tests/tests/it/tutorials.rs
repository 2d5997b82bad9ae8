//! The tutorials in `docs/`, command by command, as a reader types them: blocks of `sh` run and must succeed, blocks of `sh &` run
//! beside the rest as in another terminal, and blocks of Python that begin with a file's name are that file.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use ballast_tests::binaries;
use xtask::process::Group;
use xtask::{python, workspace};

/// Programs that a page may name, and ports that it may: each test has its own.
const PORTS: [&str; 2] = ["127.0.0.1:8443", "127.0.0.1:8000"];

struct Page {
    folder: tempfile::TempDir,
    path: std::ffi::OsString,
    ports: Vec<(&'static str, String)>,
    /// Ended when the page is.
    terminals: Vec<Group>,
    /// Scripts that stand in for a page's own.
    instead: Vec<(&'static str, PathBuf)>,
}

impl Page {
    fn new(instead: Vec<(&'static str, PathBuf)>) -> Self {
        xtask::process::end_children_with_us();
        let programs = binaries();
        let python = python::environment().expect("the environment of the Python checks");
        let folders = [programs.cli.parent(), programs.edge.parent(), python.parent()];
        let own = folders.into_iter().flatten().map(Path::to_path_buf);
        let system = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths(own.chain(std::env::split_paths(&system))).unwrap();
        // Held together, so that they are different ones.
        let held: Vec<TcpListener> = PORTS.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let ports = PORTS.into_iter().zip(held.iter().map(|l| l.local_addr().unwrap().to_string())).collect();
        Self { folder: tempfile::tempdir().unwrap(), path, ports, terminals: Vec::new(), instead }
    }

    /// Everything that the page's commands printed.
    fn read(&mut self, page: &str) -> String {
        let text = std::fs::read_to_string(workspace::root().join("docs").join(page)).unwrap();
        let mut said = String::new();
        for (kind, body) in blocks(&text) {
            let body = self.ports.iter().fold(body, |text, (written, own)| text.replace(written, own));
            match kind.as_str() {
                "sh" => said.push_str(&self.run(page, &body)),
                "sh &" => {
                    let mut command = self.command(&body);
                    command.stdout(Stdio::null()).stderr(Stdio::null());
                    self.terminals.push(Group::spawn(&mut command).unwrap());
                }
                "python" => {
                    let name = body.lines().next().and_then(|line| line.strip_prefix("# ")).unwrap_or_default();
                    assert!(
                        name.ends_with(".py") && !name.contains('/'),
                        "{page}: a block of Python begins with its name"
                    );
                    let own = self.instead.iter().find(|(known, _)| *known == name);
                    let script = own.map_or(body.clone(), |(_, path)| {
                        format!("import runpy\nrunpy.run_path({:?}, run_name='__main__')\n", path.display().to_string())
                    });
                    std::fs::write(self.folder.path().join(name), script).unwrap();
                }
                other => panic!("{page}: nobody runs a block of {other:?}"),
            }
        }
        said
    }

    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-e", "-c", script]).current_dir(self.folder.path()).env("PATH", &self.path).stdin(Stdio::null());
        command
    }

    fn run(&mut self, page: &str, script: &str) -> String {
        let output = self.command(script).output().unwrap();
        for terminal in &mut self.terminals {
            assert!(terminal.ended().is_none(), "{page}: a terminal ended before {script}");
        }
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "{page}: {script}\n{}\n{out}{err}", output.status);
        out
    }
}

/// Fenced blocks with what stands behind the fence.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(kind)) => open = Some((kind.trim().to_owned(), String::new())),
            (Some(_), Some(_)) => found.extend(open.take()),
            (Some((_, body)), None) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

#[test]
fn from_pytorch_to_a_fleet() {
    // PyTorch is no dependency of a test; what it leaves behind is.
    let train = workspace::root().join("tests/python/tutorial_torch.py");
    let mut page = Page::new(vec![("train.py", train)]);
    let said = page.read("pytorch-to-fleet.md");
    for words in ["cortex-a76  Fits", "97/100", "1.0.0 Active", "digits 1.0.0, answered by active"] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
    assert!(
        said.lines().any(|line| line.contains("Normal") && line.contains("Fits") && line.contains("default/digits"))
    );
}

#[test]
fn from_scikit_learn_to_a_fleet() {
    let said = Page::new(Vec::new()).read("scikit-learn-to-fleet.md");
    for words in [
        "cortex-a76  Fits",
        "1.0.0 Active",
        "parts 1.0.0, answered by active",
        "as scikit-learn says, within 1e-5",
        "input \"alloy\" is a tensor of strings; encode them before the request",
        "exit code 3",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}

#[test]
fn requests_of_several_lengths() {
    let said = Page::new(Vec::new()).read("several-lengths.md");
    for words in [
        "cortex-a76  Fits",
        "with input_ids [1, 128]: 0.0",
        "1.0.0 Active",
        "\n1 tokens: as ONNX Runtime says",
        "\n128 tokens: as ONNX Runtime says",
        "400 the model takes input_ids [1, 32] with attention_mask [1, 32], or input_ids [1, 8] with attention_mask [1, 8], or \
         input_ids [1, 128] with attention_mask [1, 128] (shorter ones",
    ] {
        assert!(said.contains(words), "{words:?} is not in\n{said}");
    }
}
