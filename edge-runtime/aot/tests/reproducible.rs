//! The runner is the same bytes from any directory.

use std::fs;
use std::path::Path;

#[allow(dead_code)] // its `main` is cargo's
#[path = "../build.rs"]
mod build;

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let place = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &place);
        } else {
            fs::copy(entry.path(), place).unwrap();
        }
    }
}

#[test]
fn the_runner_is_the_same_from_two_directories() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let built = |inside: &str| {
        let directory = tempfile::tempdir().unwrap();
        let rooms = directory.path().join(inside);
        for name in ["plan", "kernels", "runner"] {
            copy(&here.join(name).join("src"), &rooms.join(name).join("src"));
        }
        let out = directory.path().join("out");
        build::build(&rooms, &out, "runner", build::RELAXED);
        fs::read(out.join("runner.wasm")).unwrap()
    };
    assert!(built("a") == ballast_aot::RUNNER_WASM, "another directory, another runner");
    assert!(built("a/much/longer/way") == ballast_aot::RUNNER_WASM, "another directory, another runner");
}
