//! The directory as a source: what is removed, and when.

use std::path::Path;

use ballast_bundle::UnixMillis;
use ballast_controller::source::directory::{Change, DirectorySource};
use ballast_controller::source::store::Identity;

const TOKEN: &str =
    "apiVersion: ballast.dev/v1alpha1\nkind: EnrollmentToken\nmetadata: {name: line-3}\nspec: {uses: 1}\n";

fn fleet(directory: &Path) {
    let marker = "apiVersion: ballast.dev/v1alpha1\nkind: Fleet\nmetadata: {name: plant}\n";
    std::fs::write(directory.join("fleet.yaml"), marker).unwrap();
}

#[test]
fn a_file_that_is_away_for_a_moment_removes_nothing() {
    let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fleet(directory.path());
    let file = directory.path().join("token.yaml");
    std::fs::write(&file, TOKEN).unwrap();
    let mut source = DirectorySource::open(directory.path(), state.path()).unwrap();
    let mut now = ballast_fleet::now().0 + 10_000;
    let mut look = |source: &mut DirectorySource, millis: u64| {
        now += millis;
        source.poll(UnixMillis(now)).unwrap()
    };
    assert!(matches!(look(&mut source, 0).as_slice(), [Change::Put(_)]), "{:?}", source.problems());
    std::fs::remove_file(&file).unwrap();
    for millis in [400, 400, 3_600_000] {
        assert_eq!(look(&mut source, millis), [], "three looks, whatever the clock says");
    }
    std::fs::write(&file, TOKEN).unwrap();
    assert_eq!(look(&mut source, 1_000), []);
    assert_eq!(source.objects().count(), 1);
    std::fs::remove_file(&file).unwrap();
    let removed = (0..20).flat_map(|_| look(&mut source, 400)).collect::<Vec<_>>();
    assert!(matches!(removed.as_slice(), [Change::Removed(_)]), "{removed:?}");
}

fn deployment() -> Identity {
    Identity { kind: "ModelDeployment".into(), namespace: "default".into(), name: "digits".into() }
}

const DEPLOYMENT: &str = r#"apiVersion: ballast.dev/v1alpha1
kind: ModelDeployment
metadata: {name: digits}
spec:
  model:
    version: 1.0.0
    source:
      uri: file:///digits.onnx
      digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
  gatewaySelector: {matchLabels: {line: a}}
"#;

/// A directory with one deployment, read once.
struct Watched {
    directory: tempfile::TempDir,
    _state: tempfile::TempDir,
    source: DirectorySource,
    now: u64,
}

