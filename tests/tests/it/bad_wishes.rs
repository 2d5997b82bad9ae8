//! Deployments that are well formed and cannot be had: each is told why, and what runs goes on.

use ballast_tests::{System, digits};
use serde_json::Value;
use xtask::demo::documents::Deployment;

/// Waits until `ballast rollout status NAME -o json` says all of `words` somewhere; what it says.
fn until_told(system: &mut System, name: &str, words: &[&str]) -> Value {
    system
        .until(&format!("{name} to be told {words:?}"), |system| {
            let text = system.fleet.cli.run(&["rollout", "status", name, "-o", "json"]).unwrap_or_default();
            Ok(words.iter().all(|word| text.contains(word)).then_some(text))
        })
        .map(|text| serde_json::from_str(&text).unwrap())
        .unwrap()
}

#[test]
fn wishes_that_cannot_be_had_are_told_why_and_nothing_stops() {
    let mut system = System::with_digits(1).unwrap();
    let digest = system.add_digits("2.0.0").unwrap();
    let wish = |name| Deployment { name, ..digits("2.0.0", "digits-2.0.0.onnx", &digest) };

    // Too big for every target.
    let yaml = wish("big").yaml().replace("  runtime:\n", "  runtime:\n    memoryLimit: 1Mi\n");
    system.put("big.yaml", &yaml).unwrap();
    let refused = system.until_phase("big", "2.0.0", "Refused").unwrap();
    assert_eq!(refused.reason.as_deref(), Some("MemoryExceeded"), "{refused:?}");
    let message = refused.message.clone().unwrap_or_default();
    assert!(message.contains("memory") && message.contains("Raise the limit"), "{message}");
    assert!(refused.targets.iter().all(|target| target.digest.is_none()), "something was signed: {refused:?}");

    // Two that serve one name: the first keeps it.
    let yaml = wish("twin").yaml().replace("  model:\n", "  model:\n    name: digits\n");
    system.put("twin.yaml", &yaml).unwrap();
    until_told(&mut system, "twin", &["NameConflict", "digits"]);

    // A selector that matches nothing waits for gateways, and says so.
    let nowhere = Deployment { selects: "fleet: nowhere", ..wish("nowhere") };
    system.apply(&nowhere).unwrap();
    let told = until_told(&mut system, "nowhere", &["NoGatewaySelected"]);
    assert_ne!(told["status"]["phase"], "Active", "{told}");

    system.serves("1.0.0").unwrap();
    assert_eq!(system.fleet.cli.release("digits", "1.0.0").unwrap().phase, "Active");
    // And the first of the two can still be changed.
    system.apply(&digits("2.0.0", "digits-2.0.0.onnx", &digest)).unwrap();
    system.until_phase("digits", "2.0.0", "Active").unwrap();
    system.serves("2.0.0").unwrap();
}
