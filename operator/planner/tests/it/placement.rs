//! Placement: one table test for each trade-off, what would have to change, and links that come and go.

use ballast_bundle::UnixMillis;
use ballast_planner::placement::{
    Change, Choice, CloudFacts, EdgeFacts, Facts, Latency, LinkFacts, Mode, Objectives, PlacementState, Privacy,
    Reason, SplitFacts, Why, choose, table,
};
use proptest::prelude::*;

const MINUTE: u64 = 60_000;
const MB: u64 = 1_000_000;

/// A camera with a small model: 20 ms and 30 mJ on its own chip, 5 in the cloud behind a 40 ms link of 1 MB/s, a frame each ten
/// seconds.
fn camera() -> Facts {
    Facts {
        edge: EdgeFacts {
            does_not_fit: None,
            p99_micros: Some(20_000),
            mean_micros: Some(15_000),
            milliwatts: Some(2_000),
            update_bytes: MB,
            updates_per_thousand_days: 30,
            accuracy: Some(9_400),
        },
        link: Some(LinkFacts {
            round_trip_micros: 40_000,
            up: MB,
            down: MB,
            reachable: 9_990,
            metered: false,
            nanojoules_per_byte: Some(1_000),
        }),
        cloud: Some(CloudFacts {
            p99_micros: Some(5_000),
            overhead_bytes: 500,
            accuracy: Some(9_900),
            escalated: Some(1_000),
            deadline_micros: 300_000,
            joint_accuracy: Some(9_850),
        }),
        split: Some(SplitFacts {
            head_p99_micros: Some(8_000),
            head_mean_micros: Some(6_000),
            tail_p99_micros: Some(4_000),
            features_bytes: 10_000,
            update_bytes: MB / 5,
            accuracy: Some(9_800),
        }),
        requests_per_day: Some(8_640),
        input_bytes: 100_000,
        output_bytes: 500,
        battery: false,
    }
}

fn anything() -> Objectives {
    Objectives { privacy: Privacy::Any, ..Objectives::default() }
}

fn first(facts: &Facts, objectives: &Objectives) -> Choice {
    choose(facts, objectives, &PlacementState::default(), UnixMillis(0)).0
}

fn with(change: impl FnOnce(&mut Facts)) -> Facts {
    let mut facts = camera();
    change(&mut facts);
    facts
}

