//! Workers that crash, hang, eat memory, lie, or try to get out: each costs one error, and the parent goes on.

use std::io::Write;
use std::net::TcpListener;
use std::path::Path;

use ballast_bundle::{DataType, GoldenMatch, Tolerance, Verification};
use ballast_compiler::{
    CompileOutcome, CompileRequest, RuntimeLimits, TargetSpec, VerdictReason, WorkerError, WorkerLimits, check_worker,
    run_in_worker,
};

fn probe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_worker-probe"))
}

fn limits() -> WorkerLimits {
    WorkerLimits { memory_bytes: 1 << 30, cpu_seconds: 60, wall_seconds: 120, reply_bytes: 1 << 20 }
}

fn request(model_name: &str) -> CompileRequest {
    CompileRequest {
        model: vec![0; 100_000],
        model_name: model_name.into(),
        version: "1.0.0".into(),
        variant: "fp32".into(),
        target: TargetSpec {
            name: "x86-64".parse().unwrap(),
            triple: "x86_64-unknown-linux-musl".into(),
            cpu_features: vec![],
            memory_bytes: 1 << 30,
            deny: vec![],
            gflops: 0.0,
            memory_bandwidth: 0.0,
        },
        inputs: vec![],
        runtime: RuntimeLimits {
            memory_limit: 64 << 20,
            deadline_millis: None,
            instances: 1,
            max_queue: 1,
            ..RuntimeLimits::default()
        },
        verification: Verification {
            golden_match: GoldenMatch::Values,
            min_matching_per_mille: 1000,
            tolerance: Tolerance { absolute: 1e-4, relative: 1e-4 },
            finite_outputs: true,
            max_latency_p99_millis: None,
            user_golden: false,
        },
        golden: None,
    }
}

fn ask(model_name: &str) -> Result<CompileOutcome, WorkerError> {
    run_in_worker(probe(), &request(model_name), &limits())
}

#[test]
fn a_sound_model_is_built_and_proved() {
    assert!(matches!(ask("sound").unwrap(), CompileOutcome::Built(_)));
}

#[test]
fn a_plan_that_gives_other_numbers_is_refused() {
    let CompileOutcome::Refused(verdict) = ask("wrong numbers").unwrap() else { panic!("built") };
    assert_eq!(verdict.reason, VerdictReason::GoldenMismatch);
    assert!(!verdict.fits && verdict.message.contains("vector 1"), "{}", verdict.message);
}

#[test]
fn deaths_are_told_with_their_last_words() {
    for (name, words) in [("overflow", "overflow"), ("panic", "on purpose")] {
        let error = ask(name).unwrap_err();
        assert!(matches!(&error, WorkerError::Crashed { stderr, .. } if stderr.contains(words)), "{name}: {error}");
    }
    assert!(matches!(ask("exit").unwrap_err(), WorkerError::Reply(_)));
}

#[test]
fn a_worker_that_eats_memory_hits_its_limit() {
    let error = ask("memory").unwrap_err();
    assert!(matches!(error, WorkerError::Memory { .. }), "{error}");
}

#[test]
fn a_worker_that_never_ends_is_ended() {
    let spin = run_in_worker(probe(), &request("spin"), &WorkerLimits { cpu_seconds: 1, ..limits() }).unwrap_err();
    assert!(matches!(spin, WorkerError::Timeout { seconds: 1 }), "{spin}");
    let sleep = run_in_worker(probe(), &request("sleep"), &WorkerLimits { wall_seconds: 1, ..limits() }).unwrap_err();
    assert!(matches!(sleep, WorkerError::Timeout { seconds: 1 }), "{sleep}");
}

#[test]
fn replies_are_bounded_and_must_be_replies() {
    let flood = ask("flood").unwrap_err();
    assert!(matches!(&flood, WorkerError::Reply(why) if why.contains("longer")), "{flood}");
    let noise = ask("noise").unwrap_err();
    assert!(matches!(noise, WorkerError::Reply(_)), "{noise}");
}

