//! Long runs whose limits are anything.

use ballast_bundle::UnixMillis;
use ballast_escalation::{BudgetLimits, Decision, Ended, Escalator, Keep, Limits, Permit};
use proptest::prelude::*;

use crate::*;

#[derive(Debug, Clone)]
enum Event {
    Answer {
        share: f64,
        bytes: u64,
        coin: u64,
    },
    End {
        kind: u8,
        used: u64,
    },
    Cut,
    /// The clock may jump either way.
    Clock(i64),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => (0.0f64..1.0, 0u64..5_000, any::<u64>()).prop_map(|(share, bytes, coin)| Event::Answer { share, bytes, coin }),
        3 => (0u8..5, 0u64..5_000).prop_map(|(kind, used)| Event::End { kind, used }),
        1 => Just(Event::Cut),
        2 => (-100_000_000i64..200_000_000).prop_map(Event::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens to network, power and clock: in a stretch in which the clock shows no new day, no more than a day's
    /// bytes are paid for, and places are never exceeded.
    #[test]
    fn limits_hold_in_every_run(
        events in proptest::collection::vec(event(), 0..200),
        day in 0u64..20_000,
        minute in 0u32..10,
        places in 0u32..5,
    ) {
        let limits = Limits {
            budget: BudgetLimits { bytes_per_day: day, requests_per_minute: minute },
            concurrency: places,
            random_share: 1_000,
        };
        let thresholds = thresholds();
        let (mut now, mut tick) = (20_000 * DAY, 0u64);
        let mut disk = None;
        let mut escalator = Escalator::new(disk, UnixMillis(now));
        let mut permits: Vec<(Permit, u64)> = Vec::new();
        let (mut spent, mut since) = (0u64, now / DAY);
        for event in events {
            match event {
                Event::Answer { share, bytes, coin } => {
                    // A new day by the clock as it was at the last look.
                    if now / DAY > since {
                        spent = 0;
                        permits.iter_mut().for_each(|(_, own)| *own = 0);
                    }
                    let rows = [row(share)];
                    match escalator.decide(&rows, bytes, coin, settings(&thresholds, limits), UnixMillis(now), tick) {
                        Decision::Ask(permit) | Decision::Label(permit) => {
                            since = now / DAY;
                            if permit.keep_first {
                                disk = Some(escalator.kept());
                                escalator.written(escalator.kept());
                            }
                            spent += bytes;
                            permits.push((permit, bytes));
                        }
                        Decision::Keep(Keep::OverBytes | Keep::OverRequests) => since = now / DAY,
                        Decision::Keep(_) => {}
                    }
                }
                Event::End { kind, used } => {
                    let Some((permit, own)) = permits.pop() else { continue };
                    let ended = match kind {
                        0 => Ended::Answered { bytes: used },
                        1 => Ended::Failed,
                        2 => Ended::Useless { bytes: used },
                        3 => Ended::GivenUp,
                        _ => Ended::NotSent,
                    };
                    spent -= match ended {
                        Ended::Answered { bytes } | Ended::Useless { bytes } => own.saturating_sub(bytes),
                        Ended::Failed | Ended::GivenUp => 0,
                        Ended::NotSent => own,
                    };
                    escalator.ended(permit, ended, tick);
                }
                Event::Cut => {
                    escalator = Escalator::new(disk, UnixMillis(now));
                    permits.clear();
                }
                Event::Clock(by) => {
                    now = now.saturating_add_signed(by);
                    tick += by.unsigned_abs();
                }
            }
            prop_assert!(spent <= day, "{spent} of {day}");
            prop_assert!(permits.len() <= places as usize);
        }
    }
}
