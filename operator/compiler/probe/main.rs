//! A worker program for tests: its compiler and its prover do what the model's name says, most of it hostile.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::Write;
use std::process::{Command, ExitCode};

use ballast_bundle::{Contract, DataType, GoldenMatch, Limits, Reset, State, StateInput, TensorSpec};
use ballast_compiler::{Artifacts, CompileOutcome, CompileRequest, ProveRequest, Proved, Verdict, VerdictReason};
use ballast_plan::build::{PlanBuilder, TensorDef};
use ballast_plan::step::{BiasOf, Epilogue, Gemm, Layout, Matrix};
use ballast_plan::{At, DType};

fn main() -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(ballast_compiler::COMPILE_WORKER) => ballast_compiler::serve_compile(work),
        Some(ballast_compiler::PROVE_WORKER) => ballast_compiler::serve_prove(prove),
        _ => ExitCode::from(2),
    }
}

fn work(request: &CompileRequest) -> CompileOutcome {
    match request.model_name.as_str() {
        "digits" => ballast_compiler::compile(request),
        "look" => refused(look(&request.version, &request.variant)),
        "noise" => {
            println!("this is not a reply");
            refused("said".into())
        }
        name => {
            misbehave(name);
            CompileOutcome::Built(Box::new(artifacts(request)))
        }
    }
}

/// As [`work`]; the prover sees a contract, and in it the name.
fn prove(request: &ProveRequest) -> Proved {
    let contract: Contract = serde_json::from_slice(&request.contract).unwrap();
    match contract.model.strip_prefix("prove ") {
        Some("look") => Proved::Failed { message: look(&contract.version, &contract.variant) },
        Some("noise") => {
            println!("this is not a reply");
            ballast_compiler::prove(request)
        }
        Some("long reply") => Proved::Failed { message: "x".repeat(1 << 20) },
        Some(name) => {
            misbehave(name);
            Proved::Failed { message: "it did not misbehave".into() }
        }
        None => ballast_compiler::prove(request),
    }
}

/// Returns from what it does not know.
fn misbehave(name: &str) {
    match name {
        "overflow" => {
            std::hint::black_box(deep(1));
        }
        "spin" => loop {
            std::hint::spin_loop();
        },
        "sleep" => loop {
            std::thread::park();
        },
        "memory" => {
            let mut kept = Vec::new();
            loop {
                kept.push(vec![1u8; 16 << 20]);
                std::hint::black_box(&kept);
            }
        }
        "panic" => panic!("on purpose"),
        "exit" => std::process::exit(0),
        "flood" => loop {
            if std::io::stdout().write_all(&[b' '; 1 << 16]).is_err() {
                std::process::exit(0);
            }
        },
        _ => {}
    }
}

fn refused(message: String) -> CompileOutcome {
    CompileOutcome::Refused(verdict(false, VerdictReason::NotOnnx, message))
}

fn verdict(fits: bool, reason: VerdictReason, message: String) -> Verdict {
    Verdict { fits, ..Verdict::new(reason, message) }
}

#[allow(unconditional_recursion)]
fn deep(n: u64) -> u64 {
    let room = std::hint::black_box([n; 64]);
    deep(n + 1) + room[0]
}

/// Tries to get out, and says what worked.
fn look(key: &str, port: &str) -> String {
    let port: u16 = port.parse().unwrap_or(0);
    let mut out = Vec::new();
    let mut tried = |what: &str, worked: bool| {
        if worked {
            out.push(what.to_owned());
        }
    };
    tried("read the key file", File::open(key).is_ok());
    tried("write beside the key file", File::create(format!("{key}.new")).is_ok());
    tried("remove the key file", std::fs::remove_file(key).is_ok());
    tried("see the key file", std::fs::metadata(key).is_ok());
    tried("list files", std::fs::read_dir("/").is_ok());
    tried(
        "read the parent's environment",
        File::open(format!("/proc/{}/environ", std::os::unix::process::parent_id())).is_ok(),
    );
    tried("connect to the parent's listener", std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
    tried("listen", std::net::TcpListener::bind(("127.0.0.1", 0)).is_ok());
    tried("send datagrams", std::net::UdpSocket::bind(("127.0.0.1", 0)).is_ok());
    tried("make Unix sockets", std::os::unix::net::UnixDatagram::pair().is_ok());
    tried("start a program", Command::new("/proc/self/exe").spawn().is_ok());
    // SAFETY: pointers are to strings and arrays that live here; a child that is not denied ends at once.
    unsafe {
        let child = libc::fork();
        if child == 0 {
            libc::_exit(0);
        }
        tried("fork", child > 0);
        tried("signal the parent", libc::kill(libc::getppid(), 0) == 0);
        tried("hold a file that the parent forgot", (3..64).any(|fd| libc::fcntl(fd, libc::F_GETFD) >= 0));
        tried("trace the parent", libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), 0, 0) == 0);
        let more = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
        tried("raise its limits", libc::setrlimit(libc::RLIMIT_DATA, &raw const more) == 0);
        let path = std::ffi::CString::new(key).unwrap_or_default();
        // By number: newer than the C library.
        const FCHMODAT2: libc::c_long = 452;
        tried("open the key to all", libc::syscall(FCHMODAT2, libc::AT_FDCWD, path.as_ptr(), 0o777, 0) == 0);
        let attribute = c"user.ballast";
        tried("mark the key", libc::setxattr(path.as_ptr(), attribute.as_ptr(), path.as_ptr().cast(), 1, 0) == 0);
        // Memory that its limit does not count.
        tried("make files of memory", libc::memfd_create(attribute.as_ptr(), 0) >= 0);
        let map = |flags| {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), 1 << 20, access, flags | libc::MAP_ANONYMOUS, -1, 0) != libc::MAP_FAILED
        };
        tried("map shared memory", map(libc::MAP_SHARED));
        tried("map memory that grows by itself", map(libc::MAP_PRIVATE | libc::MAP_GROWSDOWN));
        tried("map no memory of its own", !map(libc::MAP_PRIVATE));
        tried("make pipes", libc::pipe([0; 2].as_mut_ptr()) == 0);
        tried("use io_uring", libc::syscall(libc::SYS_io_uring_setup, 1, 0) >= 0);
        tried("make namespaces", libc::unshare(libc::CLONE_NEWUSER) == 0);
    }
    tried("see the parent's variables", std::env::vars().next().is_some());
    tried("not start a thread", std::thread::spawn(|| ()).join().is_err());
    out.join(", ")
}