#[test]
fn artifacts_that_are_not_what_was_asked_for_are_not_believed() {
    for (name, why) in [
        ("other model", "another model"),
        ("more memory", "limits"),
        ("weaker proof", "verification"),
        ("unasked state", "state"),
        ("short weights", "weights"),
        ("broken plan", ""),
        ("contradiction", "does not fit"),
    ] {
        let error = ask(name).unwrap_err();
        assert!(matches!(&error, WorkerError::Reply(text) if text.contains(why)), "{name}: {error}");
    }
}

/// `y = [2·x₀, 3·x₁]`, as the probe's plan has it, on the probe's own inputs.
fn golden(outputs: [f32; 4], labels: Option<[i64; 2]>) -> Vec<u8> {
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let (inputs, outputs) = (bytes(&[1.0, 1.0, -2.0, 10.0]), bytes(&outputs));
    let labels: Option<Vec<u8>> = labels.map(|l| l.iter().flat_map(|l| l.to_le_bytes()).collect());
    let mut tensors = vec![("inputs/x".into(), DataType::Fp32, vec![2, 1, 2], &inputs[..])];
    match &labels {
        Some(labels) => tensors.push(("labels/y".into(), DataType::Int64, vec![2], labels)),
        None => tensors.push(("outputs/y".into(), DataType::Fp32, vec![2, 1, 2], &outputs)),
    }
    ballast_bundle::golden::write(&tensors)
}

/// Every lie here passes the proof: what the worker ships is reproduced by the plan, but it is not the user's test.
#[test]
fn the_users_acceptance_test_is_what_is_shipped_and_passed() {
    const RIGHT: [f32; 4] = [2.0, 3.0, -4.0, 30.0];
    let ask = |name: &str, golden: Vec<u8>, by_label: bool| {
        let mut request = request(name);
        request.golden = Some(golden);
        if by_label {
            request.verification.golden_match = GoldenMatch::ArgMax;
        }
        run_in_worker(probe(), &request, &limits())
    };
    for by_label in [false, true] {
        let labels = by_label.then_some([1, 1]);
        let honest = ask("sound", golden(RIGHT, labels), by_label).unwrap();
        assert!(matches!(honest, CompileOutcome::Built(_)), "{honest:?}");
        for (name, why) in
            [("golden: other inputs", "does not have the user's inputs"), ("golden: fewer vectors", "the user gave 2")]
        {
            let error = ask(name, golden(RIGHT, labels), by_label).unwrap_err();
            assert!(matches!(&error, WorkerError::Reply(text) if text.contains(why)), "{name}: {error}");
        }
    }
    let error = ask("golden: other labels", golden(RIGHT, Some([1, 1])), true).unwrap_err();
    assert!(error.to_string().contains("do not have the user's labels"), "{error}");
    // Labels that the outputs do not have: the worker let through what the user's golden vectors refuse.
    let error = ask("sound", golden(RIGHT, Some([0, 1])), true).unwrap_err();
    assert!(error.to_string().contains("do not pass the user's"), "{error}");
    // And so with numbers.
    let error = ask("sound", golden([2.0, 3.0, -4.0, 40.0], None), false).unwrap_err();
    assert!(matches!(&error, WorkerError::Reply(text) if text.contains("do not pass the user's")), "{error}");
}

#[test]
fn a_prover_that_is_taken_over_costs_one_error_too() {
    for (name, words) in [("prove overflow", "overflow"), ("prove panic", "on purpose")] {
        let error = ask(name).unwrap_err();
        assert!(matches!(&error, WorkerError::Crashed { stderr, .. } if stderr.contains(words)), "{name}: {error}");
        assert!(error.is_inputs_fault());
    }
    let error = ask("prove memory").unwrap_err();
    assert!(matches!(error, WorkerError::Memory { .. }), "{error}");
    for name in ["prove exit", "prove flood", "prove noise", "prove long reply"] {
        let error = ask(name).unwrap_err();
        assert!(matches!(error, WorkerError::Reply(_)), "{name}: {error}");
    }
    let spin = WorkerLimits { cpu_seconds: 1, ..limits() };
    let error = run_in_worker(probe(), &request("prove spin"), &spin).unwrap_err();
    assert!(matches!(error, WorkerError::Timeout { seconds: 1 }), "{error}");
    let sleep = WorkerLimits { wall_seconds: 1, ..limits() };
    let error = run_in_worker(probe(), &request("prove sleep"), &sleep).unwrap_err();
    assert!(matches!(error, WorkerError::Timeout { seconds: 1 }), "{error}");
}

