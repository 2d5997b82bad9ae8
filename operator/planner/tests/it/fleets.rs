//! Simulated rollouts, 200 seeds each, up to 1,000 gateways; the grid of `cargo xtask bench planner`.
//!
//! Bounds follow from the goals: of 200 rollouts with a chance of q each, more than `most(q)` or fewer than `least(q)`
//! happen in one of 10,000 cases, so a planner that just meets its goals passes. Seeds are fixed: a failure replays.

use ballast_crds::Rollout;
use ballast_planner::{HaltCause, Policy, SMALL_FLEET, UNPROVED_WINDOW};

use crate::random::Random;
use crate::simulation::{Fleet, Outcome, SYNC, rollout};

const SEEDS: u64 = 200;
const UNLIKELY: f64 = 1e-4;

fn policy() -> Policy {
    Policy::new(&Rollout::default(), SYNC).unwrap()
}

fn outcomes(gateways: usize, failure_rate: f64) -> Vec<Outcome> {
    let fleet = Fleet { gateways, switched_off: 0.1, failure_rate };
    let policy = policy();
    (0..SEEDS)
        .map(|seed| {
            let (mut steps, mut threshold) = (0, Default::default());
            let outcome = rollout(&fleet, &policy, &mut Random::new(seed, 0), |state, counts| {
                let limit = match counts.eligible {
                    ..SMALL_FLEET => 1,
                    _ if state.is_proved() => u64::MAX,
                    _ => UNPROVED_WINDOW,
                };
                assert!((1..=limit).contains(&state.window), "seed {seed}: {state:?}");
                assert!(counts.in_flight <= limit, "seed {seed}: {counts:?}");
                assert!(state.is_proved() || counts.given() <= policy.test.group(), "seed {seed}: {counts:?}");
                assert!(state.step >= steps && state.threshold >= threshold, "seed {seed}: {state:?}");
                (steps, threshold) = (state.step, state.threshold);
            });
            outcome.unwrap_or_else(|e| panic!("seed {seed}: {e}"))
        })
        .collect()
}

/// P(X ≤ k) of Binomial(SEEDS, q).
fn at_most(k: u64, q: f64) -> f64 {
    let mut term = (1.0 - q).powi(SEEDS as i32);
    let mut sum = term;
    for i in 1..=k {
        term *= (SEEDS - i + 1) as f64 / i as f64 * q / (1.0 - q);
        sum += term;
    }
    sum
}

fn most(q: f64) -> u64 {
    (0..SEEDS).find(|&k| 1.0 - at_most(k, q) <= UNLIKELY).unwrap_or(SEEDS)
}

fn least(q: f64) -> u64 {
    SEEDS - most(1.0 - q)
}

fn number(outcomes: &[Outcome], of: impl Fn(&Outcome) -> bool) -> u64 {
    outcomes.iter().filter(|o| of(o)).count() as u64
}

#[test]
fn bounds_have_slack_and_can_be_missed() {
    assert_eq!((most(0.0), most(0.01), most(0.05)), (0, 9, 23));
    assert_eq!(least(0.95), SEEDS - most(0.05));
}

#[test]
fn small_fleets_halt_exactly_when_a_gateway_fails() {
    for gateways in [3, 30] {
        for rate in [0.0, 0.01, 0.05, 0.10, 0.30] {
            let outcomes = outcomes(gateways, rate);
            let fleet = Fleet { gateways, switched_off: 0.1, failure_rate: rate };
            let halted = number(&outcomes, |o| o.halted.is_some());
            let (low, high) = (least(fleet.any_failure()), most(fleet.any_failure()));
            assert!((low..=high).contains(&halted), "{gateways} {rate}: {halted} is not in {low}..={high}");
            assert_eq!(number(&outcomes, |o| o.halted == Some(HaltCause::FirstFailure)), halted);
            let on = (gateways - fleet.off()) as u64;
            assert!(outcomes.iter().all(|o| if o.halted.is_none() { o.reached == on } else { o.reached <= on }));
        }
    }
}

#[test]
fn good_releases_get_everywhere() {
    for rate in [0.0, 0.01] {
        let outcomes = outcomes(1_000, rate);
        let halted = number(&outcomes, |o| o.halted.is_some());
        assert!(halted <= most(if rate == 0.0 { 0.0 } else { 0.01 }), "{rate}: {halted}");
        assert!(outcomes.iter().filter(|o| o.halted.is_none()).all(|o| o.reached == 900));
    }
}

#[test]
fn bad_releases_reach_a_hundred_gateways_at_most() {
    for rate in [0.10, 0.30] {
        let outcomes = outcomes(1_000, rate);
        let far = number(&outcomes, |o| o.reached > 100);
        assert!(far <= most(0.05), "{rate}: {far}");
        // Everywhere it would be found by the test in the end, at its latest by its 900 votes.
        assert_eq!(number(&outcomes, |o| o.halted.is_none()), 0, "{rate}");
    }
}

#[test]
fn what_lies_between_good_and_bad_is_stopped_too() {
    // Evidence grows by 0.05 · 2.30 − 0.95 · 0.0953 = 0.025 a vote: it passes 4.55 within 900 votes in nearly all cases.
    let outcomes = outcomes(1_000, 0.05);
    assert!(number(&outcomes, |o| o.halted.is_some()) >= least(0.95));
}

#[test]
fn a_seed_replays() {
    let fleet = Fleet { gateways: 300, switched_off: 0.1, failure_rate: 0.05 };
    let run = || rollout(&fleet, &policy(), &mut Random::new(7, 3), |_, _| {}).unwrap();
    assert_eq!(run(), run());
}
