//! `compile`, `inspect`, `verify`: one bundle of the digits, signed here.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use ballast_bundle::manifest::{blob_of, parse_bundle_manifest};
use ballast_bundle::{Counter, DeploymentRef, ReleaseNumber, ReleaseStatement, SigningKey, sign_release};

use crate::{ballast, digits, file, text};

struct Signed {
    dir: tempfile::TempDir,
    bundle: PathBuf,
    layout: PathBuf,
    statement: PathBuf,
    key: PathBuf,
    other_key: PathBuf,
}

/// Compiled twice, once as plain files and once as an OCI image layout; signed once.
fn signed() -> &'static Signed {
    static SIGNED: OnceLock<Signed> = OnceLock::new();
    SIGNED.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        let (bundle, layout) = (dir.path().join("bundle"), dir.path().join("layout"));
        let model = digits("models/digits-2.0.0.onnx");
        let compile =
            ["compile", &model, "--target", "x86-64", "--name", "digits", "--model-version", "2.0.0", "--out"];
        let table = ballast(compile.into_iter().chain([text(&bundle)])).good();
        assert!(table.contains("x86-64  Fits") && table.contains("\nbundle sha256:"), "{table}");
        let made = ballast(compile.into_iter().chain([text(&layout), "--oci", "-o", "json"])).json();
        let manifest = std::fs::read(bundle.join("manifest.json")).unwrap();
        assert_eq!(made["manifest"], blob_of(&manifest).digest.to_string(), "the same bundle either way");
        let statement = ReleaseStatement {
            deployment: DeploymentRef { namespace: "b9d8f3c0".parse().unwrap(), name: "digits".into() },
            version: "2.0.0".into(),
            number: ReleaseNumber { epoch: 1, counter: Counter(7) },
            target: "x86-64".parse().unwrap(),
            abi: 1,
            compiler: 1,
            manifest: blob_of(&manifest),
            layers: parse_bundle_manifest(&manifest).unwrap(),
        };
        let key = SigningKey::generate([7; 32]).unwrap();
        let pem = |key: &SigningKey| key.public().to_pem().into_bytes();
        Signed {
            statement: file(&dir, "release.json", &sign_release(&statement, &key)),
            key: file(&dir, "release.pub", &pem(&key)),
            other_key: file(&dir, "other.pub", &pem(&SigningKey::generate([8; 32]).unwrap())),
            bundle,
            layout,
            dir,
        }
    })
}

