//! A model that cannot be released costs one clear message, and what ran goes on.

use ballast_tests::{System, digits};

/// Applies a broken 2.0.0 beside a running 1.0.0; what Ballast says of it.
fn refused(system: &mut System, version: &str, bytes: &[u8], digest: Option<&str>) -> String {
    let file = system.path().join("source.onnx");
    std::fs::write(&file, bytes).unwrap();
    let name = format!("digits-{version}.onnx");
    let found = system.fleet.add_file(&file, &name).unwrap();
    system.apply(&digits(version, &name, digest.unwrap_or(&found))).unwrap();
    let status = system.until_phase("digits", version, "Refused").unwrap();
    assert!(status.targets.iter().all(|t| t.digest.is_none()), "{version}: something was signed: {:?}", status.targets);
    system.serves("1.0.0").unwrap();
    format!("{} {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default())
}

#[test]
fn broken_models_are_refused_one_by_one_while_the_first_release_serves() {
    let mut system = System::with_digits(1).unwrap();
    let good = std::fs::read(xtask::workspace::digits().join("models/digits-2.0.0.onnx")).unwrap();

    let said = refused(&mut system, "2.0.1", b"this is a text, not a model", None);
    assert!(said.contains("NotOnnx"), "{said}");

    let said = refused(&mut system, "2.0.2", &good[..good.len() / 2], None);
    assert!(said.contains("NotOnnx"), "{said}");

    let zeros = format!("sha256:{}", "0".repeat(64));
    let said = refused(&mut system, "2.0.3", &good, Some(&zeros));
    assert!(said.to_lowercase().contains("digest"), "{said}");

    // Operators nobody knows, in place of ones of the same length: all of them are named, not only the first.
    let unknown = replace(&replace(&good, b"Softmax", b"Softmix"), b"MaxPool", b"MixPool");
    let said = refused(&mut system, "2.0.4", &unknown, None);
    for word in ["UnsupportedOperators", "Softmix", "MixPool"] {
        assert!(said.contains(word), "{word}: {said}");
    }

    // After all that a good one still goes everywhere.
    let digest = system.add_digits("2.0.0").unwrap();
    system.apply(&digits("2.0.0", "digits-2.0.0.onnx", &digest)).unwrap();
    system.until_phase("digits", "2.0.0", "Active").unwrap();
    system.serves("2.0.0").unwrap();
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let mut out = bytes.to_vec();
    let mut found = 0;
    for at in 0..=bytes.len() - from.len() {
        if &bytes[at..at + from.len()] == from {
            out[at..at + to.len()].copy_from_slice(to);
            found += 1;
        }
    }
    assert!(found > 0, "the model has no such operator");
    out
}
