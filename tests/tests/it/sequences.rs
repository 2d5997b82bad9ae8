//! A real recurrent model on a real gateway: 200 microphones stream to silero-vad, whose state the gateway carries, and every answer
//! is held to ONNX Runtime that is given the state by hand.

use std::path::Path;
use std::process::Command;

use ballast_tests::System;
use xtask::{python, workspace};

/// Runs the script of the microphones; what it printed.
fn voices(arguments: &[&str]) -> String {
    let mut command = Command::new(python::environment().unwrap());
    command.arg("-B").arg(workspace::root().join("tests/python/voices.py")).args(arguments);
    let output = command.current_dir(workspace::root()).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "voices.py {arguments:?}: {}\n{out}{err}", output.status);
    out
}

fn wish(digest: &str, state: &str) -> String {
    format!(
        "apiVersion: ballast.dev/v1alpha1
kind: ModelDeployment
metadata: {{name: voice}}
spec:
  model:
    version: \"6.2.3\"
    source: {{uri: \"file:///silero.onnx\", digest: \"{digest}\"}}
    inputs:
    - {{name: input, shape: [1, 576]}}
    - {{name: sr, value: [16000]}}
    - {{name: state, shape: [2, 1, 128], state: {{output: {state}}}}}
  gatewaySelector: {{matchLabels: {{fleet: demo}}}}
  runtime: {{deadline: 4s, maxQueue: 64, sequences: {{max: 256}}}}
  rollout: {{steps: [{{gateways: \"100%\"}}], soak: 1s, trial: {{minDuration: 1s, minRequests: 1, maxFailures: 0}}}}
"
    )
}

#[test]
fn two_hundred_microphones_are_heard_as_if_each_had_the_model_for_itself() {
    let mut system = System::start(1).unwrap();
    let model = system.path().join("silero.onnx");
    voices(&["model", model.to_str().unwrap()]);
    let digest = system.fleet.add_file(Path::new(&model), "silero.onnx").unwrap();
    // What cannot be carried is refused with what to write; nothing is signed.
    system.put("voice.yaml", &wish(&digest, "output")).unwrap();
    let status = system.until_phase("voice", "6.2.3", "Refused").unwrap();
    let said = status.message.unwrap_or_default();
    for words in ["output \"output\" (Fp32 [1, 1]) cannot become input \"state\"", "state: {output: stateN}"] {
        assert!(said.contains(words), "{words}: {said}");
    }
    system.put("voice.yaml", &wish(&digest, "stateN")).unwrap();
    system.until_phase("voice", "6.2.3", "Active").unwrap();
    let address = system.fleet.gateways[0].http.to_string();
    let said = voices(&["stream", &address, "voice"]);
    assert!(said.contains("200 microphones, 12 frames each") && said.contains(", 0 wrong"), "{said}");
    let answer = system.connect(0).get("/metrics").unwrap();
    let metrics = ballast_tests::text(&answer);
    for line in ["ballast_sequences{model=\"voice\"} 0", "ballast_sequences_ended_total{model=\"voice\"} 200"] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    // Who asks once by hand need not know of sequences.
    let silence = system.path().join("silence.json");
    std::fs::write(&silence, format!("{:?}", [0.0; 576])).unwrap();
    let (source, input) = (format!("http://{address}"), format!("input={}", silence.display()));
    let said = system.fleet.cli.run(&["infer", &source, "--model", "voice", "--input", &input]).unwrap();
    assert!(said.contains("voice 6.2.3, answered by active") && !said.contains("stateN"), "{said}");
}
