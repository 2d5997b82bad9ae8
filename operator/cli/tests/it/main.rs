//! The program as people and scripts run it: arguments in; standard output, standard error and exit code out.

mod bundles;
mod models;
mod operator;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// What a run left behind.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    /// It did what it was asked.
    #[track_caller]
    fn good(self) -> String {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// The same, as JSON.
    #[track_caller]
    fn json(self) -> Value {
        serde_json::from_str(&self.good()).unwrap()
    }

    /// The file or what was given with it cannot be used.
    #[track_caller]
    fn bad_input(&self, reason: &str) {
        assert_eq!((self.code, self.err.as_str()), (Some(6), ""), "{}", self.out);
        assert!(self.out.contains(reason), "{}", self.out);
    }

    /// It ended with this code, said these things in one sentence, and gave no result.
    #[track_caller]
    fn fails(&self, code: i32, says: &[&str]) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.err);
        assert!(self.err.starts_with("error: ") && self.err.lines().count() == 1, "{}", self.err);
        for part in says {
            assert!(self.err.contains(part), "{part:?} is not in {}", self.err);
        }
    }
}

fn ballast<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Ran {
    let output =
        Command::new(env!("CARGO_BIN_EXE_ballast")).args(arguments).env_remove("BALLAST_SOCKET").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn digits(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits").join(file);
    path.to_str().unwrap().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A file in `dir`.
fn file(dir: &tempfile::TempDir, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}
