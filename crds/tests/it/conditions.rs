//! The truth table and the page that is made from it, `docs/conditions.md`.

use std::fmt::Write as _;
use std::path::Path;

use ballast_crds::conditions::{Cell, ConditionStatus, ConditionType, Obstacle, Reason, Refusal, Situation, row};

fn cell((status, reason): Cell) -> String {
    match reason {
        Reason::NotStalled | Reason::NotDegraded => status.to_string(),
        _ => format!("{status} {reason}"),
    }
}

fn name(situation: Situation) -> String {
    match situation {
        Situation::Refused(_) => "Refused".to_owned(),
        Situation::Retrying(_) => "Retrying".to_owned(),
        other => format!("{other:?}"),
    }
}

fn page() -> String {
    let mut out = String::from(
        "# Conditions of a ModelDeployment\n\n\
         <!-- Made from `crds/src/conditions.rs`: BALLAST_UPDATE=1 cargo test -p ballast-crds --test it -->\n\n\
         Programs read conditions, people the phase. `Ready=True` means that the release of the observed generation passed its\n\
         last step; what happens to gateways later shows in `Degraded` and in the counts. `Reconciling=True`: something is under\n\
         way. `Stalled=True`: nothing will happen until somebody changes something. A cell is a status and a reason; where no\n\
         reason stands it is `NotStalled` or `NotDegraded`.\n\n\
         ## What shows when\n\n",
    );
    let heads: Vec<_> = ConditionType::ALL.iter().map(ToString::to_string).collect();
    writeln!(out, "| situation | phase | {} |", heads.join(" | ")).unwrap();
    writeln!(out, "|---|---|{}", "---|".repeat(heads.len())).unwrap();
    for situation in Situation::all() {
        let row = row(situation, false);
        let cells: Vec<_> = row.cells.into_iter().map(cell).collect();
        writeln!(out, "| {} | {:?} | {} |", name(situation), row.phase, cells.join(" | ")).unwrap();
    }
    out.push_str(
        "\nWhere `BundlesSigned` is `True Signed` and the release does not fit some of the targets, the reason is\n\
         `SignedForSome`; nothing else changes, since gateways of those targets are ineligible.\n\n\
         ## Reasons\n\n| reason | says |\n|---|---|\n",
    );
    for reason in Reason::ALL {
        writeln!(out, "| {reason} | {} |", reason.meaning()).unwrap();
    }
    out
}

#[test]
fn the_page_is_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/conditions.md");
    if std::env::var_os("BALLAST_UPDATE").is_some() {
        std::fs::write(&path, page()).unwrap();
    }
    let stored = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(stored == page(), "docs/conditions.md is stale: BALLAST_UPDATE=1 cargo test -p ballast-crds --test it");
}

/// Every row of the table, with and without targets that the release does not fit.
#[test]
fn every_row() {
    let mut table = String::new();
    for situation in Situation::all() {
        for some_unsupported in [false, true] {
            let row = row(situation, some_unsupported);
            let cells = ConditionType::ALL.iter().zip(row.cells).map(|(kind, (s, r))| format!("{kind}={s}/{r}"));
            let some = if some_unsupported { " (unsupported on some)" } else { "" };
            let cells = cells.collect::<Vec<_>>().join(" ");
            writeln!(table, "{situation:?}{some}: {:?} {cells}", row.phase).unwrap();
        }
    }
    insta::assert_snapshot!(table);
}

/// One arm per variant: a new one does not compile here until it is in `Situation::all` too.
#[test]
fn no_situation_is_left_out() {
    let all = Situation::all();
    let mut plain = 0;
    for situation in &all {
        match situation {
            Situation::Retrying(_) | Situation::Refused(_) => {}
            Situation::FirstSight
            | Situation::Compiling
            | Situation::NoGatewaySelected
            | Situation::NoGatewayLeft
            | Situation::NoTargetSelected
            | Situation::NoEligibleGateway
            | Situation::RollingOut
            | Situation::WaitingForGateways
            | Situation::Soaking
            | Situation::Paused
            | Situation::Halted
            | Situation::RolledBack
            | Situation::Complete
            | Situation::CompleteSomeSilent
            | Situation::CompleteSomeFailed => plain += 1,
        }
    }
    assert_eq!(plain, 15);
    assert_eq!(all.len(), 15 + Obstacle::ALL.len() + Refusal::ALL.len());
    let distinct: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(distinct.len(), all.len());
}

#[test]
fn the_table_holds_what_the_design_promises() {
    use ConditionStatus::True;
    for situation in Situation::all() {
        for some in [false, true] {
            let [ready, signed, reconciling, stalled, degraded] = row(situation, some).cells;
            let complete = matches!(
                situation,
                Situation::Complete | Situation::CompleteSomeSilent | Situation::CompleteSomeFailed
            );
            assert_eq!(ready.0 == True, complete, "{situation:?}: Ready iff the last step was passed");
            assert!(!(reconciling.0 == True && stalled.0 == True), "{situation:?}: under way and stalled");
            assert!(ready.0 != True || signed.0 == True, "{situation:?}: ready and not signed");
            assert!(degraded.0 != True || signed.0 == True, "{situation:?}: degraded and nothing signed");
        }
    }
}

#[test]
fn a_reason_before_signing_is_a_refusal_an_obstacle_or_work() {
    assert_eq!(Situation::unsigned(Reason::NotOnnx), Situation::Refused(Refusal::NotOnnx));
    assert_eq!(Situation::unsigned(Reason::SourceUnavailable), Situation::Retrying(Obstacle::SourceUnavailable));
    assert_eq!(Situation::unsigned(Reason::Complete), Situation::Compiling, "never a refusal");
}
