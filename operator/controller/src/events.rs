//! Events: what became of a deployment, one sentence each, in the shape of `events.k8s.io/v1`. Made from two statuses, the one
//! that stood and the one that takes its place. Pure.

use ballast_bundle::UnixMillis;
use ballast_crds::conditions::rfc3339;
use ballast_crds::{API_VERSION, ModelDeploymentStatus, TargetStatus};
use serde::{Deserialize, Serialize};

use crate::objects::Deployment;

/// Events that are kept of one object; the newest.
pub const MAX_EVENTS: usize = 64;
/// As the API server bounds it.
const MAX_NOTE_BYTES: usize = 1024;
/// Who reports.
const CONTROLLER: &str = "ballast.dev/operator";

/// Whether a person should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EventType {
    /// As wished.
    Normal,
    /// Not as wished.
    Warning,
}

/// What an event speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Regarding {
    /// `ballast.dev/v1alpha1`.
    pub api_version: String,
    /// `ModelDeployment`.
    pub kind: String,
    /// Its namespace's name.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// How often the same was said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Series {
    /// At least 2.
    pub count: u64,
    /// The last time, RFC 3339.
    pub last_observed_time: String,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub kind: EventType,
    /// One word: a verdict's reason, or a condition's.
    pub reason: String,
    /// What was being done: `Check` a target, or `Roll` the release `out`.
    pub action: String,
    /// For people; at most 1 KiB.
    pub note: String,
    /// What it speaks of.
    pub regarding: Regarding,
    /// `ballast.dev/operator`.
    pub reporting_controller: String,
    /// The first time, RFC 3339.
    pub event_time: String,
    /// Where it was said more than once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
}

impl Event {
    /// When it was said last.
    pub fn last(&self) -> &str {
        self.series.as_ref().map_or(&self.event_time, |s| &s.last_observed_time)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.kind == other.kind
            && self.reason == other.reason
            && self.action == other.action
            && self.note == other.note
            && self.regarding == other.regarding
    }
}

/// Takes an event in: the same again counts up and becomes the newest; the oldest goes when there are too many. Oldest first.
pub fn record(events: &mut Vec<Event>, event: Event) {
    let found = events.iter().position(|known| known.is_same(&event));
    let mut event = event;
    if let Some(at) = found {
        let known = events.remove(at);
        let count = known.series.as_ref().map_or(1, |s| s.count).saturating_add(1);
        let series = Some(Series { count, last_observed_time: event.event_time.clone() });
        event = Event { series, ..known };
    }
    events.push(event);
    let over = events.len().saturating_sub(MAX_EVENTS);
    events.drain(..over);
}

/// What there is to say of `after` that `before` did not say: a verdict per target, and why the deployment is or is not ready.
pub fn between(
    object: &Deployment,
    before: Option<&ModelDeploymentStatus>,
    after: &ModelDeploymentStatus,
    now: UnixMillis,
) -> Vec<Event> {
    let event = |kind, reason: &str, action: &str, note: &str| Event {
        kind,
        reason: reason.to_owned(),
        action: action.to_owned(),
        note: bounded(note, MAX_NOTE_BYTES),
        regarding: regarding(object),
        reporting_controller: CONTROLLER.to_owned(),
        event_time: rfc3339(now),
        series: None,
    };
    let mut events = Vec::new();
    let version = after.update_release.as_ref().map_or("", |r| r.version.as_str());
    let same_release = before.is_some_and(|b| {
        b.update_release.as_ref().map(|r| &r.digest) == after.update_release.as_ref().map(|r| &r.digest)
    });
    let said = |name: &str| {
        let targets = before.map(|b| b.targets.as_slice()).unwrap_or_default();
        targets.iter().find(|t| same_release && t.name == name)
    };
    for target in &after.targets {
        if said(&target.name).is_some_and(|old| old.verdict == target.verdict && old.message == target.message) {
            continue;
        }
        let kind = if target.verdict == "Fits" { EventType::Normal } else { EventType::Warning };
        events.push(event(
            kind,
            &target.verdict,
            "Check",
            &format!("{version} on {}: {}", target.name, sentence(target)),
        ));
    }
    let ready = |status: &ModelDeploymentStatus| {
        status
            .conditions
            .iter()
            .find(|c| c.type_ == "Ready")
            .map(|c| (c.status.clone(), c.reason.clone(), c.message.clone()))
    };
    if let Some((status, reason, message)) = ready(after)
        && before
            .and_then(ready)
            .is_none_or(|(old, why, _)| (old.as_str(), why.as_str()) != (&status, &reason) || !same_release)
    {
        let stalled = after.conditions.iter().any(|c| c.type_ == "Stalled" && c.status == "True");
        let kind = if stalled { EventType::Warning } else { EventType::Normal };
        let note = if message.is_empty() { version.to_owned() } else { format!("{version}: {message}") };
        events.push(event(kind, &reason, "RollOut", &note));
    }
    events
}

/// Numbers of a target that fits; what is in the way of one that does not.
fn sentence(target: &TargetStatus) -> &str {
    if target.message.is_empty() { &target.verdict } else { &target.message }
}

fn regarding(object: &Deployment) -> Regarding {
    Regarding {
        api_version: API_VERSION.to_owned(),
        kind: "ModelDeployment".to_owned(),
        namespace: object.namespace_name(),
        name: object.deployment().name,
        uid: object.object.metadata.uid.clone().unwrap_or_default(),
    }
}

/// The beginning of a text, at a character's border.
pub fn bounded(text: &str, most: usize) -> String {
    if text.len() <= most {
        return text.to_owned();
    }
    let end = (0..=most.saturating_sub(3)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(note: &str, at: u64) -> Event {
        Event {
            kind: EventType::Warning,
            reason: "UnsupportedOperators".into(),
            action: "Check".into(),
            note: note.into(),
            regarding: Regarding::default(),
            reporting_controller: CONTROLLER.into(),
            event_time: rfc3339(UnixMillis(at)),
            series: None,
        }
    }

    #[test]
    fn the_same_again_is_one_event_that_counts_and_the_newest() {
        let mut events = Vec::new();
        for (note, at) in [("a", 1_000), ("b", 2_000), ("a", 3_000), ("a", 4_000)] {
            record(&mut events, event(note, at));
        }
        let shown: Vec<_> =
            events.iter().map(|e| (e.note.as_str(), e.series.as_ref().map_or(1, |s| s.count), e.last())).collect();
        assert_eq!(shown, [("b", 1, "1970-01-01T00:00:02Z"), ("a", 3, "1970-01-01T00:00:04Z")]);
        assert_eq!(events[1].event_time, "1970-01-01T00:00:01Z");
    }

    #[test]
    fn only_the_newest_are_kept() {
        let mut events = Vec::new();
        for n in 0..3 * MAX_EVENTS as u64 {
            record(&mut events, event(&n.to_string(), n));
        }
        assert_eq!((events.len(), events[0].note.as_str()), (MAX_EVENTS, "128"));
    }

    #[test]
    fn a_long_note_ends_at_a_character() {
        let long = "é".repeat(600);
        let short = bounded(&long, MAX_NOTE_BYTES);
        assert!(short.len() <= MAX_NOTE_BYTES && short.ends_with("é…"));
        assert_eq!(bounded("short", 1024), "short");
    }
}