impl Watched {
    fn new() -> Self {
        let (directory, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fleet(directory.path());
        let source = DirectorySource::open(directory.path(), state.path()).unwrap();
        let now = ballast_fleet::now().0 + 10_000;
        let mut watched = Self { directory, _state: state, source, now };
        watched.write(DEPLOYMENT);
        assert_eq!(watched.problems(), []);
        assert_eq!(watched.version(), "1.0.0");
        watched
    }

    fn write(&mut self, yaml: &str) {
        std::fs::write(self.directory.path().join("digits.yaml"), yaml).unwrap();
        self.look();
    }

    fn look(&mut self) {
        self.now += 1_000;
        self.source.poll(UnixMillis(self.now)).unwrap();
    }

    fn version(&self) -> String {
        let stored = self.source.get(&deployment()).unwrap();
        stored.object["spec"]["model"]["version"].as_str().unwrap().to_owned()
    }

    /// What keeps a newer wish for the deployment from being seen.
    fn problems(&self) -> Vec<(String, Option<u64>, String)> {
        let stored = self.source.get(&deployment()).unwrap();
        let all = self.source.problems_of(stored);
        all.map(|p| (p.file.display().to_string(), p.line, p.message.clone())).collect()
    }

    fn pause(&mut self) -> Result<(), String> {
        self.source.overlay(&deployment(), |fields, own| fields.with_paused(own, Some(true)))
    }
}

#[test]
fn what_keeps_a_wish_from_being_seen_is_told_of_its_object_with_file_and_line_until_it_is_mended() {
    let mut watched = Watched::new();
    std::fs::write(watched.directory.path().join("token.yaml"), "kind: [").unwrap();
    let second = DEPLOYMENT.replace("version: 1.0.0", "version: 2.0.0");
    for (broken, line, words) in [
        (second.replace("  gatewaySelector", "  gatewaySelektor"), Some(10), "spec.gatewaySelektor"),
        // The list that is never closed goes on until something cannot be in one.
        (second.replace("  model:\n", "  model:\n    version: [\n"), Some(8), "is not YAML"),
        (second.replace("version: 2.0.0", "version: 2"), Some(6), "spec.model.version"),
        (second.replace("metadata: {name: digits}\n", ""), None, "metadata"),
    ] {
        watched.write(&broken);
        let problems = watched.problems();
        let [(file, at, message)] = problems.as_slice() else { panic!("{words}: {problems:?}") };
        assert_eq!(file, "digits.yaml");
        assert!(message.contains(words), "{message}");
        assert_eq!(*at, line, "{message}");
        assert_eq!(watched.version(), "1.0.0");
        watched.write(&second.replace("2.0.0", "1.0.0"));
        assert_eq!(watched.problems(), []);
    }
    // Two files of one identity: both are named.
    std::fs::write(watched.directory.path().join("again.yaml"), &second).unwrap();
    watched.look();
    let files: Vec<_> = watched.problems().into_iter().map(|(file, line, _)| (file, line)).collect();
    assert_eq!(files, [("again.yaml".to_owned(), Some(3)), ("digits.yaml".to_owned(), Some(3))]);
    // An administrator's wish would wait for that, unseen.
    let refused = watched.pause().unwrap_err();
    assert!(refused.contains("nothing was changed") && refused.contains("again.yaml"), "{refused}");
}

#[test]
fn a_wish_is_refused_while_the_directory_is_not_there() {
    let mut watched = Watched::new();
    let marker = watched.directory.path().join("fleet.yaml");
    std::fs::remove_file(&marker).unwrap();
    // Before the operator has looked again, and after.
    for _ in 0..2 {
        let refused = watched.pause().unwrap_err();
        let directory = watched.directory.path().display().to_string();
        for words in ["nothing was changed", &directory, "has no fleet.yaml", "is it mounted"] {
            assert!(refused.contains(words), "{words:?} is not in {refused}");
        }
        assert!(!watched.directory.path().join(".ballast").exists(), "it acts later");
        watched.look();
    }
    let problems = watched.problems();
    assert!(problems.iter().any(|(_, _, message)| message.contains("is it mounted")), "{problems:?}");
    fleet(watched.directory.path());
    watched.look();
    watched.pause().unwrap();
    watched.look();
    assert_eq!(watched.problems(), []);
    assert_eq!(watched.source.get(&deployment()).unwrap().object["spec"]["rollout"]["paused"], true);
}

#[test]
fn events_are_kept_beside_the_object_and_go_with_it() {
    use ballast_controller::events::{Event, EventType, Regarding};
    let event = |note: &str| Event {
        kind: EventType::Warning,
        reason: "UnsupportedOperators".into(),
        action: "Check".into(),
        note: note.into(),
        regarding: Regarding::default(),
        reporting_controller: "ballast.dev/operator".into(),
        event_time: "2026-01-01T00:00:00Z".into(),
        series: None,
    };
    let mut watched = Watched::new();
    let before = watched.source.get(&deployment()).unwrap().clone();
    for note in ["a", "b", "a"] {
        watched.source.put_event(&deployment(), event(note)).unwrap();
    }
    assert_eq!(watched.source.get(&deployment()), Some(&before), "an event is no new version of the object");
    let reopened = DirectorySource::open(watched.directory.path(), watched._state.path()).unwrap();
    let kept = reopened.events(&deployment()).unwrap();
    let notes: Vec<_> = kept.iter().map(|e| (e.note.as_str(), e.series.as_ref().map(|s| s.count))).collect();
    assert_eq!(notes, [("b", None), ("a", Some(2))]);
    let nobody = Identity { name: "nobody".into(), ..deployment() };
    watched.source.put_event(&nobody, event("a")).unwrap();
    assert_eq!(watched.source.events(&nobody).unwrap(), []);
    std::fs::remove_file(watched.directory.path().join("digits.yaml")).unwrap();
    for _ in 0..20 {
        watched.now += 400;
        watched.source.poll(UnixMillis(watched.now)).unwrap();
    }
    let left = std::fs::read_dir(watched._state.path().join("objects/events")).unwrap().count();
    assert_eq!((watched.source.objects().count(), left), (0, 0));
}