/// A copy of the bundle that may be damaged.
fn copy(name: &str) -> PathBuf {
    let to = signed().dir.path().join(name);
    std::fs::create_dir(&to).unwrap();
    for entry in std::fs::read_dir(&signed().bundle).unwrap() {
        let from = entry.unwrap().path();
        std::fs::copy(&from, to.join(from.file_name().unwrap())).unwrap();
    }
    to
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn what_was_signed_is_verified_to_the_last_byte() {
    let s = signed();
    let (statement, key) = (text(&s.statement), text(&s.key));
    let said = ballast(["verify", statement, "--key", key]).good();
    assert!(said.starts_with("verified: release 2.0.0") && !said.contains("every byte"), "{said}");
    for bundle in [&s.bundle, &s.layout] {
        let said = ballast(["verify", statement, "--key", key, "--bundle", text(bundle)]).good();
        assert!(said.ends_with("every byte of the bundle is the one that was signed\n"), "{said}");
    }
    let json = ballast(["verify", statement, "--key", key, "-o", "json"]).json();
    assert_eq!((&json["verified"], &json["kind"]), (&true.into(), &"release".into()));
    assert_eq!(json["statement"]["version"], "2.0.0");
}

#[test]
fn what_was_not_signed_is_not_verified() {
    let s = signed();
    let (statement, key) = (text(&s.statement), text(&s.key));
    ballast(["verify", statement, "--key", text(&s.other_key)]).fails(3, &["release.json"]);
    let damaged = s.dir.path().join("damaged.json");
    std::fs::write(&damaged, std::fs::read_to_string(&s.statement).unwrap().replacen("\"sig\":\"M", "\"sig\":\"N", 1))
        .unwrap();
    assert_ne!(std::fs::read(&damaged).unwrap(), std::fs::read(&s.statement).unwrap());
    ballast(["verify", text(&damaged), "--key", key]).fails(3, &["damaged.json"]);
    for layer in ["weights.bin", "plan.bin", "contract.json", "golden.safetensors"] {
        let bundle = copy(&format!("with-another-{layer}"));
        flip(&bundle.join(layer));
        ballast(["verify", statement, "--key", key, "--bundle", text(&bundle)]).fails(3, &[layer]);
    }
    let truncated = copy("truncated");
    std::fs::write(truncated.join("weights.bin"), b"short").unwrap();
    ballast(["verify", statement, "--key", key, "--bundle", text(&truncated)]).fails(3, &["weights.bin"]);
    let layers = parse_bundle_manifest(&std::fs::read(s.bundle.join("manifest.json")).unwrap()).unwrap();
    let layout = s.dir.path().join("damaged-layout");
    let status = std::process::Command::new("cp").arg("-r").args([&s.layout, &layout]).status().unwrap();
    assert!(status.success());
    flip(&layout.join("blobs/sha256").join(layers.plan.digest.hex()));
    ballast(["verify", statement, "--key", key, "--bundle", text(&layout)]).fails(3, &["damaged-layout", "digest"]);
    // A whole bundle, but another one.
    let other = s.dir.path().join("other");
    let model = digits("models/digits-1.0.0.onnx");
    ballast(["compile", &model, "--target", "x86-64", "--name", "digits", "--out", text(&other)]).good();
    ballast(["verify", statement, "--key", key, "--bundle", text(&other)]).fails(3, &["manifest"]);
}

#[test]
fn what_cannot_be_verified_is_said() {
    let s = signed();
    let (statement, key) = (text(&s.statement), text(&s.key));
    ballast(["verify", "/nowhere/release.json", "--key", key]).fails(1, &["/nowhere/release.json", "No such file"]);
    ballast(["verify", statement, "--key", statement]).fails(1, &["release.json", "PEM"]);
    ballast(["verify", statement, "--key", key, "--bundle", text(s.dir.path())])
        .fails(1, &["neither a bundle's directory nor an OCI image layout"]);
    assert_eq!(ballast(["verify", statement]).code, Some(2));
}

#[test]
fn everything_that_was_written_can_be_looked_into() {
    let s = signed();
    for bundle in [&s.bundle, &s.layout] {
        let found = ballast(["inspect", text(bundle), "-o", "json"]).json();
        assert_eq!((&found["kind"], &found["contract"]["version"]), (&"bundle".into(), &"2.0.0".into()));
        assert!(found["plan"]["arenaBytes"].as_u64() > Some(0) && found["goldenVectors"].as_u64() > Some(0), "{found}");
    }
    for (name, kind) in [
        ("plan.bin", "plan"),
        ("contract.json", "contract"),
        ("manifest.json", "bundle manifest"),
        ("golden.safetensors", "golden vectors"),
    ] {
        let found = ballast(["inspect", text(&s.bundle.join(name)), "-o", "json"]).json();
        assert_eq!(found["kind"], kind, "{name}");
    }
    let statement = ballast(["inspect", text(&s.statement)]).good();
    assert!(statement.contains("kind: \"statement, not verified\""), "{statement}");
    let nothing = file(&s.dir, "notes.txt", b"hello");
    ballast(["inspect", text(&nothing)]).fails(1, &["notes.txt", "no document, plan or golden file"]);
    let json = file(&s.dir, "other.json", b"{\"a\": 1}");
    ballast(["inspect", text(&json)]).fails(1, &["other.json", "no document of Ballast's"]);
}

#[test]
fn a_bundle_answers_like_its_model() {
    let golden = digits("golden.safetensors");
    let model = digits("models/digits-2.0.0.onnx");
    let of = |source: &str| ballast(["infer", source, "--golden", &golden, "-o", "json"]).json()["outputs"].clone();
    assert_eq!(of(text(&signed().bundle)), of(&model));
}
