//! What is said once of what happens: verdicts and turns of a rollout.

use ballast_compiler::{UnsupportedOperator, Verdict, VerdictReason};
use ballast_controller::events::{Event, EventType};
use ballast_controller::records::Phase;

use crate::harness::World;

fn events(world: &World) -> Vec<Event> {
    world.source.events.lock().unwrap()["digits"].clone()
}

fn words(events: &[Event]) -> Vec<(EventType, &str, &str)> {
    events.iter().map(|e| (e.kind, e.action.as_str(), e.reason.as_str())).collect()
}

#[tokio::test]
async fn a_verdict_and_a_rollout_are_events_and_nothing_is_said_twice() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    world.rolled_out("digits", "1.0.0", &["gw-a"]).await;
    let first = events(&world);
    let said = words(&first);
    assert!(said.contains(&(EventType::Normal, "Check", "Fits")), "{said:?}");
    assert!(said.contains(&(EventType::Normal, "RollOut", "Complete")), "{said:?}");
    for _ in 0..20 {
        world.now += 5_000;
        world.pass().await;
    }
    assert_eq!(events(&world), first);
    assert!(first.iter().all(|e| e.regarding.name == "digits" && e.regarding.kind == "ModelDeployment"));
}

#[tokio::test]
async fn what_is_refused_is_a_warning_with_the_whole_verdict_in_status() {
    let mut world = World::new().await;
    world.gateway("gw-a", &[("line", "a")]).await;
    let unsupported =
        (0..100).map(|n| UnsupportedOperator { operator: "FancyOne".into(), node: format!("node-{n}"), nearest: None });
    *world.compiler.refuses.lock().unwrap() = Some(Verdict {
        unsupported: unsupported.collect(),
        inputs_yaml: Some("- {name: x, shape: [1, 4]}\n".into()),
        ..Verdict::new(VerdictReason::UnsupportedOperators, format!("FancyOne. {}", "é".repeat(10_000)))
    });
    world.wish("digits", "1.0.0", |_| {});
    world.until("digits", Phase::Refused, &["gw-a"], ballast_bundle::protocol::ReleaseState::Active).await;
    world.pass().await;
    let status = world.source.statuses.lock().unwrap()["digits"].clone();
    let [target] = status.targets.as_slice() else { panic!("{:?}", status.targets) };
    assert_eq!((target.verdict.as_str(), target.unsupported_operators.len()), ("UnsupportedOperators", 64));
    assert_eq!(target.unsupported_operators[0], "FancyOne (node-0)");
    assert_eq!(target.inputs.as_deref(), Some("- {name: x, shape: [1, 4]}\n"));
    assert!(target.message.starts_with("FancyOne. é") && target.message.len() <= 8 << 10, "{}", target.message.len());
    let all = events(&world);
    let warning = all.iter().find(|e| e.action == "Check").expect("a verdict");
    assert_eq!((warning.kind, warning.reason.as_str()), (EventType::Warning, "UnsupportedOperators"));
    assert!(warning.note.starts_with("1.0.0 on ") && warning.note.len() <= 1024, "{}", warning.note);
}
