//! The directory as a source: what is removed, and when.

use std::path::Path;

use ballast_bundle::UnixMillis;
use ballast_controller::source::directory::{Change, DirectorySource};

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
