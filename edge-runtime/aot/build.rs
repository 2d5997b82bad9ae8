//! Builds the runner for the guest: `runner.wasm`, and `runner-muladd.wasm` without relaxed SIMD for profiles where its
//! multiply-add or its shuffles are calls.
//!
//! The three crates of the guest have no dependencies, so the compiler is called directly: no second cargo that would wait
//! for the first one's lock, no flags or profiles of whoever builds, and the same bytes from any directory.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Crates in the order of their dependencies.
const CRATES: [&str; 3] = ["plan", "kernels", "runner"];

/// Features of the two flavours.
pub const RELAXED: &str = "+simd128,+relaxed-simd";
/// See [`RELAXED`].
pub const MULADD: &str = "+simd128,-relaxed-simd";

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let here = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"));
    let rooms = here.parent().expect("this crate has a room around it");
    println!("cargo::rerun-if-changed=build.rs");
    for name in CRATES {
        println!("cargo::rerun-if-changed={}", rooms.join(name).join("src").display());
    }
    build(rooms, &out, "runner", RELAXED);
    build(rooms, &out, "runner-muladd", MULADD);
}

fn rustc() -> Command {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| OsString::from("rustc")));
    for scrubbed in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTC_WORKSPACE_WRAPPER"] {
        rustc.env_remove(scrubbed);
    }
    rustc
}

/// Where the standard library's source is, if this machine has it, is not for the bytes to tell.
fn library_map() -> OsString {
    let ask = |args: &[&str]| {
        let output = rustc().args(args).output().expect("rustc starts");
        String::from_utf8(output.stdout).expect("rustc speaks UTF-8")
    };
    let version = ask(&["--version", "--verbose"]);
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    format!("{}/lib/rustlib/src/rust=/rustc/{commit}", ask(&["--print", "sysroot"]).trim()).into()
}

/// Builds one flavour from the sources in `rooms`, as `out/name.wasm`.
pub fn build(rooms: &Path, out: &Path, name: &str, features: &str) {
    // What the compiler knows a directory by, so that all of it is mapped away below.
    let rooms = &rooms.canonicalize().expect("the sources are there");
    let dir = out.join(name);
    fs::create_dir_all(&dir).expect("OUT_DIR is writable");
    for krate in CRATES {
        let last = krate == "runner";
        let mut rustc = rustc();
        // Relative paths from a fixed place, and what could still name the machine is mapped away.
        rustc.current_dir(rooms.join(krate)).arg("src/lib.rs");
        rustc.args(["--crate-name", &format!("ballast_{krate}"), "--edition", "2024"]);
        rustc.args(["--target", "wasm32-unknown-unknown", "--crate-type", if last { "cdylib" } else { "rlib" }]);
        rustc.args(["-C", "opt-level=3", "-C", "panic=abort", "-C", "codegen-units=1", "-C", "metadata=ballast"]);
        rustc.args(["-C", &format!("target-feature={features}"), "-C", "overflow-checks=off", "--cap-lints", "allow"]);
        rustc.args(["-C", "embed-bitcode=yes", "-C", "strip=symbols"]);
        if last {
            rustc.args(["-C", "lto=fat", "-C", "link-arg=-zstack-size=262144"]);
        }
        let mut map = OsString::from(rooms);
        map.push("=ballast");
        rustc.arg("--remap-path-prefix").arg(map).arg("--remap-path-prefix").arg(library_map());
        rustc.arg("-L").arg(&dir);
        for dependency in CRATES.iter().take_while(|c| **c != krate) {
            let mut value = OsString::from(format!("ballast_{dependency}="));
            value.push(dir.join(format!("libballast_{dependency}.rlib")));
            rustc.arg("--extern").arg(value);
        }
        rustc.arg("--out-dir").arg(&dir);
        let output = rustc.output().expect("rustc starts");
        assert!(
            output.status.success(),
            "building the guest's {krate} failed; is the target there? `rustup target add wasm32-unknown-unknown`\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    fs::copy(dir.join("ballast_runner.wasm"), out.join(format!("{name}.wasm"))).expect("the guest was built");
}
