//! The queue: bounded, drained, and never blocking who submits.

use std::sync::mpsc;

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::{Answer, Engine, EngineProfile, Fault, Pool, Program, Request, SubmitError, Weights};

use crate::guests::{Guest, SECOND, engine, floats, spec, with_time_flying};

fn request(done: impl FnOnce() + Send + 'static) -> Request {
    let inputs = vec![floats([1.0; 4]).into()];
    Request {
        entry: 0,
        inputs,
        deadline: SECOND,
        expires: None,
        done: Box::new(move |result| {
            result.unwrap();
            done();
        }),
    }
}

/// A pool of one thread that is held up in `done` until the sender is dropped or sends.
fn held_up() -> (Pool, mpsc::Sender<()>) {
    let pool = Pool::start(Guest::default().program(engine()).unwrap(), 1).unwrap();
    let (go, wait) = mpsc::channel::<()>();
    let (started, has_started) = mpsc::channel();
    pool.submit(request(move || {
        started.send(()).unwrap();
        let _ = wait.recv();
    }))
    .unwrap();
    has_started.recv().unwrap();
    (pool, go)
}

#[test]
fn the_queue_is_bounded_and_gives_the_request_back() {
    let (pool, go) = held_up();
    let (sender, answers) = mpsc::channel();
    let mut taken = 0;
    let refused = loop {
        let sender = sender.clone();
        match pool.submit(request(move || sender.send(()).unwrap())) {
            Ok(()) => taken += 1,
            Err(SubmitError::QueueFull(request)) => break request,
            Err(SubmitError::Closed(_)) => unreachable!("nobody closed it"),
        }
        assert!(taken < 100);
    };
    // Two may wait, and the thread that hands an answer over already counts as free for one.
    assert_eq!((taken, pool.queued()), (3, 3));
    assert_eq!(refused.inputs.len(), 1);
    go.send(()).unwrap();
    for _ in 0..taken {
        answers.recv().unwrap();
    }
    // The one that came back can be asked again.
    pool.submit(refused).unwrap();
    answers.recv().unwrap();
}

#[test]
fn closing_answers_what_was_taken_and_refuses_what_comes() {
    let (pool, go) = held_up();
    let (sender, answers) = mpsc::channel();
    for _ in 0..2 {
        let sender = sender.clone();
        pool.submit(request(move || sender.send(()).unwrap())).unwrap();
    }
    pool.close();
    assert!(matches!(pool.submit(request(|| {})), Err(SubmitError::Closed(_))));
    go.send(()).unwrap();
    pool.shutdown();
    assert_eq!(answers.try_iter().count(), 2, "shutdown returns after the last answer");
}

#[test]
fn dropping_does_not_block_and_loses_nothing() {
    let (pool, go) = held_up();
    let (sender, answers) = mpsc::channel();
    pool.submit(request(move || sender.send(()).unwrap())).unwrap();
    drop(pool);
    go.send(()).unwrap();
    answers.recv().unwrap();
}

/// Whoever has given up is neither run nor in the way.
#[test]
fn what_has_expired_is_dropped_when_its_turn_comes_or_its_place_is_needed() {
    let (pool, go) = held_up();
    let (sender, answers) = mpsc::channel();
    let submit = |name: &'static str, expires: Option<Instant>| {
        let sender = sender.clone();
        pool.submit(Request { expires, ..request(move || sender.send(name).unwrap()) })
    };
    let past = Some(Instant::now());
    submit("first", None).unwrap();
    submit("expired", past).unwrap();
    submit("expired", past).unwrap();
    assert_eq!(pool.queued(), 3);
    // The queue is full, were it not for those two.
    submit("second", Some(Instant::now() + 3600 * SECOND)).unwrap();
    assert_eq!(pool.queued(), 2);
    submit("expired", past).unwrap();
    go.send(()).unwrap();
    drop(sender);
    assert_eq!([answers.recv().unwrap(), answers.recv().unwrap()], ["first", "second"]);
    pool.shutdown();
    assert!(answers.recv().is_err(), "the last one was dropped");
}

