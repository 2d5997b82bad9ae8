//! Files that cannot be read, or contradict each other, change nothing that runs.

use ballast_tests::{System, digits};

#[test]
fn unreadable_and_contradictory_files_are_named_and_change_nothing() {
    let mut system = System::with_digits(1).unwrap();
    let good = std::fs::read_to_string(system.directory().join("digits.yaml")).unwrap();

    let cases = [
        ("half written", good[..good.len() / 2].to_owned() + "\n  [", "line "),
        ("an unknown field", good.replace("  model:\n", "  modle: {}\n  model:\n"), "modle"),
        ("a wrong type", good.replace("finiteOutputs: true", "finiteOutputs: maybe"), "finiteOutputs"),
    ];
    for (what, broken, named) in cases {
        assert_ne!(broken, good, "{what}");
        let before = system.operator_log().unwrap().len();
        system.put("digits.yaml", &broken).unwrap();
        system
            .until(&format!("{what} to be named in the log"), |s| {
                Ok(s.operator_log()?[before..].contains("digits.yaml").then_some(()))
            })
            .unwrap();
        assert_eq!(system.fleet.cli.release("digits", "1.0.0").unwrap().phase, "Active", "{what}");
        system.serves("1.0.0").unwrap();
        // Where a person looks, and not in the log only.
        let shown = system.fleet.cli.run(&["rollout", "status", "digits"]).unwrap();
        let problem = shown.lines().find(|line| line.starts_with("NOT ACCEPTED: digits.yaml")).unwrap_or_default();
        assert!(problem.contains(named) && problem.contains("line "), "{what}: {shown}");
    }
    system.put("digits.yaml", &good).unwrap();
    system
        .until("the file to be whole again", |s| {
            Ok((!s.fleet.cli.run(&["rollout", "status", "digits"])?.contains("NOT ACCEPTED")).then_some(()))
        })
        .unwrap();

    // The same identity in another file.
    let before = system.operator_log().unwrap().len();
    system.put("again.yaml", &good.replace("1.0.0", "9.9.9")).unwrap();
    system
        .until("both files of one identity to be named", |s| {
            let said = s.operator_log()?[before..].to_owned();
            Ok(["again.yaml", "digits.yaml", "ModelDeployment"].iter().all(|word| said.contains(word)).then_some(()))
        })
        .unwrap();
    let shown = system.fleet.cli.run(&["rollout", "status", "digits"]).unwrap();
    assert!(shown.contains("NOT ACCEPTED: ") && shown.contains("again.yaml"), "{shown}");
    system.serves("1.0.0").unwrap();
    std::fs::remove_file(system.directory().join("again.yaml")).unwrap();

    // Good again: the next release is taken.
    let digest = system.add_digits("2.0.0").unwrap();
    system.apply(&digits("2.0.0", "digits-2.0.0.onnx", &digest)).unwrap();
    system.until_phase("digits", "2.0.0", "Active").unwrap();
}

#[test]
fn an_unmounted_directory_is_not_a_wish_to_delete_everything() {
    let mut system = System::with_digits(1).unwrap();
    let (directory, aside) = (system.directory(), system.path().join("aside"));
    let shown = directory.display().to_string();
    // The path itself vanishes, and then an empty mount point takes its place.
    system.until_said(&[&shown], |_| Ok(std::fs::rename(&directory, &aside)?)).unwrap();
    system.serves("1.0.0").unwrap();
    system.until_said(&[&shown, "has no fleet.yaml", "mounted"], |_| Ok(std::fs::create_dir(&directory)?)).unwrap();
    system.serves("1.0.0").unwrap();
    assert_eq!(system.fleet.cli.release("digits", "1.0.0").unwrap().phase, "Active");
    // A wish that would come into force at some later time is no wish.
    let refused = system.fleet.cli.run(&["rollout", "pause", "digits"]).unwrap_err().to_string();
    assert!(refused.contains("fleet.yaml"), "{refused}");

    std::fs::remove_dir(&directory).unwrap();
    std::fs::rename(&aside, &directory).unwrap();
    let digest = system.add_digits("2.0.0").unwrap();
    system.apply(&digits("2.0.0", "digits-2.0.0.onnx", &digest)).unwrap();
    system.until_phase("digits", "2.0.0", "Active").unwrap();
}
