//! Breadth-first over every event in a small world, with a power cut after each: no more bytes a day, requests a minute or
//! requests at once than allowed, one at a time after a pause, and nobody locked out for ever.

use std::collections::{HashSet, VecDeque};

use ballast_bundle::UnixMillis;
use ballast_escalation::{BreakerState, Decision, Ended, Escalator, Keep, Kept, Permit, Privacy};

use crate::*;

/// What the world knows beside the escalator. Permits are remade, since only one may exist of each.
#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    escalator: Escalator,
    disk: Option<Kept>,
    now: u64,
    /// Under way, sent, by whether their label counts.
    under_way: u8,
    /// What went over the link this day, and was asked in this minute.
    sent: u64,
    asked: u32,
}

/// Permits cannot be copied, so a world is the way to it.
type Way = Vec<Step>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Unsure,
    /// The same while the disk takes nothing.
    Unwritten,
    Sure,
    Chosen,
    EndAnswered,
    EndFailed,
    EndNotSent,
    Cut,
    Minute,
    NextDay,
}

const STEPS: [Step; 10] = [
    Step::Unsure,
    Step::Unwritten,
    Step::Sure,
    Step::Chosen,
    Step::EndAnswered,
    Step::EndFailed,
    Step::EndNotSent,
    Step::Cut,
    Step::Minute,
    Step::NextDay,
];

fn replay(way: &[Step]) -> Option<World> {
    let start = 20_000 * DAY;
    let mut world = World {
        escalator: Escalator::new(None, UnixMillis(start)),
        disk: None,
        now: start,
        under_way: 0,
        sent: 0,
        asked: 0,
    };
    let mut permits: Vec<Permit> = Vec::new();
    for step in way {
        match step {
            Step::Unsure | Step::Unwritten | Step::Sure | Step::Chosen => {
                let (share, coin) = match step {
                    Step::Unsure | Step::Unwritten => (0.3, NOT_CHOSEN),
                    Step::Chosen => (0.99, CHOSEN),
                    _ => (0.99, NOT_CHOSEN),
                };
                let before = world.escalator.clone();
                let paused = matches!(before.breaker().state(), BreakerState::Open { until, .. } if world.now < until);
                match (decide(&mut world.escalator, share, coin, world.now), step) {
                    (Decision::Keep(keep), _) => {
                        assert_eq!(keep == Keep::Sure, *step == Step::Sure, "{way:?}");
                        assert_eq!(keep == Keep::Busy, keep == Keep::Busy && permits.len() == 2, "{way:?}");
                    }
                    (Decision::Ask(permit), Step::Unwritten) if permit.keep_first => {
                        world.escalator.ended(permit, Ended::NotSent, world.now);
                    }
                    (Decision::Ask(permit), Step::Unsure | Step::Unwritten)
                    | (Decision::Label(permit), Step::Chosen) => {
                        assert!(!paused, "{way:?}: asked within a pause");
                        assert_eq!(permit.random, *step == Step::Chosen);
                        if permit.keep_first {
                            let kept = world.escalator.kept();
                            world.disk = Some(kept);
                            world.escalator.written(kept);
                        }
                        assert_eq!(world.disk, Some(world.escalator.kept()), "{way:?}: sent before it was kept");
                        permits.push(permit);
                        world.sent += 10;
                        world.asked += 1;
                    }
                    (other, _) => panic!("{way:?}: {other:?}"),
                }
            }
            Step::EndAnswered => world.escalator.ended(permits.pop()?, Ended::Answered { bytes: 10 }, world.now),
            Step::EndFailed => world.escalator.ended(permits.pop()?, Ended::Failed, world.now),
            Step::EndNotSent => {
                world.escalator.ended(permits.pop()?, Ended::NotSent, world.now);
                world.sent = world.sent.saturating_sub(10);
            }
            Step::Cut => {
                permits.clear();
                world.escalator = Escalator::new(world.disk, UnixMillis(world.now));
            }
            Step::Minute => {
                world.now += MINUTE;
                world.asked = 0;
            }
            Step::NextDay => {
                world.now = (world.now / DAY + 1) * DAY;
                (world.asked, world.sent) = (0, 0);
            }
        }
        world.under_way = u8::try_from(permits.len()).unwrap();
        assert!(world.sent <= LIMITS.budget.bytes_per_day, "{way:?}: {} bytes in a day", world.sent);
        assert!(world.asked <= LIMITS.budget.requests_per_minute, "{way:?}");
        assert!(u32::from(world.under_way) <= LIMITS.concurrency, "{way:?}");
        let trying = matches!(world.escalator.breaker().state(), BreakerState::Trying { .. });
        assert!(!trying || !permits.is_empty(), "{way:?}: waits for nobody");
    }
    Some(world)
}

/// A day later, with nobody under way, an unsure answer is sent on again, whatever happened before.
fn comes_back(world: &World) -> bool {
    let mut escalator = world.escalator.clone();
    let now = (world.now / DAY + 1) * DAY;
    world.under_way > 0 || matches!(decide(&mut escalator, 0.3, NOT_CHOSEN, now), Decision::Ask(_))
}

#[test]
fn every_order_of_events_keeps_every_limit() {
    let (mut seen, mut queue) = (HashSet::new(), VecDeque::from([Way::new()]));
    while let Some(way) = queue.pop_front() {
        let Some(world) = replay(&way) else { continue };
        assert!(comes_back(&world), "{way:?}: locked out for ever");
        if seen.insert(world) && way.len() < 9 {
            queue.extend(STEPS.iter().map(|step| way.iter().copied().chain([*step]).collect::<Way>()));
        }
    }
    assert!(seen.len() > 3_000, "{} worlds only", seen.len());
}

#[test]
fn nothing_is_asked_where_nothing_may_leave() {
    let thresholds = thresholds();
    for (privacy, sends, may) in [
        (Privacy::LocalOnly, Privacy::Any, false),
        (Privacy::LocalOnly, Privacy::Features, false),
        (Privacy::Features, Privacy::Any, false),
        (Privacy::Features, Privacy::Features, true),
        (Privacy::Any, Privacy::Any, true),
        // Nonsense, and safe.
        (Privacy::Any, Privacy::LocalOnly, false),
        (Privacy::LocalOnly, Privacy::LocalOnly, false),
    ] {
        for coin in [CHOSEN, NOT_CHOSEN] {
            let mut escalator = Escalator::new(None, UnixMillis(0));
            let settings = Settings { privacy, sends, ..settings(&thresholds, LIMITS) };
            let decision = escalator.decide(&[row(0.1)], 10, coin, settings, UnixMillis(MINUTE), 0);
            assert_eq!(matches!(decision, Decision::Ask(_)), may, "{privacy:?} {sends:?}");
            assert!(may || decision == Decision::Keep(Keep::Private));
        }
    }
}

#[test]
fn one_unsure_row_sends_the_request() {
    let thresholds = thresholds();
    let mut escalator = Escalator::new(None, UnixMillis(0));
    let mut decide =
        |rows: &[Judged]| escalator.decide(rows, 1, NOT_CHOSEN, settings(&thresholds, LIMITS), UnixMillis(MINUTE), 0);
    assert_eq!(decide(&[]), Decision::Keep(Keep::Sure));
    assert_eq!(decide(&[row(0.9), row(0.99)]), Decision::Keep(Keep::Sure));
    assert!(matches!(decide(&[row(0.9), row(0.8499), row(0.99)]), Decision::Ask(_)));
}