/// Sound artifacts for `y[1][2] = x[1][2] · [[2, 0], [0, 3]]`, and then what the name says of them.
fn artifacts(request: &CompileRequest) -> Artifacts {
    let bytes = |values: &[f32]| -> Vec<u8> { values.iter().flat_map(|v| v.to_le_bytes()).collect() };
    let gemm = Gemm {
        batch: 1,
        m: 1,
        n: 2,
        k: 2,
        left: Matrix { at: At::arena(0).unwrap(), layout: Layout::Strided, row: 2, col: 1, batch: 0 },
        right: Matrix { at: At::weights(0).unwrap(), layout: Layout::Strided, row: 2, col: 1, batch: 0 },
        out: At::arena(64).unwrap(),
        out_row: 2,
        out_batch: 2,
        epilogue: Epilogue {
            bias_of: BiasOf::None,
            low: f32::NEG_INFINITY,
            high: f32::INFINITY,
            ..Epilogue::default()
        },
        scratch: At::arena(128).unwrap(),
    };
    let def = |name: &str, at| TensorDef { name: name.into(), dtype: DType::F32, dims: vec![1, 2], at };
    let mut builder = PlanBuilder::new();
    builder.entry("main", vec![def("x", 0)], vec![def("y", 64)], &[gemm.into()]);
    let arena = 128 + u32::try_from(gemm.scratch_bytes()).unwrap();
    let tensor = |name: &str| TensorSpec { name: name.into(), datatype: DataType::Fp32, shape: vec![1, 2] };
    let mut contract = Contract {
        format: 1,
        model: request.model_name.clone(),
        version: request.version.clone(),
        variant: request.variant.clone(),
        target: request.target.name.clone(),
        abi: 1 << 16,
        batch: None,
        state: None,
        buckets: None,
        plan_major: 1,
        inputs: vec![tensor("x")],
        outputs: vec![tensor("y")],
        counted: vec![],
        limits: Limits { memory_bytes: 4 << 20, deadline_millis: 100, instances: 1, max_queue: 1 },
        verification: request.verification.clone(),
    };
    let mut expected = [2.0, 3.0, -4.0, 30.0];
    let mut plan = builder.finish(arena, 16, 8).unwrap();
    let mut weights = bytes(&[2.0, 0.0, 0.0, 3.0]);
    let mut fits = true;
    match request.model_name.as_str() {
        "other model" => contract.model = "another".into(),
        "more memory" => contract.limits.memory_bytes = 1 << 40,
        "weaker proof" => contract.verification.tolerance.absolute = 1e9,
        "unasked state" => {
            let carried =
                StateInput { input: "x".into(), output: "y".into(), reset: Reset::OnSwap, initial: Vec::new() };
            contract.state = Some(State { inputs: vec![carried], max_sequences: 256, max_idle_millis: 60_000 });
        }
        "short weights" => weights.truncate(12),
        "broken plan" => plan.truncate(40),
        "contradiction" => fits = false,
        "wrong numbers" => expected[3] = 31.0,
        _ => {}
    }
    let mut inputs = [1.0, 1.0, -2.0, 10.0];
    let mut labels = [1i64, 1];
    let mut vectors = 2;
    match request.model_name.as_str() {
        // Each is sound in itself: the plan does reproduce it.
        "golden: other inputs" => (inputs[0], expected[0]) = (2.0, 4.0),
        "golden: fewer vectors" => vectors = 1,
        "golden: other labels" => labels[1] = 0,
        _ => {}
    }
    let shape = vec![vectors as u64, 1, 2];
    let stacked = [bytes(&inputs[..2 * vectors]), bytes(&expected[..2 * vectors])];
    let labels: Vec<u8> = labels[..vectors].iter().flat_map(|l| l.to_le_bytes()).collect();
    let mut tensors = vec![
        ("inputs/x".into(), DataType::Fp32, shape.clone(), &stacked[0][..]),
        ("outputs/y".into(), DataType::Fp32, shape, &stacked[1][..]),
    ];
    if request.verification.golden_match == GoldenMatch::ArgMax {
        tensors.push(("labels/y".into(), DataType::Int64, vec![vectors as u64], &labels[..]));
    }
    let golden = ballast_bundle::golden::write(&tensors);
    contract.verification.user_golden = request.golden.is_some();
    let contract = serde_json::to_vec(&contract).unwrap();
    Artifacts { weights, plan, contract, golden, verdict: verdict(fits, VerdictReason::Fits, String::new()) }
}
