//! Guests that are hostile while they answer. Each costs one error; the pool's next request is answered by the spare.

use std::sync::mpsc;
use std::time::Duration;

use ballast_bundle::protocol::FailureReason;
use ballast_sandbox::{Answer, Engine, EngineProfile, Fault, Pool, Request};

use crate::guests::{Guest, SECOND, engine, floats, with_time_flying};

/// What makes the guests here misbehave.
const EVIL: f32 = 666.0;

fn ask(pool: &Pool, x: f32, deadline: Duration) -> Result<Answer, Fault> {
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| sender.send(result).unwrap());
    pool.submit(Request { entry: 0, inputs: vec![floats([x, 2.0, 3.0, 4.0]).into()], deadline, expires: None, done })
        .unwrap();
    receiver.recv().unwrap()
}

/// Good, evil, good, evil, good: the faults of the evil ones.
fn between_good_ones(guest: Guest, deadline: Duration) -> Fault {
    let pool = Pool::start(guest.program(engine()).unwrap(), 1).unwrap();
    let good = |x: f32| assert_eq!(ask(&pool, x, SECOND).unwrap().outputs, [floats([x, 2.0, 3.0, 4.0])]);
    good(1.0);
    let fault = ask(&pool, EVIL, deadline).unwrap_err();
    good(2.0);
    assert_eq!(ask(&pool, EVIL, deadline).unwrap_err(), fault);
    good(3.0);
    pool.shutdown();
    fault
}

fn evil(infer: &'static str) -> Guest {
    Guest { infer, ..Guest::default() }
}

#[test]
fn loops_miss_their_deadline() {
    let guest = evil("(if (f32.eq (local.get $x) (f32.const 666)) (then (loop (br 0))))");
    let fault = between_good_ones(guest, Duration::from_millis(10));
    assert_eq!(fault, Fault::DeadlineExceeded);
    assert_eq!(fault.reason(), FailureReason::DeadlineExceeded);
}

#[test]
fn a_deadline_is_counted_in_epochs() {
    let engine = Engine::with_clock_by_hand(&EngineProfile::host()).unwrap();
    let guest = evil("(if (f32.eq (local.get $x) (f32.const 666)) (then (loop (br 0))))");
    let mut instance = guest.program(&engine).unwrap().instantiate().unwrap();
    let [good, bad] = [1.0, EVIL].map(|x| floats([x, 0.0, 0.0, 0.0]));
    assert!(instance.infer(&[&good], Duration::ZERO).is_ok(), "the clock stands");
    let fault = with_time_flying(&engine, || instance.infer(&[&bad], Duration::from_secs(3600)));
    assert_eq!(fault.unwrap_err(), Fault::DeadlineExceeded);
    assert!(instance.is_poisoned());
    assert_eq!(instance.infer(&[&good], SECOND).unwrap_err(), Fault::Poisoned);
}

#[test]
fn epochs_without_time_cut_nobody() {
    // As after a thread that slept too long, and worse: the clock of this engine is the machine's.
    let guest = evil(
        "(local.set $n (i32.const 50000000))
         (loop $again (local.set $n (i32.sub (local.get $n) (i32.const 1))) (br_if $again (local.get $n)))",
    );
    let mut instance = guest.program(engine()).unwrap().instantiate().unwrap();
    let input = floats([1.0; 4]);
    let answer = with_time_flying(engine(), || instance.infer(&[&input], Duration::from_secs(3600)));
    assert_eq!(answer.unwrap().outputs, [input]);
}

#[test]
fn recursion_without_end_is_a_trap() {
    let guest = Guest {
        infer: "(if (f32.eq (local.get $x) (f32.const 666)) (then (drop (call $deep (i32.const 0)))))",
        extra: "(func $deep (param i32) (result i32) (i32.add (call $deep (i32.add (local.get 0) (i32.const 1))) (i32.const 1)))",
        ..Guest::default()
    };
    let fault = between_good_ones(guest, SECOND);
    assert!(matches!(&fault, Fault::Trap { message } if message.contains("stack")), "{fault}");
}

#[test]
fn nothing_grows_after_loading() {
    let guest = Guest {
        infer: "(if (f32.eq (local.get $x) (f32.const 666)) (then
                  (if (i32.ne (memory.grow (i32.const 1)) (i32.const -1)) (then (unreachable)))
                  (if (i32.ne (table.grow $t (ref.null func) (i32.const 1)) (i32.const -1)) (then (unreachable)))
                  (return (i32.const 7))))",
        extra: "(table $t 1 funcref)",
        ..Guest::default()
    };
    let fault = between_good_ones(guest, SECOND);
    assert_eq!(fault, Fault::Status { code: 7, message: "it gave no reason".into() });
}

#[test]
fn wild_pointers_and_broken_arithmetic_are_traps() {
    for infer in [
        "(if (f32.eq (local.get $x) (f32.const 666)) (then (i32.store (i32.const -4) (i32.const 1))))",
        "(if (f32.eq (local.get $x) (f32.const 666)) (then (drop (i32.load offset=0xfffffffc (i32.const 0x7fffffff)))))",
        "(if (f32.eq (local.get $x) (f32.const 666)) (then (memory.fill (i32.const 0) (i32.const 1) (i32.const -1))))",
        "(if (f32.eq (local.get $x) (f32.const 666)) (then (drop (i32.div_s (i32.const 1) (i32.const 0)))))",
        "(if (f32.eq (local.get $x) (f32.const 666)) (then (unreachable)))",
    ] {
        let fault = between_good_ones(evil(infer), SECOND);
        assert!(matches!(fault, Fault::Trap { .. }), "{infer}: {fault}");
        assert_eq!(fault.reason(), FailureReason::Trap);
    }
}

#[test]
fn a_guest_that_overwrites_all_of_itself_harms_nobody() {
    let guest = evil(
        "(if (f32.eq (local.get $x) (f32.const 666)) (then
           (memory.fill (i32.const 0) (i32.const 255) (i32.shl (memory.size) (i32.const 16)))
           (return (i32.const 1))))",
    );
    assert!(matches!(between_good_ones(guest, SECOND), Fault::Status { code: 1, .. }));
}

#[test]
fn outputs_that_are_not_finite() {
    for value in ["nan", "inf", "-inf"] {
        let infer: &'static str = Box::leak(
            format!(
                "(if (f32.eq (local.get $x) (f32.const 666)) (then
                   (f32.store (global.get $arena) (f32.const {value}))))"
            )
            .into_boxed_str(),
        );
        let fault = between_good_ones(evil(infer), SECOND);
        assert_eq!(fault, Fault::NotFinite { output: "y".into() });
        assert_eq!(fault.reason(), FailureReason::NotFinite);
    }
}

#[test]
fn requests_that_do_not_fit_cost_no_instance() {
    let mut instance = Guest::default().program(engine()).unwrap().instantiate().unwrap();
    let good = floats([1.0; 4]);
    for bad in [vec![], vec![&good[..15]], vec![&good[..], &good[..]], vec![&[][..]]] {
        let fault = instance.infer(&bad, SECOND).unwrap_err();
        assert!(matches!(fault, Fault::Request { .. }) && !fault.is_guests(), "{fault}");
    }
    assert!(!instance.is_poisoned());
    assert!(instance.infer(&[&good], SECOND).is_ok());
}
