//! Hardware that lacks an operator: said before a byte is shipped, by name and node, in status and as an event.

use ballast_tests::{System, digits};

#[test]
fn a_target_that_denies_an_operator_gets_no_model_that_has_it() {
    let mut system = System::start(1).unwrap();
    let target = format!(
        "apiVersion: ballast.dev/v1alpha1\nkind: HardwareTarget\nmetadata: {{name: press-npu}}\nspec:\n  triple: {}-unknown-linux-musl\n  \
         memory: 64Mi\n  priority: 900\n  operators: {{deny: [Softmax, Attention]}}\n",
        std::env::consts::ARCH
    );
    system.put("press-npu.yaml", &target).unwrap();
    let digest = system.add_digits("1.0.0").unwrap();
    // Only once the gateway is one of the new class: before, it gets what another class may have.
    system
        .until("the gateway to be a press-npu", |system| {
            let gateways = system.fleet.cli.run(&["gateways", "list"])?;
            Ok(gateways.contains("press-npu").then_some(()))
        })
        .unwrap();
    system.apply(&digits("1.0.0", "digits-1.0.0.onnx", &digest)).unwrap();
    let status = system.until_phase("digits", "1.0.0", "Refused").unwrap();
    let said = format!("{} {}", status.reason.unwrap_or_default(), status.message.unwrap_or_default());
    for word in ["UnsupportedOperators", "press-npu", "Softmax", "operators.deny"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let events = system.fleet.cli.run(&["events", "digits"]).unwrap();
    let warned =
        |line: &str| line.contains("Warning") && line.contains("UnsupportedOperators") && line.contains("press-npu");
    assert!(events.lines().any(warned), "{events}");
}
