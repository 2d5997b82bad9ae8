//! The worker's side: isolate, read, work, reply.

use std::ffi::OsString;
use std::io::{BufRead, Read, Write};
use std::process::ExitCode;

use super::{Reply, Task, WorkerLimits, isolation};
use crate::prove::{ProveRequest, Proved};
use crate::{CompileOutcome, CompileRequest};

/// The longest first line.
const MAX_LIMITS_BYTES: u64 = 4096;
/// Compilation walks graphs; a model that is a long chain must not end it.
const STACK_BYTES: usize = 64 << 20;

/// `compile-worker`. Call it first thing in `main`, before any thread is started. `arguments` are ignored: everything
/// comes on standard input.
pub fn compile_worker_main(_arguments: &[OsString]) -> ExitCode {
    serve_compile(crate::compile)
}

/// As [`compile_worker_main`], with other work: tests put something hostile in its place.
pub fn serve_compile(work: impl FnOnce(&CompileRequest) -> CompileOutcome + Send) -> ExitCode {
    serve(|task| match task {
        Task::Compile(request) => Reply::Compiled { outcome: Box::new(work(&request)) },
        Task::Ping | Task::Prove(_) => Reply::Refused { message: "this worker compiles".to_owned() },
    })
}

/// `prove-worker`. As [`compile_worker_main`].
pub fn prove_worker_main(_arguments: &[OsString]) -> ExitCode {
    serve_prove(crate::prove)
}

/// As [`prove_worker_main`], with other work; see [`serve_compile`].
pub fn serve_prove(work: impl FnOnce(&ProveRequest) -> Proved + Send) -> ExitCode {
    serve(|task| match task {
        Task::Prove(request) => Reply::Proved { proved: work(&request) },
        Task::Ping | Task::Compile(_) => Reply::Refused { message: "this worker proves".to_owned() },
    })
}

fn serve(work: impl FnOnce(Task) -> Reply + Send) -> ExitCode {
    let mut stdin = std::io::stdin().lock();
    let mut line = Vec::new();
    let limits: WorkerLimits = match (&mut stdin)
        .take(MAX_LIMITS_BYTES)
        .read_until(b'\n', &mut line)
        .map_err(serde_json::Error::io)
        .and_then(|_| serde_json::from_slice(&line))
    {
        Ok(limits) => limits,
        Err(e) => {
            eprintln!("this is a worker of ballast-operator; it takes its limits and request on standard input ({e})");
            return ExitCode::from(2);
        }
    };
    let isolation = match isolation::enter(&limits) {
        Ok(isolation) => isolation,
        Err(message) => return say(&Reply::NotIsolated { message }),
    };
    drop(stdin);
    // A thread of its own for its stack; the main thread's is whatever the shell says.
    let result = std::thread::scope(|scope| {
        std::thread::Builder::new()
            .name("worker".into())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                let task = match serde_json::from_reader(std::io::stdin().lock()) {
                    Ok(Task::Ping) => return say(&Reply::Pong { isolation }),
                    Ok(task) => task,
                    Err(e) => return say(&Reply::Refused { message: format!("the request cannot be read: {e}") }),
                };
                say(&work(task))
            })
            .map(|thread| thread.join())
    });
    match result {
        Ok(Ok(code)) => code,
        // The panic's message is on standard error.
        Ok(Err(_)) => ExitCode::from(101),
        Err(e) => say(&Reply::NotIsolated { message: format!("no thread: {e}") }),
    }
}

fn say(reply: &Reply) -> ExitCode {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    match serde_json::to_writer(&mut out, reply).map_err(std::io::Error::from).and_then(|()| out.flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("the reply could not be written: {e}");
            ExitCode::FAILURE
        }
    }
}
