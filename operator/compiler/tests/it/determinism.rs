//! The same model, target and compiler version give the same bytes on any host.

use std::process::Command;

use ballast_bundle::Digest;
use ballast_compiler::{COMPILER_VERSION, CompileOutcome, compile};

use super::{example, request};

/// What digests stand for; the digests of [`EXPECTED`] in this order.
fn digests() -> Vec<String> {
    let mut lines = Vec::new();
    for version in ["1.0.0", "2.0.0", "3.0.0", "4.0.0"] {
        let CompileOutcome::Built(artifacts) = compile(&request(example(&format!("models/digits-{version}.onnx"))))
        else {
            panic!("{version} was refused")
        };
        for (layer, bytes) in [
            ("weights", &artifacts.weights),
            ("plan", &artifacts.plan),
            ("contract", &artifacts.contract),
            ("golden", &artifacts.golden),
        ] {
            lines.push(format!("{version} {layer} {}", Digest::of(bytes)));
        }
    }
    lines
}

/// Other bytes for the same model need another compiler version: gateways would otherwise take a rebuild for a change, and a
/// registry could not rebuild a lost bundle. So: raise `COMPILER_VERSION` in `src/api.rs`, then write the new file with
/// `BALLAST_WRITE_DIGESTS=1 cargo test -p ballast-compiler --test it`.
#[test]
fn bytes_change_only_with_the_compilers_version() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/digests.txt");
    let found = format!("compiler {COMPILER_VERSION}\n{}\n", digests().join("\n"));
    if std::env::var_os("BALLAST_WRITE_DIGESTS").is_some() {
        std::fs::write(path, &found).expect("the file can be written");
    }
    let expected = std::fs::read_to_string(path).expect("digests.txt is there");
    assert_eq!(found, expected, "see the comment on this test");
}

/// Prints the digests; run by [`directories_homes_and_hash_seeds_do_not_matter`] in processes of their own.
#[test]
fn print_digests() {
    println!("DIGESTS {}", digests().join(";"));
}

#[test]
fn directories_homes_and_hash_seeds_do_not_matter() {
    let here = std::env::current_exe().expect("this test program");
    let run = || {
        // A new process has new seeds for its hash maps.
        let directory = tempfile::tempdir().expect("a directory");
        let output = Command::new(&here)
            .args(["--exact", "determinism::print_digests", "--nocapture"])
            .current_dir(directory.path())
            .env("HOME", directory.path())
            .env("TMPDIR", directory.path())
            .output()
            .expect("it runs");
        let text = String::from_utf8(output.stdout).expect("text");
        let start = text.find("DIGESTS ").expect("digests were printed");
        text[start..].lines().next().map(str::to_owned).expect("a line")
    };
    assert_eq!(run(), run());
}
