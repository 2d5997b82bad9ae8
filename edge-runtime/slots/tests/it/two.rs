//! Two deployments on one gateway share its one place for a trial.

use std::collections::{HashSet, VecDeque};

use ballast_bundle::protocol::FailureReason;
use ballast_bundle::{DeploymentRef, TrialPolicy, UnixMillis};
use ballast_slots::{Effect, Event, ReleaseId, State, Wish, step, trial_is_open};

use crate::world::release;

type Pair = [(State, State); 2]; // (disk, memory)

#[test]
fn one_trial_at_a_time_also_across_power_cuts() {
    let start = ["a", "b"].map(|name| {
        let deployment = DeploymentRef { namespace: "ns".parse().unwrap(), name: name.to_owned() };
        let state = State::new(deployment, name.to_owned());
        (state.clone(), state)
    });
    let mut seen = HashSet::from([start.clone()]);
    let mut queue = VecDeque::from([start]);
    let mut tried = [false; 2];
    while let Some(pair) = queue.pop_front() {
        assert!(pair.iter().filter(|(disk, _)| disk.is_trying()).count() < 2, "{pair:#?}");
        assert!(pair.iter().filter(|(_, memory)| memory.is_trying()).count() < 2, "{pair:#?}");
        for (at, (_, memory)) in pair.iter().enumerate() {
            tried[at] |= memory.is_trying();
        }
        for next in successors(&pair) {
            if seen.insert(next.clone()) {
                queue.push_back(next);
            }
        }
    }
    assert_eq!(tried, [true; 2]);
}

fn successors(pair: &Pair) -> Vec<Pair> {
    let mut all = Vec::new();
    // A power cut: both machines start from disk.
    let mut rebooted = pair.clone();
    for (disk, memory) in &mut rebooted {
        *memory = step(disk, &Event::Booted, UnixMillis(1_000_000)).0;
        strip(memory);
        *disk = memory.clone();
    }
    all.push(rebooted);
    for at in 0..2 {
        let memory = &pair[at].1;
        let trial = TrialPolicy { min_duration_millis: 0, min_requests: 1, max_failures: 0 };
        let (one, two) = (release("1", 1, "x"), release("2", 2, "y"));
        let mut events = vec![
            Event::Assigned(Wish { want: Some(one.clone()), stable: None, trial: trial.clone() }),
            Event::Assigned(Wish { want: Some(two), stable: Some(one), trial }),
            Event::Withdrawn,
        ];
        if let Some(candidate) = &memory.candidate {
            let of = ReleaseId::from(&candidate.release);
            let message = String::new();
            events.extend([
                Event::Fetched(of),
                Event::ProbePassed(of),
                Event::Answered { by: of, requests: 1 },
                Event::RequestFailed { on: of, reason: FailureReason::Trap, message },
            ]);
            if trial_is_open(pair.iter().map(|(_, memory)| memory)) {
                events.push(Event::Admitted(of));
            }
        }
        for event in events {
            let (mut next, effects) = step(memory, &event, UnixMillis(0));
            strip(&mut next);
            let mut after = pair.clone();
            after[at].1 = next;
            if effects.contains(&Effect::Persist) {
                // The cut before the write.
                let mut lost = pair.clone();
                for (disk, memory) in &mut lost {
                    *memory = disk.clone();
                }
                all.push(lost);
                after[at].0 = after[at].1.clone();
            }
            all.push(after);
        }
    }
    all
}

/// Times and counts make no difference here.
fn strip(state: &mut State) {
    for held in state.active.iter_mut().chain(&mut state.fallback) {
        (held.requests, held.failures, held.boots, held.since) = (0, 0, 0, UnixMillis(0));
    }
    if let Some(candidate) = &mut state.candidate {
        (candidate.requests, candidate.failures, candidate.boots, candidate.since) = (0, 0, 0, UnixMillis(0));
    }
    for rejected in &mut state.rejected {
        rejected.at = UnixMillis(0);
    }
}
