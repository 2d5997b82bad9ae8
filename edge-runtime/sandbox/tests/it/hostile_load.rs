//! Guests that are hostile before their first request. Each costs one error, and the engine goes on.

use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::{Engine, EngineProfile, Fault, Program, SandboxError, Weights};

use crate::guests::{Guest, SECOND, engine, floats, load, load_bytes, spec, with_time_flying};

/// After every hostile guest a good one answers in the same engine.
fn still_answers(engine: &Engine) {
    let input = floats([1.0, 2.0, 3.0, 4.0]);
    let mut good = Guest::default().program(engine).unwrap().instantiate().unwrap();
    assert_eq!(good.infer(&[&input], SECOND).unwrap().outputs, [input]);
}

fn refused(guest: Guest) -> SandboxError {
    let error = guest.program(engine()).and_then(|program| program.instantiate()).unwrap_err();
    still_answers(engine());
    error
}

#[test]
fn a_module_of_another_abi_or_with_other_exports() {
    let major_2 = refused(Guest { abi: 2 << 16, ..Guest::default() });
    assert_eq!(major_2.to_string(), "the module does not speak runner ABI 1.x: it speaks 2.0");
    let newer_minor = Guest { abi: (1 << 16) | 7, ..Guest::default() };
    assert!(newer_minor.program(engine()).unwrap().instantiate().is_ok());

    let whole = Guest::default().wat();
    for (from, to) in [
        (r#"(memory (export "memory")"#, "(memory"),
        (r#"(export "__heap_base") i32 (i32.const 65536)"#, r#"(export "__heap_base") i64 (i64.const 0)"#),
        (r#"(export "ballast_infer")"#, r#"(export "ballast_inference")"#),
        (
            r#"(export "ballast_error") (result i64) i64.const 0"#,
            r#"(export "ballast_error") (result i32) i32.const 0"#,
        ),
        (r#"(export "ballast_abi") (result i32)"#, r#"(export "ballast_abi") (param i32) (result i32)"#),
    ] {
        assert!(whole.contains(from), "{from}");
        let error = load(engine(), &whole.replace(from, to)).unwrap_err();
        assert!(matches!(error, SandboxError::Abi { .. }), "{from}: {error}");
        assert_eq!(error.reason(), FailureReason::InvalidBundle);
    }
    still_answers(engine());
}

#[test]
fn a_module_with_imports() {
    let wat = Guest::default().wat().replacen("(module", r#"(module (import "wasi" "fd_write" (func))"#, 1);
    let error = load(engine(), &wat).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the module does not speak runner ABI 1.x: it imports wasi.fd_write; a guest has no imports"
    );
}

#[test]
fn bytes_that_are_no_code_or_code_for_another_machine() {
    for bytes in [&b""[..], b"\x7fELF", &[0; 4096], Guest::default().wat().as_bytes()] {
        assert!(matches!(load_bytes(engine(), bytes), Err(SandboxError::Incompatible(_))));
    }
    let elsewhere = if cfg!(target_arch = "x86_64") { "aarch64" } else { "x86_64" };
    let other = EngineProfile::new(&format!("{elsewhere}-unknown-linux-musl"), [""; 0]);
    let wasm = wat::parse_str(Guest::default().wat()).unwrap();
    let code = ballast_aot::precompile(&wasm, &other).unwrap();
    let error = load_bytes(engine(), &code).unwrap_err();
    assert!(matches!(&error, SandboxError::Incompatible(why) if why.contains("architecture")), "{error}");
    assert!(matches!(Engine::new(&other), Err(SandboxError::Incompatible(_))));
    still_answers(engine());
}

#[test]
fn a_module_of_another_profile_of_tunables() {
    let wasm = wat::parse_str(Guest::default().wat()).unwrap();
    let pulley = ballast_aot::precompile(&wasm, &EngineProfile::new("pulley64", [""; 0])).unwrap();
    assert!(matches!(load_bytes(engine(), &pulley), Err(SandboxError::Incompatible(_))));
    let interpreter = Engine::new(&EngineProfile::new("pulley64", [""; 0])).unwrap();
    load_bytes(&interpreter, &pulley).unwrap();
    still_answers(&interpreter);
}

/// As far as `pulley32` is tested: the runner compiles, to the same bytes each time, for pointers of 32 bits.
#[test]
#[cfg(target_pointer_width = "64")]
fn bytecode_for_32_bits_is_made_here_and_refused_here() {
    let profile = EngineProfile::new("pulley32", [""; 0]);
    let compile = || ballast_aot::precompile(ballast_aot::runner_for(&profile), &profile).unwrap();
    let code = compile();
    assert!(code == compile(), "compiling is not deterministic");
    let interpreter = Engine::new(&EngineProfile::new("pulley64", [""; 0])).unwrap();
    for engine in [engine(), &interpreter] {
        let error = load_bytes(engine, &code).unwrap_err();
        assert!(matches!(&error, SandboxError::Incompatible(why) if why.contains("pulley32")), "{error}");
        still_answers(engine);
    }
    let error = Engine::new(&profile).unwrap_err();
    assert!(matches!(&error, SandboxError::Incompatible(why) if why.contains("32 bits")), "{error}");
}

#[test]
fn a_start_function_that_traps_or_never_ends() {
    let trap = refused(Guest { extra: "(func $start unreachable) (start $start)", ..Guest::default() });
    assert!(matches!(&trap, SandboxError::Load(Fault::Trap { .. })), "{trap}");
    assert_eq!(trap.reason(), FailureReason::Trap);

    let engine = Engine::with_clock_by_hand(&EngineProfile::host()).unwrap();
    let program =
        Guest { extra: "(func $start (loop (br 0))) (start $start)", ..Guest::default() }.program(&engine).unwrap();
    let error = with_time_flying(&engine, || program.instantiate()).unwrap_err();
    assert_eq!(error, SandboxError::Load(Fault::DeadlineExceeded));
    still_answers(&engine);
}

#[test]
fn a_load_that_fails_traps_or_never_ends() {
    let words = "(i64.or (i64.shl (i64.const 16) (i64.const 32)) (i64.const 21))";
    let status = refused(Guest { load: "i32.const 3", error: words, ..Guest::default() });
    let want = Fault::Status { code: 3, message: "the guest's own words".into() };
    assert_eq!(status, SandboxError::Load(want));
    assert!(matches!(
        refused(Guest { load: "unreachable", ..Guest::default() }),
        SandboxError::Load(Fault::Trap { .. })
    ));

    let engine = Engine::with_clock_by_hand(&EngineProfile::host()).unwrap();
    let program = Guest { load: "(loop (br 0)) i32.const 0", ..Guest::default() }.program(&engine).unwrap();
    let error = with_time_flying(&engine, || program.instantiate()).unwrap_err();
    assert_eq!(error, SandboxError::Load(Fault::DeadlineExceeded));
}

#[test]
fn memory_and_tables_beyond_the_limit() {
    let limit = || spec().limits.memory_bytes;
    let large = refused(Guest { memory: r#"(memory (export "memory") 60000)"#, ..Guest::default() });
    assert!(matches!(large, SandboxError::Memory(_)), "{large}");
    assert_eq!(large.reason(), FailureReason::InsufficientMemory);

    // A start function that grows as far as it goes gets to the limit and no further.
    let greedy = "(func $start (loop (br_if 0 (i32.ne (memory.grow (i32.const 1)) (i32.const -1))))) (start $start)";
    let program = Guest { extra: greedy, ..Guest::default() }.program(engine()).unwrap();
    assert!(program.instantiate().is_ok());

    let table = refused(Guest { extra: "(table 100000000 funcref)", ..Guest::default() });
    assert!(matches!(table, SandboxError::Memory(_)), "{table}");
    let many = "(table 4000 funcref) (table 4000 funcref) (table 4000 funcref)";
    assert!(matches!(refused(Guest { extra: many, ..Guest::default() }), SandboxError::Memory(_)));

    // A memory that says it will not grow cannot take the plan.
    let fixed = refused(Guest { memory: r#"(memory (export "memory") 1 1)"#, ..Guest::default() });
    assert!(matches!(fixed, SandboxError::Memory(_)), "{fixed}");

    let module = Guest::default().module(engine()).unwrap();
    let program = Program::with_arena(engine(), &module, spec(), limit()).unwrap();
    assert!(matches!(program.instantiate(), Err(SandboxError::Limit { .. })));
    still_answers(engine());
}

#[test]
fn a_heap_base_outside_the_address_space() {
    let whole = Guest::default().wat();
    let wat = whole.replace("i32 (i32.const 65536)", "i32 (i32.const -1)");
    assert_ne!(whole, wat);
    let program = Program::with_arena(engine(), &load(engine(), &wat).unwrap(), spec(), 4096).unwrap();
    assert!(matches!(program.instantiate(), Err(SandboxError::Limit { .. })));
}

#[test]
fn places_of_tensors_outside_memory() {
    for wild in
        ["i32.const -1", "i32.const 0x7fffffff", "(i32.sub (i32.shl (memory.size) (i32.const 16)) (i32.const 15))"]
    {
        for guest in [Guest { input: wild, ..Guest::default() }, Guest { output: wild, ..Guest::default() }] {
            let error = refused(guest);
            assert!(matches!(&error, SandboxError::Load(Fault::OutOfBounds { length: 16, .. })), "{wild}: {error}");
        }
    }
    let none = refused(Guest { input: "i32.const 0", ..Guest::default() });
    assert_eq!(none.to_string(), "the guest failed while loading: the guest broke the runner ABI: it has no input 0");
}

#[test]
fn error_texts_that_lie() {
    let with = |error| refused(Guest { load: "i32.const 1", error, ..Guest::default() });
    let SandboxError::Load(Fault::Status { message, .. }) = with("i64.const 0xffffffff") else { unreachable!() };
    assert!(message.len() <= 512, "{}", message.len());
    let nowhere = with("i64.const 0xffffffff_ffffffff");
    assert!(matches!(nowhere, SandboxError::Load(Fault::OutOfBounds { .. })), "{nowhere}");
    assert!(matches!(with("unreachable"), SandboxError::Load(Fault::Trap { .. })));
    assert!(matches!(with("(loop (br 0)) i64.const 0"), SandboxError::Load(Fault::DeadlineExceeded)));
}

#[test]
fn weights_that_are_cut_off_while_they_are_read() {
    let file = tempfile::tempfile().unwrap();
    file.set_len(100_000).unwrap();
    let mut spec = spec();
    spec.weights = Weights::File(std::sync::Arc::new(file.try_clone().unwrap()));
    let module = Guest::default().module(engine()).unwrap();
    let program = Program::with_arena(engine(), &module, spec, 4096).unwrap();
    assert!(program.instantiate().is_ok());
    file.set_len(50_000).unwrap();
    assert!(matches!(program.instantiate(), Err(SandboxError::Weights(_))));
}
