//! `check`, `compile`, `infer`.

use crate::{ballast, digits, file, text};

#[test]
fn a_model_is_checked_against_every_target() {
    let model = digits("models/digits-2.0.0.onnx");
    let verdicts = ballast(["check", &model, "-o", "json"]).json();
    let verdicts = verdicts.as_array().unwrap();
    assert!(verdicts.len() >= 7, "{verdicts:?}");
    for verdict in verdicts {
        // Programs read these: they stay.
        let mut keys: Vec<_> = verdict.as_object().unwrap().keys().map(String::as_str).collect();
        keys.sort_unstable();
        let expected = [
            "accuracy",
            "deadlineMillis",
            "fits",
            "gflop",
            "inputsYaml",
            "memory",
            "message",
            "notes",
            "openInputs",
            "peakMemoryBytes",
            "predictedLatencyMillis",
            "proof",
            "reason",
            "shapes",
            "sizeBytes",
            "target",
            "unknown",
            "unsupported",
            "unsupportedTypes",
        ];
        assert_eq!(keys, expected);
    }
    assert!(verdicts.iter().any(|v| v["target"] == "x86-64-v3" && v["fits"] == true));
    let table = ballast(["check", &model, "--target", "x86-64"]).good();
    assert!(table.starts_with("TARGET") && table.contains("x86-64  Fits"), "{table}");
}

#[test]
fn what_is_no_model_is_said_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("no.onnx");
    ballast(["check", text(&missing)]).fails(1, &["no.onnx", "No such file"]);
    ballast(["check", text(dir.path())]).fails(1, &[text(dir.path()), "is a directory", "ONNX file"]);
    let model = digits("models/digits-2.0.0.onnx");
    ballast(["check", &model, "--target", "z80"]).fails(2, &["\"z80\"", "x86-64-v3", "./z80.yaml"]);
    ballast(["check", &model, "--shape", "image=1xA"]).fails(2, &["image=1xA", "write 1x3x224x224"]);
    for (name, bytes) in [("garbage.onnx", &b"\x89PNG\r\n\x1a\n\0\0"[..]), ("empty.onnx", b"")] {
        let garbage = file(&dir, name, bytes);
        let ran = ballast(["check", text(&garbage), "--target", "x86-64"]);
        assert_eq!((ran.code, ran.err.as_str()), (Some(6), ""), "{}", ran.out);
        ballast(["infer", text(&garbage)]).fails(6, &[name, "ONNX"]);
        assert!(ran.out.contains("x86-64  NotOnnx") && ran.out.contains("\nall targets: "), "{}", ran.out);
    }
}

#[test]
fn what_is_too_slow_in_the_interpreter_is_refused_for_it() {
    let model = digits("models/digits-2.0.0.onnx");
    let check = |target, deadline| ballast(["check", &model, "--target", target, "--deadline", deadline]);
    assert_eq!(check("x86-64-v3", "2ms").code, Some(0));
    assert_eq!(check("pulley64", "2s").code, Some(0));
    let ran = check("pulley64", "2ms");
    assert_eq!(ran.code, Some(3), "{}", ran.out);
    assert!(ran.out.contains("DeadlineExceeded") && ran.out.contains("runtime.deadline is 2 ms"), "{}", ran.out);
    // Compiled and checked as any other is.
    assert_eq!(check("pulley32", "2s").code, Some(0));
}

#[test]
fn a_target_of_ones_own_is_named_by_its_file_and_its_denials_count() {
    let dir = tempfile::tempdir().unwrap();
    let yaml = "apiVersion: ballast.dev/v1alpha1\nkind: HardwareTarget\nmetadata: {name: press-npu}\nspec:\n  triple: aarch64-unknown-linux-musl\n  memory: 64Mi\n  operators: {deny: [Softmax]}\n";
    let own = file(&dir, "press.yaml", yaml.as_bytes());
    let model = digits("models/digits-2.0.0.onnx");
    let ran = ballast(["check", &model, "--target", text(&own), "-o", "json"]);
    let verdicts: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &verdicts[0]["target"]), (Some(3), &"press-npu".into()), "{}", ran.err);
    assert_eq!(verdicts[0]["unsupported"][0]["operator"], "Softmax");
    // Yes for one, no for the other: a script can tell.
    let both = format!("x86-64,{}", text(&own));
    assert_eq!(ballast(["check", &model, "--target", &both]).code, Some(5));
    assert_eq!(ballast(["check", &model, "--target", "all"]).code, Some(0));
    let wrong = file(&dir, "wrong.yaml", yaml.replace("64Mi", "lots").as_bytes());
    ballast(["check", &model, "--target", text(&wrong)]).fails(1, &["wrong.yaml", "memory"]);
}

#[test]
fn a_model_answers_in_the_sandbox() {
    let (model, golden) = (digits("models/digits-2.0.0.onnx"), digits("golden.safetensors"));
    let answer = ballast(["infer", &model, "--golden", &golden, "-o", "json"]).json();
    let scores: Vec<f64> =
        answer["outputs"][0]["data"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect();
    assert_eq!((answer["outputs"][0]["name"].as_str(), scores.len()), (Some("scores"), 10));
    assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{scores:?}");
    ballast(["infer", &model]).fails(1, &["input \"image\" is missing", "--input image=…"]);
    ballast(["infer", &model, "--input", "picture=@1"]).fails(1, &["no input \"picture\"", "it takes --input image"]);
    ballast(["infer", &model, "--input", "image=@1,2"]).fails(1, &["image takes 64 elements", "2 are given"]);
    ballast(["infer", &model, "--golden", &golden, "--vector", "9999"]).fails(1, &["no vector 9999", "has 100"]);
    ballast(["infer", "http://127.0.0.1:1"]).fails(1, &["add --model NAME"]);
    ballast(["infer", "http://127.0.0.1:1", "--model", "digits"])
        .fails(4, &["no gateway answers on http://127.0.0.1:1"]);
}

#[test]
fn golden_vectors_are_run_by_a_check_too() {
    let golden = digits("golden.safetensors");
    let check = |version: &str, share: &str| {
        let model = digits(&format!("models/digits-{version}.onnx"));
        ballast(["check", &model, "--target", "x86-64", "--golden", &golden, "--min-matching", share, "-o", "json"])
    };
    let good = check("2.0.0", "90%").json();
    assert_eq!((good[0]["fits"].as_bool(), good[0]["accuracy"]["vectors"].as_u64()), (Some(true), Some(100)));
    let right = good[0]["accuracy"]["matching"].as_u64().unwrap();
    assert!((90..100).contains(&right), "{right}");
    // What the sandbox computes is held against the evaluator, number by number.
    assert!(good[0]["proof"]["worstAbsolute"]["by"].as_f64().is_some_and(|by| by < 1e-4), "{}", good[0]["proof"]);
    let model = digits("models/digits-2.0.0.onnx");
    let table = ballast(["check", &model, "--target", "x86-64", "--golden", &golden, "--min-matching", "90%"]).good();
    assert!(table.contains(&format!("{right}/100")), "{table}");
    ballast(["check", &model, "--golden", &golden, "--target", "x86-64", "--match", "values"])
        .bad_input("InvalidGolden");
    for (version, share) in [("2.0.0", "100%"), ("3.0.0", "90%")] {
        let ran = check(version, share);
        let verdict: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (ran.code, verdict[0]["reason"].as_str()),
            (Some(3), Some("GoldenMismatch")),
            "{version}: {}",
            ran.out
        );
    }
    let nothing = check("2.0.0", "0%");
    assert!(nothing.code == Some(2) && nothing.err.contains("write a number over 0"), "{}", nothing.err);
}
