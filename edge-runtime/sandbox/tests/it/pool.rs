//! The queue: bounded, drained, and never blocking who submits.

use std::sync::mpsc;

use ballast_sandbox::{Pool, Request, SubmitError};

use crate::guests::{Guest, SECOND, engine, floats};

fn request(done: impl FnOnce() + Send + 'static) -> Request {
    let inputs = vec![floats([1.0; 4]).into()];
    Request {
        inputs,
        deadline: SECOND,
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
    let barrier = std::sync::Arc::new(std::sync::Barrier::new(2));
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
