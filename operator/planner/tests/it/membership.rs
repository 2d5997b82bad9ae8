//! Waves only grow, and whoever joins takes the place that its own hash gives it.

use ballast_bundle::{Digest, GatewayId, UnixMillis};
use ballast_planner::{Decision, GatewayView, Policy, RolloutState, Score, Tally, Vote, plan};

use crate::random::Random;
use crate::{HOUR, gateway, policy};

struct Member {
    view: GatewayView,
    votes_at: u64,
}

fn member(i: u64) -> Member {
    let id: GatewayId = format!("gw-{i}").parse().unwrap();
    Member { view: gateway(Score::of(&Digest::of(b"release"), &id).0), votes_at: u64::MAX }
}

/// A tick: votes are cast, the planner looks, members sync. Returns whether the rollout is complete.
fn tick(fleet: &mut [Member], state: &mut RolloutState, policy: &Policy, now: u64) -> bool {
    let mut tally = Tally::new(state.threshold, HOUR, UnixMillis(now));
    for member in fleet.iter_mut() {
        member.view.last_seen = Some(UnixMillis(now));
        if member.votes_at <= now {
            member.view.vote = Some(Vote::Passed);
        }
        tally.add(&member.view);
    }
    let (counts, next) = tally.finish();
    let plan = plan(state, &counts, &next, policy, UnixMillis(now));
    assert!(plan.state.threshold >= state.threshold, "{:?} shrank to {:?}", state.threshold, plan.state.threshold);
    *state = plan.state;
    let mut left = plan.may_give;
    for member in fleet.iter_mut().filter(|m| !m.view.given && state.threshold.admits(m.view.score)) {
        if left == 0 {
            break;
        }
        left -= 1;
        (member.view.given, member.votes_at) = (true, now + 70_000);
    }
    plan.decision == Decision::Complete
}

#[test]
fn a_fleet_that_grows_and_shrinks_during_a_rollout() {
    let policy = policy(&["1", "10%", "100%"]);
    let mut random = Random::new(5, 0);
    let mut fleet: Vec<Member> = (0..300).map(member).collect();
    let mut state = RolloutState::default();
    let (mut now, mut joined, mut members) = (0, 300, std::collections::BTreeSet::new());
    while !tick(&mut fleet, &mut state, &policy, now) {
        now += 10_000;
        assert!(now < 24 * HOUR, "{state:?}");
        if random.chance(0.2) {
            fleet.push(member(joined));
            joined += 1;
        }
        if random.chance(0.05) {
            fleet.swap_remove(random.within(0, fleet.len() as u64) as usize);
        }
        // Once a member, always a member, whoever came or went.
        members.extend((0..joined).filter(|&i| state.threshold.admits(member(i).view.score)));
        assert!(members.iter().all(|&i| state.threshold.admits(member(i).view.score)));
        // Nobody outside the threshold was given it.
        assert!(fleet.iter().all(|m| !m.view.given || state.threshold.admits(m.view.score)));
    }
    assert!(joined > 350);
    let given = fleet.iter().filter(|m| m.view.given).count();
    assert!(given * 10 >= fleet.len() * 9, "{given} of {}", fleet.len());
}

#[test]
fn a_step_takes_in_the_smallest_scores_and_no_more() {
    let policy = policy(&["1", "10%", "100%"]);
    let fleet: Vec<Member> = (0..50).map(member).collect();
    let mut tally = Tally::new(RolloutState::default().threshold, HOUR, UnixMillis(0));
    fleet.iter().for_each(|m| tally.add(&m.view));
    let (counts, next) = tally.finish();
    let first = plan(&RolloutState::default(), &counts, &next, &policy, UnixMillis(0));
    let members: Vec<Score> = fleet.iter().map(|m| m.view.score).filter(|s| first.state.threshold.admits(*s)).collect();
    assert_eq!(members, [*fleet.iter().map(|m| &m.view.score).min().unwrap()]);
    assert_eq!(first.may_give, 1);
}