#[test]
fn only_what_a_model_can_cause_is_its_fault() {
    assert!(ask("panic").unwrap_err().is_inputs_fault());
    let missing = run_in_worker(Path::new("/nowhere/ballast"), &request("sound"), &limits()).unwrap_err();
    assert!(!missing.is_inputs_fault());
    assert!(!WorkerError::Isolation("no seccomp".into()).is_inputs_fault());
    assert!(!WorkerError::Prove("no runner".into()).is_inputs_fault());
}

#[test]
fn what_a_worker_may_say_is_bounded_by_what_it_was_given() {
    let unlimited = WorkerLimits { reply_bytes: u64::MAX, ..limits() };
    let error = run_in_worker(probe(), &request("flood"), &unlimited).unwrap_err();
    assert!(matches!(&error, WorkerError::Reply(why) if why.contains("longer")), "{error}");
}

#[test]
fn a_worker_reaches_neither_files_nor_network_nor_its_parent() {
    let mut key = tempfile::NamedTempFile::new().unwrap();
    key.write_all(b"a key").unwrap();
    // The parent forgot to close it on exec.
    rustix::io::fcntl_setfd(&key, rustix::io::FdFlags::empty()).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    for (name, nothing_found) in [("look", ""), ("prove look", "The compiled plan does not do what the model does: .")]
    {
        let mut request = request(name);
        request.version = key.path().to_str().unwrap().into();
        request.variant = listener.local_addr().unwrap().port().to_string();
        let CompileOutcome::Refused(verdict) = run_in_worker(probe(), &request, &limits()).unwrap() else {
            panic!("built")
        };
        assert_eq!(verdict.message, nothing_found, "a worker could do this");
    }
    assert_eq!(std::fs::read(key.path()).unwrap(), b"a key");
}

#[test]
fn what_isolates_a_worker_can_be_asked() {
    let isolation = check_worker(probe()).unwrap();
    assert!(isolation.seccomp);
    assert!(isolation.to_string().contains("seccomp"), "{isolation}");
    println!("{isolation}");
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let error = run_in_worker(Path::new("/nowhere/ballast"), &request("sound"), &limits()).unwrap_err();
    assert!(matches!(&error, WorkerError::Start { exe, .. } if exe == "/nowhere/ballast"), "{error}");
}

fn digits(version: &str) -> CompileRequest {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/digits");
    let mut request = request("digits");
    request.model = std::fs::read(examples.join(format!("models/digits-{version}.onnx"))).unwrap();
    request.golden = Some(std::fs::read(examples.join("golden.safetensors")).unwrap());
    request.verification.golden_match = GoldenMatch::ArgMax;
    request.verification.min_matching_per_mille = 950;
    request
}

#[test]
fn the_digits_are_compiled_and_proved() {
    for version in ["1.0.0", "2.0.0", "4.0.0"] {
        let outcome = run_in_worker(probe(), &digits(version), &limits()).unwrap();
        assert!(matches!(outcome, CompileOutcome::Built(_)), "{version}: {}", outcome.verdict().message);
    }
}

#[test]
fn the_digits_with_other_preprocessing_are_refused() {
    let outcome = run_in_worker(probe(), &digits("3.0.0"), &limits()).unwrap();
    assert_eq!(outcome.verdict().reason, VerdictReason::GoldenMismatch, "{}", outcome.verdict().message);
}

#[test]
fn what_is_no_model_is_a_verdict_not_a_crash() {
    let mut request = digits("1.0.0");
    for model in [vec![], b"nonsense".to_vec(), request.model[..request.model.len() / 2].to_vec()] {
        request.model = model;
        let outcome = run_in_worker(probe(), &request, &limits()).unwrap();
        assert_eq!(outcome.verdict().reason, VerdictReason::NotOnnx, "{}", outcome.verdict().message);
    }
}