fn reasons(choice: &Choice, mode: Mode) -> String {
    choice.table.row(mode).excluded.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

#[test]
fn the_figures_are_those_of_pencil_and_paper() {
    let table = table(&camera(), &anything());
    let figures = |mode| table.row(mode).figures;
    let is = |mode, micros, bytes, nanojoules| {
        let figures = figures(mode);
        assert_eq!(figures.latency_p99, Some(Latency::Micros(micros)), "{mode}");
        assert_eq!((figures.bytes_per_day, figures.nanojoules), (Some(bytes), Some(nanojoules)), "{mode}");
    };
    is(Mode::Edge, 20_000, 30_000, 30_000_000);
    // 40 ms + 100.5 ms up + 0.5 ms down + 5 ms; 101,000 bytes a request.
    is(Mode::Cloud, 146_000, 872_640_000, 101_000_000);
    is(Mode::Joint, 166_000, 30_000 + 87_264_000, 30_000_000 + 10_100_000);
    // 8 + 4 + 40 + 10.5 + 0.5 ms; 11,000 bytes a request and 6,000 of updates a day.
    is(Mode::Split, 63_000, 6_000 + 95_040_000, 12_000_000 + 11_000_000);
}

#[test]
fn latency_a_brake_does_not_wait_for_a_network() {
    let wanted = Objectives { latency_p99_micros: Some(50_000), ..anything() };
    let choice = first(&camera(), &wanted);
    assert_eq!((choice.mode, choice.why), (Mode::Edge, Why::OnlyOne));
    assert_eq!(reasons(&choice, Mode::Cloud), "99 of 100 answers take up to 146000 µs, wanted are 50000 µs");
    // 5 ms of computing cannot make up for 96; nor can a link without any delay make up for the upload.
    assert_eq!(choice.table.row(Mode::Cloud).changes, [Change::UploadAtLeast(22_333_334)]);
    assert_eq!(choice.table.row(Mode::Split).changes, [Change::RoundTripWithin(27_000)]);
    // With hardly anything sent on, 99 of 100 answers are the edge's own.
    assert_eq!(choice.table.row(Mode::Joint).changes, [Change::EscalatedAtMost(100)]);
}

#[test]
fn processing_power_a_weak_chip_beside_a_fast_link_asks_the_cloud() {
    let facts = with(|facts| {
        facts.edge.p99_micros = Some(900_000);
        facts.split = None;
    });
    let choice = first(&facts, &anything());
    assert_eq!((choice.mode, choice.why), (Mode::Cloud, Why::Fastest));
    let strong = with(|facts| facts.split = None);
    assert_eq!(first(&strong, &anything()).mode, Mode::Edge);
}

#[test]
fn memory_and_operators_what_does_not_fit_runs_elsewhere() {
    let facts = with(|facts| {
        facts.edge.does_not_fit = Some("needs 900 MiB of memory, the target has 256".into());
        facts.split = None;
    });
    let choice = first(&facts, &anything());
    assert_eq!((choice.mode, choice.why), (Mode::Cloud, Why::OnlyOne));
    for mode in [Mode::Edge, Mode::Joint] {
        assert!(reasons(&choice, mode).contains("needs 900 MiB of memory"));
    }
    assert!(reasons(&choice, Mode::Split).contains("no cut"));
    // Its head may fit all the same.
    let cut = Facts { split: camera().split, ..facts };
    assert_eq!(first(&cut, &anything()).mode, Mode::Split);
}

#[test]
fn energy_a_battery_computes_little_and_sends_little() {
    let facts = with(|facts| facts.battery = true);
    let choice = first(&facts, &anything());
    assert_eq!((choice.mode, choice.why), (Mode::Split, Why::LeastEnergy));
    // A radio that is dear makes computing cheap, and the other way round.
    let radio = |each| {
        with(|facts| {
            facts.battery = true;
            facts.link.as_mut().unwrap().nanojoules_per_byte = Some(each);
        })
    };
    assert_eq!(first(&radio(10_000), &anything()).mode, Mode::Edge);
    assert_eq!(first(&radio(1), &anything()).mode, Mode::Cloud);
    let wanted = Objectives { nanojoules: Some(25_000_000), ..anything() };
    let choice = first(&facts, &wanted);
    assert_eq!((choice.mode, choice.why), (Mode::Split, Why::OnlyOne));
    assert_eq!(choice.table.row(Mode::Edge).changes, [Change::MilliwattsAtMost(1_666)]);
    assert_eq!(choice.table.row(Mode::Cloud).changes, [Change::NanojoulesPerByteAtMost(247)]);
}

#[test]
fn connectivity_blind_spots_are_served_at_the_edge() {
    let facts = with(|facts| {
        facts.edge.p99_micros = Some(900_000);
        facts.link.as_mut().unwrap().reachable = 9_700;
    });
    let choice = first(&facts, &anything());
    assert_eq!(choice.mode, Mode::Edge, "slow, and there all the same");
    for mode in [Mode::Cloud, Mode::Split] {
        assert_eq!(
            reasons(&choice, mode),
            "every answer needs the cloud, and it is reachable for 97.00 % of the time only"
        );
        assert_eq!(choice.table.row(mode).changes, [Change::ReachableAtLeast(9_900)]);
    }
    // Joint inference has an answer of its own, and waits for no longer than its deadline.
    assert_eq!(choice.table.row(Mode::Joint).figures.latency_p99, Some(Latency::Micros(1_200_000)));
    let never = with(|facts| facts.link = None);
    let choice = first(&never, &anything());
    assert_eq!((choice.mode, choice.why), (Mode::Edge, Why::OnlyOne));
}

#[test]
fn privacy_decides_what_may_leave_and_its_default_is_nothing() {
    // The cloud is better by every other measure.
    let facts = with(|facts| facts.edge.p99_micros = Some(10_000_000));
    for (privacy, mode) in
        [(Privacy::LocalOnly, Mode::Edge), (Privacy::Features, Mode::Split), (Privacy::Any, Mode::Split)]
    {
        assert_eq!(first(&facts, &Objectives { privacy, ..Objectives::default() }).mode, mode, "{privacy:?}");
    }
    let choice = first(&facts, &Objectives::default());
    assert_eq!(reasons(&choice, Mode::Cloud), "Any would leave the gateway, and privacy allows LocalOnly");
    assert_eq!(choice.table.row(Mode::Split).changes, [Change::Privacy(Privacy::Features)]);
    assert_eq!(choice.table.row(Mode::Cloud).changes, [Change::Privacy(Privacy::Any)]);
}

#[test]
fn transfer_cost_a_large_model_for_few_questions_stays_in_the_cloud() {
    // 2 GB, a release a month; the link is metered.
    let facts = |requests| {
        with(|facts| {
            facts.edge.update_bytes = 2_000 * MB;
            facts.link.as_mut().unwrap().metered = true;
            facts.requests_per_day = Some(requests);
            facts.split = None;
        })
    };
    let rare = first(&facts(10), &anything());
    assert_eq!((rare.mode, rare.why), (Mode::Cloud, Why::FewestBytes));
    assert_eq!(first(&facts(100_000), &anything()).mode, Mode::Edge);
    // A delta of one per cent turns it round.
    let mut delta = facts(10);
    delta.edge.update_bytes = 20 * MB;
    assert_eq!(first(&delta, &anything()).mode, Mode::Edge);
    let wanted = Objectives { bytes_per_day: Some(10 * MB), ..anything() };
    let choice = first(&facts(1_000), &wanted);
    assert_eq!((choice.mode, choice.why), (Mode::Edge, Why::NoneFits));
    assert_eq!(choice.table.row(Mode::Cloud).changes, [Change::RequestsAtMost(99)]);
    assert_eq!(choice.table.row(Mode::Edge).changes, [Change::UpdateAtMost(333_333_333)]);
}

#[test]
fn bandwidth_bytes_within_a_budget_are_the_unsure_ones() {
    let wanted = Objectives { bytes_per_day: Some(90 * MB), accuracy: Some(9_840), ..anything() };
    let choice = first(&camera(), &wanted);
    assert_eq!((choice.mode, choice.why), (Mode::Joint, Why::OnlyOne));
    let tight = Objectives { bytes_per_day: Some(10 * MB), ..wanted };
    let choice = first(&camera(), &tight);
    assert_eq!(choice.why, Why::NoneFits);
    assert_eq!(choice.table.row(Mode::Joint).changes, [Change::EscalatedAtMost(113)]);
}

#[test]
fn accuracy_a_small_model_alone_is_not_good_enough() {
    let wanted = Objectives { accuracy: Some(9_840), ..anything() };
    let choice = first(&camera(), &wanted);
    assert_eq!(choice.mode, Mode::Cloud, "146 ms, and joint takes 166");
    assert_eq!(reasons(&choice, Mode::Edge), "94.00 % of the answers are right, wanted are 98.40 %");
    assert_eq!(choice.table.row(Mode::Split).changes, [Change::AccuracyAtLeast(9_840)]);
    // What nobody measured is not held to be good enough.
    let unknown = with(|facts| facts.cloud.as_mut().unwrap().accuracy = None);
    let choice = first(&unknown, &wanted);
    assert_eq!(choice.mode, Mode::Joint);
    assert_eq!(choice.table.row(Mode::Cloud).excluded, [Reason::Unmeasured("accuracy")]);
}

#[test]
fn nothing_known_is_the_edge() {
    let choice = first(&Facts::default(), &Objectives::default());
    assert_eq!((choice.mode, choice.why), (Mode::Edge, Why::OnlyOne));
    let wanted = Objectives { latency_p99_micros: Some(1), ..Objectives::default() };
    let choice = first(&Facts::default(), &wanted);
    assert_eq!((choice.mode, choice.why), (Mode::Edge, Why::NoneFits));
    assert!(reasons(&choice, Mode::Edge).contains("latencyP99 is an objective and was not measured"));
}

/// A slow chip, so that the cloud is the better place while its link is up.
fn slow_chip(up: bool) -> Facts {
    with(|facts| {
        facts.edge.p99_micros = Some(900_000);
        facts.split = None;
        facts.link.as_mut().unwrap().reachable = if up { 9_990 } else { 9_000 };
    })
}

/// Modes at every minute, the link as `up` says.
fn day(up: impl Fn(u64) -> bool) -> Vec<Mode> {
    let mut state = PlacementState::default();
    let look = |minute| {
        let (choice, next) = choose(&slow_chip(up(minute)), &anything(), &state, UnixMillis(minute * MINUTE));
        state = next;
        choice.mode
    };
    (0..24 * 60).map(look).collect()
}

fn changes(modes: &[Mode]) -> usize {
    modes.windows(2).filter(|pair| pair[0] != pair[1]).count()
}

#[test]
fn a_link_that_comes_and_goes_does_not_make_the_mode_come_and_go() {
    for period in 2..10 {
        let modes = day(|minute| minute / period % 2 == 0);
        assert_eq!(changes(&modes), 1, "period {period}");
        assert_eq!(modes.last(), Some(&Mode::Edge));
    }
    // Slower than that, each change makes the next one harder.
    for period in 10..120 {
        let modes = day(|minute| minute / period % 2 == 0);
        assert!(changes(&modes) <= 9, "period {period}: {}", changes(&modes));
    }
    // It goes away at once, and comes back after ten minutes without a break.
    let once = day(|minute| !(100..200).contains(&minute));
    assert_eq!((once[99], once[100], changes(&once)), (Mode::Cloud, Mode::Edge, 2));
    assert_eq!(once.iter().skip(100).position(|mode| *mode == Mode::Cloud), Some(120), "100 away, 20 after one change");
}

#[test]
fn a_little_better_is_not_worth_a_change_and_a_users_word_acts_at_once() {
    let at = |micros| {
        with(|facts| {
            facts.edge.p99_micros = Some(micros);
            facts.split = None;
        })
    };
    let (choice, state) = choose(&at(140_000), &anything(), &PlacementState::default(), UnixMillis(0));
    assert_eq!(choice.mode, Mode::Edge);
    let look =
        |facts: &Facts, state: &PlacementState, minute| choose(facts, &anything(), state, UnixMillis(minute * MINUTE));
    // The cloud's 146 ms are a fifth less than 182.5.
    let (choice, unmoved) = look(&at(182_000), &state, 60);
    assert_eq!((choice.mode, choice.why, choice.next), (Mode::Edge, Why::Kept, None));
    let (choice, wavering) = look(&at(183_000), &unmoved, 60);
    assert_eq!((choice.mode, choice.next), (Mode::Edge, Some((Mode::Cloud, UnixMillis(70 * MINUTE)))));
    // A break starts the time anew.
    let (_, broken) = look(&at(140_000), &wavering, 65);
    assert_eq!(look(&at(183_000), &broken, 71).0.mode, Mode::Edge);
    let (choice, cloud) = look(&at(183_000), &wavering, 70);
    assert_eq!((choice.mode, choice.why), (Mode::Cloud, Why::Fastest));
    let private = Objectives::default();
    assert_eq!(choose(&at(183_000), &private, &cloud, UnixMillis(70 * MINUTE + 1)).0.mode, Mode::Edge);
    // A clock that goes back makes nothing due.
    assert_eq!(look(&at(183_000), &wavering, 0).0.mode, Mode::Edge);
}

fn facts() -> impl Strategy<Value = Facts> {
    let micros = || proptest::option::weighted(0.9, 1u64..2_000_000);
    let share = || proptest::option::weighted(0.9, 0u16..=10_000);
    let edge = (micros(), micros(), proptest::option::weighted(0.9, 1u64..10_000), 0u64..1 << 32, 0u64..2_000, share());
    let link = (1u64..500_000, 1u64..10_000_000, 1u64..10_000_000, 9_000u16..=10_000, any::<bool>(), 1u64..10_000);
    let cloud = (micros(), 0u64..2_000, share(), share(), 0u64..1_000_000, share());
    let split = (micros(), micros(), micros(), 0u64..1_000_000, 0u64..1 << 30, share());
    let load = (proptest::option::weighted(0.9, 0u64..1_000_000), 0u64..10_000_000, 0u64..100_000, any::<bool>());
    (
        edge,
        proptest::option::weighted(0.9, link),
        proptest::option::weighted(0.9, cloud),
        proptest::option::of(split),
        load,
    )
        .prop_map(|(edge, link, cloud, split, load)| Facts {
            edge: EdgeFacts {
                does_not_fit: None,
                p99_micros: edge.0,
                mean_micros: edge.1,
                milliwatts: edge.2,
                update_bytes: edge.3,
                updates_per_thousand_days: edge.4,
                accuracy: edge.5,
            },
            link: link.map(|link| LinkFacts {
                round_trip_micros: link.0,
                up: link.1,
                down: link.2,
                reachable: link.3,
                metered: link.4,
                nanojoules_per_byte: Some(link.5),
            }),
            cloud: cloud.map(|cloud| CloudFacts {
                p99_micros: cloud.0,
                overhead_bytes: cloud.1,
                accuracy: cloud.2,
                escalated: cloud.3,
                deadline_micros: cloud.4,
                joint_accuracy: cloud.5,
            }),
            split: split.map(|split| SplitFacts {
                head_p99_micros: split.0,
                head_mean_micros: split.1,
                tail_p99_micros: split.2,
                features_bytes: split.3,
                update_bytes: split.4,
                accuracy: split.5,
            }),
            requests_per_day: load.0,
            input_bytes: load.1,
            output_bytes: load.2,
            battery: load.3,
        })
}

fn objectives() -> impl Strategy<Value = Objectives> {
    let privacy = prop_oneof![Just(Privacy::LocalOnly), Just(Privacy::Features), Just(Privacy::Any)];
    let some = |most: u64| proptest::option::of(1..most);
    (some(1_000_000), privacy, some(1 << 32), some(1 << 32), proptest::option::of(5_000u16..10_000)).prop_map(
        |(latency, privacy, bytes, energy, accuracy)| Objectives {
            latency_p99_micros: latency,
            privacy,
            bytes_per_day: bytes,
            nanojoules: energy,
            accuracy,
        },
    )
}

/// The world in which `change` has happened to `mode`.
fn changed(mode: Mode, change: Change, facts: &mut Facts, objectives: &mut Objectives) {
    let (link, cloud, split) = (facts.link.as_mut(), facts.cloud.as_mut(), facts.split.as_mut());
    match change {
        Change::EdgeWithin(micros) => facts.edge.p99_micros = Some(micros),
        Change::HeadWithin(micros) => split.unwrap().head_p99_micros = Some(micros),
        Change::CloudWithin(micros) => cloud.unwrap().p99_micros = Some(micros),
        Change::RoundTripWithin(micros) => link.unwrap().round_trip_micros = micros,
        Change::UploadAtLeast(bytes) => link.unwrap().up = bytes,
        Change::ReachableAtLeast(share) => link.unwrap().reachable = share,
        Change::RequestsAtMost(requests) => facts.requests_per_day = Some(requests),
        Change::EscalatedAtMost(share) => cloud.unwrap().escalated = Some(share),
        Change::UpdateAtMost(bytes) => facts.edge.update_bytes = bytes,
        Change::MilliwattsAtMost(milliwatts) => facts.edge.milliwatts = Some(milliwatts),
        Change::NanojoulesPerByteAtMost(each) => link.unwrap().nanojoules_per_byte = Some(each),
        Change::AccuracyAtLeast(share) => match mode {
            Mode::Edge => facts.edge.accuracy = Some(share),
            Mode::Joint => cloud.unwrap().joint_accuracy = Some(share),
            Mode::Split => split.unwrap().accuracy = Some(share),
            Mode::Cloud => cloud.unwrap().accuracy = Some(share),
        },
        Change::Privacy(privacy) => objectives.privacy = privacy,
    }
}

/// Reasons of one kind, whatever their figures.
fn kinds(reasons: &[Reason]) -> Vec<std::mem::Discriminant<Reason>> {
    reasons.iter().map(std::mem::discriminant).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Each change does what it says: it removes a reason, and brings none.
    #[test]
    fn what_would_have_to_change_is_enough(facts in facts(), objectives in objectives()) {
        let before = table(&facts, &objectives);
        for row in &before.0 {
            for change in &row.changes {
                let (mut facts, mut objectives) = (facts.clone(), objectives);
                changed(row.mode, *change, &mut facts, &mut objectives);
                let (was, is) = (kinds(&row.excluded), kinds(&table(&facts, &objectives).row(row.mode).excluded));
                let removed = was.iter().filter(|kind| !is.contains(kind)).count();
                // A cloud that can be reached has a latency to be held to.
                let fresh = is.iter().filter(|kind| !was.contains(kind)).count();
                let may_bring = usize::from(matches!(change, Change::ReachableAtLeast(_)));
                prop_assert!(removed >= 1 && fresh <= may_bring, "{} {change:?}: {:?}", row.mode, row.excluded);
            }
        }
    }

    /// Whatever is chosen keeps every objective, or nothing does; and the same look again changes nothing.
    #[test]
    fn the_choice_keeps_every_objective(facts in facts(), objectives in objectives()) {
        let (choice, state) = choose(&facts, &objectives, &PlacementState::default(), UnixMillis(5));
        let fits = choice.table.row(choice.mode).fits();
        prop_assert_eq!(fits, choice.why != Why::NoneFits);
        prop_assert!(fits || choice.table.0.iter().all(|row| !row.fits()));
        let (again, same) = choose(&facts, &objectives, &state, UnixMillis(5));
        prop_assert_eq!((again, same), (choice, state));
    }
}