#[test]
fn a_receiver_that_panics_does_not_end_the_thread() {
    let pool = Pool::start(Guest::default().program(engine()).unwrap(), 1).unwrap();
    pool.submit(request(|| panic!("on purpose"))).unwrap();
    let (sender, answers) = mpsc::channel();
    pool.submit(request(move || sender.send(()).unwrap())).unwrap();
    answers.recv().unwrap();
}

#[test]
fn several_instances_answer_at_once() {
    let pool = Pool::start(Guest::default().program(engine()).unwrap(), 2).unwrap();
    // Each waits for the other: with one thread this would never end.
    let barrier = Arc::new(std::sync::Barrier::new(2));
    let (sender, answers) = mpsc::channel();
    for _ in 0..2 {
        let (barrier, sender) = (barrier.clone(), sender.clone());
        pool.submit(request(move || {
            barrier.wait();
            sender.send(()).unwrap();
        }))
        .unwrap();
    }
    answers.recv().unwrap();
    answers.recv().unwrap();
}

fn ask(pool: &Pool, x: f32, deadline: Duration) -> Result<Answer, Fault> {
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    pool.submit(Request { entry: 0, inputs: vec![floats([x; 4]).into()], deadline, expires: None, done }).unwrap();
    receiver.recv().unwrap()
}

/// A guest that traps on 666 and, as long as its weights say so, loads without end.
struct Slow {
    engine: Engine,
    weights: Arc<File>,
    pool: Pool,
}

impl Slow {
    fn start() -> Self {
        // Time stands still: a load that does not end goes on until the test lets time pass.
        let engine = Engine::with_clock_by_hand(&EngineProfile::host()).unwrap();
        let weights = Arc::new(tempfile::tempfile().unwrap());
        weights.write_all_at(&[0; 4], 0).unwrap();
        let guest = Guest {
            load: "(if (i32.load (local.get 2)) (then (loop (br 0)))) i32.const 0",
            infer: "(if (f32.eq (local.get $x) (f32.const 666)) (then (unreachable)))",
            ..Guest::default()
        };
        let module = guest.module(&engine).unwrap();
        let spec = ballast_sandbox::ProgramSpec { weights: Weights::File(Arc::clone(&weights)), ..spec() };
        let program = Program::with_arena(&engine, &module, spec, 4096).unwrap();
        let pool = Pool::start(program, 1).unwrap();
        Self { engine, weights, pool }
    }

    fn load_for_ever(&self, yes: bool) {
        self.weights.write_all_at(&[u8::from(yes); 4], 0).unwrap();
    }
}

#[test]
fn a_request_waits_for_the_next_spare_no_longer_than_its_deadline() {
    let slow = Slow::start();
    slow.load_for_ever(true);
    // The instance and the spare; the next spare is never ready.
    for _ in 0..2 {
        assert!(matches!(ask(&slow.pool, 666.0, SECOND), Err(Fault::Trap { .. })));
    }
    let fault = ask(&slow.pool, 1.0, Duration::from_millis(10)).unwrap_err();
    assert!(matches!(&fault, Fault::Unavailable { reason: FailureReason::DeadlineExceeded, .. }), "{fault}");
    assert!(fault.is_guests());

    // Time passes: that load misses its own deadline, and who waits hears of it. Later ones are sound.
    slow.load_for_ever(false);
    let heard = with_time_flying(&slow.engine, || ask(&slow.pool, 1.0, Duration::from_secs(60)));
    assert!(matches!(heard, Ok(_) | Err(Fault::Unavailable { .. })), "{heard:?}");
    // One that was begun while time still flew may fail too.
    let answered = (0..10).find_map(|_| ask(&slow.pool, 1.0, Duration::from_secs(60)).ok());
    assert_eq!(answered.unwrap().outputs, [floats([1.0; 4])]);
    slow.pool.shutdown();
}
