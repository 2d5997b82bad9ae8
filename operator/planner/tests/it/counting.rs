//! What a gateway counts as.

use ballast_bundle::UnixMillis;
use ballast_bundle::protocol::ReleaseState;
use ballast_planner::{Counts, GatewayView, Score, Tally, Threshold, Vote};

use crate::{HOUR, gateway, reporting};

/// Counts one gateway, last heard of `silence` milliseconds ago.
fn count(view: GatewayView, threshold: Threshold, silence: u64) -> Counts {
    let mut tally = Tally::new(threshold, HOUR, UnixMillis(2 * HOUR));
    tally.add(&GatewayView { last_seen: view.last_seen.map(|_| UnixMillis(2 * HOUR - silence)), ..view });
    tally.finish().0
}

/// The one place that an eligible gateway is counted in.
fn place(counts: &Counts) -> &'static str {
    let places = [
        ("passed", counts.passed),
        ("failed", counts.failed),
        ("lost", counts.lost),
        ("in flight", counts.in_flight),
        ("held", counts.held),
        ("waiting", counts.waiting),
        ("outside", counts.outside),
        ("away", counts.away),
    ];
    assert_eq!(places.iter().map(|(_, n)| n).sum::<u64>(), counts.eligible, "{counts:?}");
    places.iter().find(|(_, n)| *n == 1).map_or("nowhere", |(name, _)| name)
}

#[test]
fn every_gateway_is_in_one_place() {
    use ReleaseState::{Active, Deferred, Fetching, Probing, RolledBack, Trial, Verified};
    let (heard, silent) = (HOUR, HOUR + 1);
    let (passed, failed) = (Some(Vote::Passed), Some(Vote::Failed));
    let member = Threshold::default().including(Score(0));
    let given = GatewayView { given: true, ..gateway(0) };
    let never = GatewayView { last_seen: None, ..gateway(0) };
    for (name, view, threshold, silence, expected) in [
        ("not a member", gateway(9), member, heard, "outside"),
        ("a member that did not sync yet", gateway(0), member, heard, "waiting"),
        ("given a pointer", given, member, heard, "in flight"),
        ("given, whatever the threshold", GatewayView { score: Score(9), ..given }, member, heard, "in flight"),
        ("fetching", reporting(Fetching, None), member, heard, "in flight"),
        ("no room", reporting(Deferred, None), member, heard, "held"),
        ("verified", reporting(Verified, None), member, heard, "in flight"),
        ("probing", reporting(Probing, None), member, heard, "in flight"),
        ("on trial", reporting(Trial, None), member, heard, "in flight"),
        ("active, its vote not stored yet", reporting(Active, None), member, heard, "in flight"),
        ("passed", reporting(Active, passed), member, heard, "passed"),
        ("passed and went back", reporting(RolledBack, passed), member, heard, "passed"),
        ("failed", reporting(RolledBack, failed), member, heard, "failed"),
        ("rolled back for a reason that does not count", reporting(RolledBack, None), member, heard, "in flight"),
        // Switched off: who did not fetch it knows nothing of the release.
        ("never heard of", never, member, heard, "away"),
        ("silent, not a member", gateway(9), member, silent, "away"),
        ("silent member", gateway(0), member, silent, "away"),
        ("silent, given", given, member, silent, "away"),
        ("silent while fetching", reporting(Fetching, None), member, silent, "away"),
        ("silent without room", reporting(Deferred, None), member, silent, "away"),
        ("silent with the release on it", reporting(Verified, None), member, silent, "lost"),
        ("silent on trial", reporting(Trial, None), member, silent, "lost"),
        ("silent after its vote", reporting(Active, passed), member, silent, "passed"),
        ("silent after it failed", reporting(RolledBack, failed), member, silent, "failed"),
    ] {
        let counts = count(view, threshold, silence);
        assert_eq!(place(&counts), expected, "{name}");
        assert_eq!(counts.silent, u64::from(silence > HOUR || view.last_seen.is_none()), "{name}");
        assert_eq!(counts.relapsed, u64::from(name == "passed and went back"), "{name}");
    }
}

#[test]
fn a_vote_is_cast_once_and_stays() {
    // Whatever it reports afterwards, and however long ago it was heard of.
    for state in [ReleaseState::Fetching, ReleaseState::Trial, ReleaseState::Active, ReleaseState::RolledBack] {
        for silence in [0, 2 * HOUR] {
            let passed = count(reporting(state, Some(Vote::Passed)), Threshold::ALL, silence);
            assert_eq!((passed.passed, passed.failed, passed.resolved()), (1, 0, 1), "{state:?}");
            let failed = count(reporting(state, Some(Vote::Failed)), Threshold::ALL, silence);
            assert_eq!((failed.passed, failed.failed, failed.resolved()), (0, 1, 1), "{state:?}");
        }
    }
}

#[test]
fn gateways_of_other_targets_are_in_no_denominator() {
    let other = GatewayView { eligible: false, ..reporting(ReleaseState::RolledBack, Some(Vote::Failed)) };
    assert_eq!(count(other, Threshold::ALL, 0), Counts { selected: 1, ..Counts::default() });
    let shown = count(other, Threshold::ALL, 0).shown();
    assert_eq!((shown.eligible, shown.ineligible, shown.failed, shown.pending), (0, 1, 0, 0));
}

#[test]
fn shown_counts_add_up() {
    let mut tally = Tally::new(Threshold::ALL, HOUR, UnixMillis(0));
    for state in [ReleaseState::Fetching, ReleaseState::Deferred, ReleaseState::Trial, ReleaseState::Probing] {
        tally.add(&reporting(state, None));
    }
    tally.add(&gateway(1));
    tally.add(&reporting(ReleaseState::Active, Some(Vote::Passed)));
    tally.add(&reporting(ReleaseState::RolledBack, Some(Vote::Passed)));
    tally.add(&reporting(ReleaseState::RolledBack, Some(Vote::Failed)));
    let shown = tally.finish().0.shown();
    assert_eq!((shown.eligible, shown.pending, shown.updated, shown.failed), (8, 3, 3, 2));
    assert_eq!((shown.healthy, shown.silent, shown.ineligible), (1, 0, 0));
}

#[test]
fn the_smallest_scores_outside_are_kept_in_order() {
    let mut tally = Tally::new(Threshold::default().including(Score(99)), HOUR, UnixMillis(0));
    for i in 0..200 {
        tally.add(&gateway(1000 - 5 * i));
    }
    let (counts, next) = tally.finish();
    assert_eq!((counts.outside, counts.waiting), (181, 19));
    assert_eq!(next.len(), Tally::EXACT);
    assert_eq!((next[0], next[1]), (Score(100), Score(105)));
    assert!(next.is_sorted());
}
