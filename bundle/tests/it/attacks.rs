//! A directory per attack, `tests/attacks/<name>`: the files that differ from `good`, and `attack.json`, which says what the
//! attacker does and with which sentence the gateway refuses. Every one must fail for that very reason; `good`, the twin of
//! them all, must pass. `BALLAST_BLESS=1 cargo test -p ballast-bundle` writes the directories anew.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ballast_bundle::*;
use serde::{Deserialize, Serialize};

use crate::walk::admit;
use crate::world::*;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Attack {
    /// What the attacker does.
    says: String,
    /// With which sentence the gateway refuses.
    error: String,
    /// A file that is sent without end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endless: Option<String>,
}

struct Case {
    name: &'static str,
    attack: Attack,
    files: Files,
}

fn case(name: &'static str, says: &str, error: &str, files: Files) -> Case {
    Case { name, attack: Attack { says: says.into(), error: error.into(), endless: None }, files }
}

/// The operator signs a world that was edited before: what a thief of the right keys, or the operator's own past, can do.
fn signed(edit: impl FnOnce(&mut World)) -> Files {
    let mut world = World::good();
    edit(&mut world);
    world.files()
}

/// The good world's files with some exchanged afterwards: what anybody on the wire can do.
fn exchanged(edit: impl FnOnce(&mut Files)) -> Files {
    let mut files = World::good().files();
    edit(&mut files);
    files
}

/// The good world with another release statement that the release key did sign.
fn statement(edit: impl FnOnce(&mut serde_json::Value)) -> Files {
    let good = World::good().files();
    let mut world = World::good();
    let (_, payload) = claims(&good["release.json"]).unwrap();
    let mut json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
    let release: ReleaseStatement = serde_json::from_value(json["predicate"].clone()).unwrap();
    let runner: RunnerStatement = serde_json::from_value(
        serde_json::from_slice::<serde_json::Value>(&claims(&good["runner.json"]).unwrap().1).unwrap()["predicate"]
            .clone(),
    )
    .unwrap();
    (world.release, world.runner) = (release, runner);
    edit(&mut json);
    let envelope = sign_envelope(IN_TOTO_TYPE, json.to_string().as_bytes(), &[&key(RELEASE)]);
    let bundle = serde_json::json!({
        "mediaType": SIGSTORE_BUNDLE_TYPE,
        "verificationMaterial": {"publicKey": {"hint": ""}, "tlogEntries": []},
        "dsseEnvelope": envelope,
    });
    let mut files = world.with_statements(bundle.to_string().into_bytes(), good["runner.json"].clone(), Vec::new());
    for (name, bytes) in good {
        files.entry(name).or_insert(bytes);
    }
    files
}

fn envelope(files: &Files, name: &str) -> Envelope {
    serde_json::from_slice(&files[name]).unwrap()
}

fn attacks() -> Vec<Case> {
    let mut cases = roots();
    cases.extend(pointers());
    cases.extend(releases());
    cases.extend(blobs());
    cases
}

fn roots() -> Vec<Case> {
    vec![
        case(
            "root-version-skipped",
            "Version 3 is offered to a gateway that is at version 1, both signed by the right keys.",
            "root: trust root version 3 does not follow 1: versions are walked one by one",
            signed(|w| {
                w.roots[1].0.version = 3;
                w.gateway.roots[1] = "root-3.json".into();
            }),
        ),
        case(
            "root-not-signed-by-the-one-before",
            "Version 2 names a new root key and is signed by that one only.",
            "root: 0 of 1 needed signatures by the role's keys",
            signed(|w| w.roots[1].1 = vec![ROOT_2]),
        ),
        case(
            "root-not-signed-by-itself",
            "Version 2 names a root key whose owner never signed it.",
            "root: 0 of 1 needed signatures by the role's keys",
            signed(|w| w.roots[1].1 = vec![ROOT_1]),
        ),
        case(
            "root-of-another-fleet",
            "The successor of this fleet's root is for another fleet.",
            "root: made for fleet fleet-2, this is fleet-1",
            signed(|w| w.roots[1].0.fleet = "fleet-2".parse().unwrap()),
        ),
        case(
            "root-of-a-lower-epoch",
            "Version 2 takes the epoch back, which would bring old counters back to life.",
            "root: epoch 0 is not the trust root's epoch 1",
            signed(|w| w.roots[1].0.epoch = 0),
        ),
        case(
            "root-with-one-key-in-two-roles",
            "The release key, which signs data, is named for native code as well.",
            "root: malformed document: the trust root gives one key two roles: who signs data must not sign code",
            signed(|w| {
                w.roots[1].0.roles.insert(Role::Runtime, keys_of(&[RELEASE], 1));
            }),
        ),
        case(
            "root-of-a-later-format",
            "A root that only a newer gateway could read.",
            "root: format 2 is newer than this version reads (1): upgrade first",
            signed(|w| w.roots[1].0.format = 2),
        ),
    ]
}

fn pointers() -> Vec<Case> {
    let doubled = exchanged(|f| {
        let mut pointer = envelope(f, "pointer.json");
        let first = pointer.signatures[0].clone();
        pointer.signatures = vec![first.clone(), EnvelopeSignature { keyid: String::new(), ..first.clone() }, first];
        f.insert("pointer.json".into(), to_json(&pointer));
    });
    let stranger = {
        let mut files = signed(|w| w.pointer_keys = vec![STRANGER, STRANGER - 1]);
        let mut pointer = envelope(&files, "pointer.json");
        for (signature, known) in pointer.signatures.iter_mut().zip(ASSIGNMENT) {
            signature.keyid = key(known).public().key_id();
        }
        files.insert("pointer.json".into(), to_json(&pointer));
        files
    };
    vec![
        case(
            "replayed-pointer",
            "A pointer that was in force is sent again after the gateway accepted a newer one.",
            "pointer: sequence 1767225600020 is below 1767225600021, which was accepted before: a replay",
            signed(|w| w.gateway.floors.sequence = Counter(ISSUED + 21)),
        ),
        case(
            "older-sequence",
            "A pointer is signed with a sequence below the floor.",
            "pointer: sequence 1767225600009 is below 1767225600010, which was accepted before: a replay",
            signed(|w| w.sequence = ISSUED + 9),
        ),
        case(
            "other-epoch",
            "A pointer of the epoch that the root has not begun yet.",
            "pointer: epoch 2 is not the trust root's epoch 1",
            signed(|w| w.pointer_epoch = 2),
        ),
        case(
            "expired",
            "The server withholds newer pointers: what the gateway gets expired more than a day ago.",
            "pointer: expired at 1767830400000 ms, it is 1767916800000 ms since 1970: nothing new is installed from it",
            signed(|w| w.gateway.now = UnixMillis(ISSUED + 8 * DAY)),
        ),
        case(
            "other-audience",
            "Another gateway's pointer.",
            "pointer: the pointer is for another gateway",
            signed(|w| w.audience.gateway = "gw-0002".parse().unwrap()),
        ),
        case(
            "other-namespace",
            "A pointer to the assignment of another namespace.",
            "assignment: what was signed speaks of another namespace: documents of different releases are mixed",
            signed(|w| w.assignment_namespace = "3f0c1f9e-0002".parse().unwrap()),
        ),
        case(
            "unknown-key",
            "Strangers sign the pointer and put the known keys' ids beside their signatures.",
            "pointer: 0 of 2 needed signatures by the role's keys",
            stranger,
        ),
        case(
            "below-threshold",
            "One of the two signatures that the assignment role needs.",
            "pointer: 1 of 2 needed signatures by the role's keys",
            signed(|w| w.pointer_keys = vec![ASSIGNMENT[2]]),
        ),
        case(
            "one-key-signs-twice",
            "The same key's signature three times, once without its key id.",
            "pointer: 1 of 2 needed signatures by the role's keys",
            doubled,
        ),
        case(
            "pointer-altered",
            "One byte of the signed pointer is changed.",
            "pointer: 0 of 2 needed signatures by the role's keys",
            exchanged(|f| {
                let mut pointer = envelope(f, "pointer.json");
                // The first letters of the payload say `{"format":1`; another letter stays valid Base64.
                pointer.payload.replace_range(4..5, "a");
                f.insert("pointer.json".into(), to_json(&pointer));
            }),
        ),
        case(
            "root-instead-of-a-pointer",
            "A document of another type, rightly signed.",
            "pointer: expected a document of type application/vnd.ballast.pointer.v1+json, found \"application/vnd.ballast.root.v1+json\"",
            exchanged(|f| {
                let root = f["root-2.json"].clone();
                f.insert("pointer.json".into(), root);
            }),
        ),
        case(
            "assignment-exchanged",
            "The pointer is right, the assignment beside it is another one of the same length.",
            "assignment: wrong digest: expected sha256:ASSIGNMENT, found sha256:FOUND",
            exchanged(|f| {
                let text = String::from_utf8(f["assignment.json"].clone()).unwrap().replace("1.0.0", "6.6.6");
                f.insert("assignment.json".into(), text.into_bytes());
            }),
        ),
    ]
}

fn releases() -> Vec<Case> {
    let other = || {
        signed(|w| {
            w.release.number.counter = Counter(102);
            w.weights = vec![1; 1000];
        })
    };
    vec![
        case(
            "older-counter",
            "A release whose number is below the one that was active here, with assignment and pointer signed for it.",
            "release: release 1.99 is below the floor 1.100",
            signed(|w| w.release.number.counter = Counter(99)),
        ),
        case(
            "release-of-another-epoch",
            "A release of an epoch that is not the trust root's.",
            "release: epoch 2 is not the trust root's epoch 1",
            signed(|w| w.release.number.epoch = 2),
        ),
        case(
            "other-target",
            "The bundle for another target: its code paths and limits were proved elsewhere.",
            "release: the statement is for target cortex-a76, this gateway's is x86-64-v3",
            signed(|w| w.release.target = "cortex-a76".parse().unwrap()),
        ),
        case(
            "older-compiler",
            "A bundle by a compiler that the trust root has ruled out.",
            "release: made by compiler 2, the trust root demands 3",
            signed(|w| w.release.compiler = 2),
        ),
        case(
            "statement-of-another-release",
            "The assignment names one release; the statement beside it is another one's.",
            "release: what was signed speaks of another number: documents of different releases are mixed",
            exchanged(|f| {
                f.insert("release.json".into(), other()["release.json"].clone());
            }),
        ),
        case(
            "subject-of-another-bundle",
            "The signed statement's subject is another manifest than its predicate says.",
            "release: what was signed speaks of another manifest: documents of different releases are mixed",
            statement(|json| json["subject"][0]["digest"]["sha256"] = Digest::of(b"other").hex().into()),
        ),
        case(
            "release-signed-by-the-assignment-key",
            "Whoever may point gateways to releases makes one.",
            "release: 0 of 1 needed signatures by the role's keys",
            signed(|w| w.release_key = ASSIGNMENT[0]),
        ),
        case(
            "runner-signed-by-the-release-key",
            "Whoever may sign data signs native code.",
            "runner: 0 of 1 needed signatures by the role's keys",
            signed(|w| w.runner_key = RELEASE),
        ),
        case(
            "older-runner",
            "A runner with a known hole, below the floor.",
            "runner: release 1.9 is below the floor 1.10",
            signed(|w| w.runner.number.counter = Counter(9)),
        ),
        case(
            "runner-for-another-target",
            "Native code for another target.",
            "runner: the statement is for target cortex-a76, this gateway's is x86-64-v3",
            signed(|w| w.runner.target = "cortex-a76".parse().unwrap()),
        ),
        case(
            "runner-instead-of-a-release",
            "A runner's statement where a release's is expected, signed by the release key.",
            "release: expected a document of type https://ballast.dev/release/v1, found \"https://ballast.dev/runner/v1\"",
            statement(|json| json["predicateType"] = RUNNER_PREDICATE.into()),
        ),
        case(
            "code-inside-a-release-statement",
            "The release key signs a release that names a fifth layer, code.",
            "release: malformed document: the statement's predicate has missing, unknown or wrong fields",
            statement(|json| {
                let weights = json["predicate"]["layers"]["weights"].clone();
                json["predicate"]["layers"]["code"] = weights;
            }),
        ),
        case(
            "code-inside-a-release",
            "A signed bundle whose manifest has a fifth layer, code.",
            "manifest: malformed document: a bundle has exactly four layers; there is no room for code",
            signed(|w| {
                w.manifest_edit = |m| {
                    let code = r#""layers":[{"mediaType":"application/vnd.cncf.model.code.v1.raw","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":0,"annotations":{"org.cncf.model.filepath":"code.bin"}},"#;
                    m.replace(r#""layers":["#, code)
                };
            }),
        ),
        case(
            "code-instead-of-a-plan",
            "A signed bundle whose plan is declared to be a Wasm module.",
            "manifest: malformed document: the manifest lacks a layer of a bundle, or has it under another media type",
            signed(|w| {
                w.manifest_edit =
                    |m| m.replacen("application/vnd.cncf.model.weight.config.v1.raw", "application/wasm", 1)
            }),
        ),
        case(
            "mixed-layers",
            "The manifest of another release: its weights with this one's golden vectors.",
            "manifest: wrong digest: expected sha256:MANIFEST, found sha256:FOUND",
            exchanged(|f| {
                f.insert("manifest.json".into(), other()["manifest.json"].clone());
            }),
        ),
        case(
            "mixed-layers-that-are-signed",
            "The statement's layers are not those of the manifest that it names: a signer that was fed two builds.",
            "manifest: what was signed speaks of another set of layers: documents of different releases are mixed",
            statement(|json| {
                json["predicate"]["layers"]["weights"]["digest"] = Digest::of(b"other").to_string().into()
            }),
        ),
        case(
            "contract-of-another-version",
            "A signed bundle whose contract speaks of another version than its statement.",
            "contract: what was signed speaks of another version: documents of different releases are mixed",
            signed(|w| w.contract.version = "2.0.0".into()),
        ),
        case(
            "contract-for-another-target",
            "A signed bundle whose contract has another target's limits.",
            "contract: the statement is for target cortex-a76, this gateway's is x86-64-v3",
            signed(|w| w.contract.target = "cortex-a76".parse().unwrap()),
        ),
    ]
}

fn blobs() -> Vec<Case> {
    let mut endless = case(
        "endless-stream",
        "The server never stops sending weights.",
        "weights.bin: goes on after the 1000 bytes that were expected",
        World::good().files(),
    );
    endless.attack.endless = Some("weights.bin".into());
    vec![
        endless,
        case(
            "truncated-stream",
            "The connection ends before the last byte of the weights.",
            "weights.bin: ends after 999 bytes, expected 1000",
            exchanged(|f| {
                f.get_mut("weights.bin").unwrap().pop();
            }),
        ),
        case(
            "padded-stream",
            "One byte more than the weights have.",
            "weights.bin: goes on after the 1000 bytes that were expected",
            exchanged(|f| f.get_mut("weights.bin").unwrap().push(0)),
        ),
        case(
            "weights-altered",
            "One bit of the weights.",
            "weights.bin: wrong digest: expected sha256:WEIGHTS, found sha256:FOUND",
            exchanged(|f| f.get_mut("weights.bin").unwrap()[500] ^= 1),
        ),
        case(
            "runner-altered",
            "One bit of the native code.",
            "runner.bin: wrong digest: expected sha256:RUNNER, found sha256:FOUND",
            exchanged(|f| f.get_mut("runner.bin").unwrap()[5] ^= 1),
        ),
        case(
            "golden-vectors-swapped",
            "Golden vectors with other labels, which a bad model would pass.",
            "golden.safetensors: wrong digest: expected sha256:GOLDEN, found sha256:FOUND",
            exchanged(|f| {
                f.insert("golden.safetensors".into(), golden_file([1, 0, 1]));
            }),
        ),
        case(
            "golden-vectors-without-expectations",
            "A signed bundle whose golden file expects nothing.",
            "golden: the golden file has no tensor \"outputs/scores\"",
            signed(|w| {
                let inputs = [0; 24];
                let labels = [0; 24];
                w.golden = golden::write(&[
                    ("inputs/image".into(), DataType::Fp32, vec![3, 1, 2], &inputs),
                    ("labels/scores".into(), DataType::Int64, vec![3], &labels),
                ]);
            }),
        ),
    ]
}

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/attacks")
}

fn read(dir: &Path) -> Files {
    let entries = fs::read_dir(dir).unwrap_or_else(|e| panic!("{}: {e}", dir.display()));
    entries
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()))
        .collect()
}

/// What of an attack stands in its directory.
fn stored(case: &Case, good: &Files) -> Files {
    let mut files: Files = case
        .files
        .iter()
        .filter(|(name, bytes)| good.get(*name) != Some(bytes))
        .map(|(n, b)| (n.clone(), b.clone()))
        .collect();
    let mut attack = serde_json::to_string_pretty(&case.attack).unwrap();
    attack.push('\n');
    files.insert("attack.json".into(), attack.into_bytes());
    files
}

/// Expected sentences name digests by what they are of.
fn spelled(error: &str, found: &str, good: &Files) -> String {
    let mut error = error.to_owned();
    let names = [
        ("ASSIGNMENT", "assignment.json"),
        ("MANIFEST", "manifest.json"),
        ("WEIGHTS", "weights.bin"),
        ("RUNNER", "runner.bin"),
        ("GOLDEN", "golden.safetensors"),
    ];
    for (word, file) in names {
        error = error.replace(&format!("sha256:{word}"), &Digest::of(&good[file]).to_string());
    }
    match found.rsplit_once("found sha256:") {
        Some((_, hex)) => error.replace("sha256:FOUND", &format!("sha256:{hex}")),
        None => error,
    }
}

#[test]
fn the_directories_are_what_the_seeds_make() {
    let good = World::good().files();
    let mut expected: BTreeMap<String, Files> = BTreeMap::from([("good".to_owned(), good.clone())]);
    expected.extend(attacks().iter().map(|case| (case.name.to_owned(), stored(case, &good))));
    if std::env::var_os("BALLAST_BLESS").is_some() {
        for (name, files) in &expected {
            let dir = directory().join(name);
            let _ = fs::remove_dir_all(&dir);
            fs::create_dir_all(&dir).unwrap();
            for (file, bytes) in files {
                fs::write(dir.join(file), bytes).unwrap();
            }
        }
    }
    let found: BTreeMap<String, Files> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), read(&path)))
        .collect();
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (name, files) in expected {
        for (file, bytes) in &files {
            assert!(found[&name].get(file) == Some(bytes), "{name}/{file} differs; BALLAST_BLESS=1 writes it anew");
        }
        assert_eq!(found[&name].len(), files.len(), "{name} has a file too many");
    }
}

#[test]
fn the_twin_of_every_attack_passes() {
    assert_eq!(admit(&read(&directory().join("good")), None), Ok(()));
}

#[test]
fn every_attack_fails_for_its_own_reason() {
    let good = read(&directory().join("good"));
    let mut seen = 0;
    for entry in fs::read_dir(directory()).unwrap() {
        let path = entry.unwrap().path();
        if path.ends_with("good") {
            continue;
        }
        let own = read(&path);
        let attack: Attack = serde_json::from_slice(&own["attack.json"]).unwrap();
        assert!(own.len() > 1 || attack.endless.is_some(), "{} changes nothing", path.display());
        let mut files = good.clone();
        files.extend(own);
        let error = admit(&files, attack.endless.as_deref()).expect_err(&format!("{} was admitted", path.display()));
        assert_eq!(error, spelled(&attack.error, &error, &good), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 40, "only {seen} attacks");
}

/// The gateway that expired pointers lead nowhere serves on: a day of skew is tolerated, no more.
#[test]
fn a_clock_that_is_a_day_off_is_tolerated() {
    let mut world = World::good();
    world.gateway.now = UnixMillis(ISSUED + 8 * DAY - 1);
    assert_eq!(admit(&world.files(), None), Ok(()));
    assert_eq!(trusted_time(UnixMillis(0), UnixMillis(5), UnixMillis(9)), UnixMillis(9));
    assert_eq!(trusted_time(UnixMillis(11), UnixMillis(5), UnixMillis(9)), UnixMillis(11));
}

/// What was installed keeps serving after floors, epoch and minimum compiler passed it by; a stranger's statement does not.
#[test]
fn what_was_installed_is_accepted_again_after_a_restart() {
    let good = World::good().files();
    let root = |files: &Files| {
        let first = Unverified::new(envelope(files, "root-1.json")).first_root().unwrap();
        Unverified::new(envelope(files, "root-2.json")).next_root(&first).unwrap()
    };
    let raised = signed(|w| {
        w.roots[1].0.epoch = 9;
        w.roots[1].0.minimum_compiler = 9;
    });
    let world = World::good();
    let assignment: Assignment = serde_json::from_slice(&good["assignment.json"]).unwrap();
    let want = assignment.deployments[0].want.clone().unwrap();
    let (deployment, target) = (&world.gateway.deployment, &world.gateway.target);
    let bytes = Unverified::new(good["release.json"].as_slice());
    let root = root(&raised);
    assert!(bytes.release(&want, deployment, target, &root, &Floors::default()).is_err());
    assert!(bytes.installed_release(&want, deployment, target, &root).is_ok());
    let foreign = signed(|w| w.release_key = STRANGER);
    let foreign = Unverified::new(foreign["release.json"].as_slice());
    assert!(foreign.installed_release(&want, deployment, target, &root).is_err());

    let want = assignment.runner.unwrap();
    let bytes = Unverified::new(good["runner.json"].as_slice());
    assert!(bytes.runner(&want, target, &root, &Floors::default()).is_err());
    assert!(bytes.installed_runner(&want, target, &root).is_ok());
    assert!(bytes.installed_runner(&want, &"x86-64".parse().unwrap(), &root).is_err());
    let other = RunnerRef { module: want.statement.clone(), ..want.clone() };
    assert!(bytes.installed_runner(&other, target, &root).is_err());
    let by_release_key = signed(|w| w.runner_key = RELEASE);
    let by_release_key = Unverified::new(by_release_key["runner.json"].as_slice());
    assert!(by_release_key.installed_runner(&want, target, &root).is_err());
}

/// A gateway whose target changes (`cpu_features.deny`) takes the other target's first runner, whatever its number; it goes
/// below neither target's own floor.
#[test]
fn the_runners_of_another_target_have_a_floor_of_their_own() {
    let other: TargetName = "x86-64".parse().unwrap();
    let fallen_back = |counter| {
        let (before, other) = (World::good().gateway.target, other.clone());
        signed(move |w| {
            let floor = ReleaseNumber { epoch: 1, counter: Counter(1_000_000) };
            w.gateway.floors.raise_runner(&before, floor);
            w.gateway.floors.raise_runner(&other, ReleaseNumber { epoch: 1, counter: Counter(3) });
            (w.gateway.target, w.runner.target) = (other.clone(), other.clone());
            (w.release.target, w.contract.target) = (other.clone(), other.clone());
            w.runner.number.counter = Counter(counter);
        })
    };
    assert_eq!(admit(&fallen_back(3), None), Ok(()));
    assert_eq!(admit(&fallen_back(2), None).unwrap_err(), "runner: release 1.2 is below the floor 1.3");
}

/// The good world's pointer over an assignment that was edited before it was signed for.
fn assigned(edit: impl FnOnce(&mut Assignment)) -> Result<(), String> {
    let world = World::good();
    let mut files = world.clone().files();
    let mut assignment: Assignment = serde_json::from_slice(&files["assignment.json"]).unwrap();
    edit(&mut assignment);
    let assignment = to_json(&assignment);
    pointed(&mut files, |pointer| pointer.assignment = manifest::blob_of(&assignment));
    files.insert("assignment.json".into(), assignment);
    admit(&files, None)
}

/// Signs the pointer anew after an edit.
fn pointed(files: &mut Files, edit: impl FnOnce(&mut Pointer)) {
    use base64::Engine as _;
    let payload = envelope(files, "pointer.json").payload;
    let payload = base64::engine::general_purpose::STANDARD.decode(payload).unwrap();
    let mut pointer: Pointer = serde_json::from_slice(&payload).unwrap();
    edit(&mut pointer);
    let keys: Vec<SigningKey> = ASSIGNMENT[..2].iter().map(|k| key(*k)).collect();
    let signed = sign_envelope(POINTER_TYPE, &to_json(&pointer), &keys.iter().collect::<Vec<_>>());
    files.insert("pointer.json".into(), to_json(&signed));
}

#[test]
fn an_assignment_is_one_namespaces_with_names_that_can_be_and_nothing_twice() {
    assert_eq!(assigned(|_| ()), Ok(()));
    let name = "assignment: malformed document: the assignment has a name that no deployment or model can have";
    let repository = "assignment: malformed document: the assignment has a repository that no registry can have";
    let twice = "assignment: malformed document: the assignment has one model or deployment twice";
    let foreign = assigned(|a| a.deployments[0].deployment.namespace = "other".parse().unwrap()).unwrap_err();
    assert!(foreign.contains("another namespace"), "{foreign}");
    for bad in ["", "..", "../x", "a/b", "A", "a\0", &"a".repeat(254)] {
        assert_eq!(assigned(|a| a.deployments[0].model = bad.into()).unwrap_err(), name, "{bad:?}");
        assert_eq!(assigned(|a| a.deployments[0].deployment.name = bad.into()).unwrap_err(), name, "{bad:?}");
    }
    for bad in ["", "/", "a//b", "a/../b", "/a", "a?x=1", "http://h/x"] {
        let want = |a: &mut Assignment| a.deployments[0].want.as_mut().unwrap().repository = bad.into();
        assert_eq!(assigned(want).unwrap_err(), repository, "{bad:?}");
        assert_eq!(
            assigned(|a| a.runner.as_mut().unwrap().repository = bad.into()).unwrap_err(),
            repository,
            "{bad:?}"
        );
    }
    let again = |a: &mut Assignment, other: &str| {
        let mut second = a.deployments[0].clone();
        second.deployment.name = other.into();
        a.deployments.push(second);
    };
    assert_eq!(assigned(|a| again(a, "another")).unwrap_err(), twice, "one model by two deployments");
    let both = |a: &mut Assignment| {
        again(a, "digits");
        a.deployments[1].model = "another".into();
    };
    assert_eq!(assigned(both).unwrap_err(), twice, "one deployment under two models");
}

#[test]
fn a_pointer_lives_for_400_days_at_most() {
    let lives = |millis: u64| {
        let mut files = World::good().files();
        pointed(&mut files, |pointer| pointer.expires = UnixMillis(ISSUED + millis));
        admit(&files, None)
    };
    assert_eq!(lives(400 * DAY), Ok(()));
    let refused = lives(400 * DAY + 1).unwrap_err();
    assert_eq!(refused, "pointer: malformed document: the pointer lives for more than 400 days");
}

/// Two documents under one sequence: both verify, and tell apart by what they name; the gateway keeps the first.
#[test]
fn two_documents_under_one_sequence_can_be_told_apart() {
    let good = World::good().files();
    let first = Unverified::new(envelope(&good, "root-1.json")).first_root().unwrap();
    let root = Unverified::new(envelope(&good, "root-2.json")).next_root(&first).unwrap();
    let mut other = good.clone();
    pointed(&mut other, |pointer| pointer.assignment = manifest::blob_of(b"another"));
    let gateway = World::good().gateway;
    let read = |files: &Files| {
        let pointer = Unverified::new(envelope(files, "pointer.json"));
        pointer.pointer(&root, &gateway.audience, &gateway.floors, gateway.now).unwrap()
    };
    let (one, two) = (read(&good), read(&other));
    assert_eq!((one.epoch, one.sequence), (two.epoch, two.sequence));
    assert_ne!(one.assignment, two.assignment);
    // And the document of one is none of the other's.
    assert!(Unverified::new(good["assignment.json"].as_slice()).assignment(&two).is_err());
}

#[test]
fn two_of_three_root_keys_sign_where_two_must() {
    let signed_by = |signers: &[u8]| {
        signed(|w| {
            w.roots[0] = (w.roots[0].0.clone(), vec![ROOT_1, ROOT_2]);
            w.roots[1].1 = signers.to_vec();
            for (root, _) in &mut w.roots {
                root.roles.insert(Role::Root, keys_of(&[ROOT_1, ROOT_2, STRANGER], 2));
            }
        })
    };
    assert_eq!(admit(&signed_by(&[ROOT_1, ROOT_2]), None), Ok(()));
    assert_eq!(admit(&signed_by(&[STRANGER, ROOT_2]), None), Ok(()));
    for too_few in [&[ROOT_1][..], &[ROOT_1, ROOT_1], &[ROOT_1, RELEASE]] {
        assert_eq!(
            admit(&signed_by(too_few), None).unwrap_err(),
            "root: 1 of 2 needed signatures by the role's keys",
            "{too_few:?}"
        );
    }
}

#[test]
fn an_older_root_is_not_offered_again() {
    let good = World::good().files();
    let first = Unverified::new(envelope(&good, "root-1.json")).first_root().unwrap();
    let second = Unverified::new(envelope(&good, "root-2.json")).next_root(&first).unwrap();
    // Version 2 itself: signed by its own keys, and still no successor.
    let again = Unverified::new(envelope(&good, "root-2.json")).next_root(&second).unwrap_err();
    assert_eq!(again, VerifyError::RootVersion { current: 2, found: 2 });
    // Version 1 does not bear the signature of version 2's key.
    assert!(Unverified::new(envelope(&good, "root-1.json")).next_root(&second).is_err());
    let both = signed(|w| w.roots[0].1 = vec![ROOT_1, ROOT_2]);
    let older = Unverified::new(envelope(&both, "root-1.json")).next_root(&second).unwrap_err();
    assert_eq!(older, VerifyError::RootVersion { current: 2, found: 1 });
}

#[test]
fn a_new_release_key_counts_from_its_root_on_and_the_old_one_no_more() {
    let rotated = |signs: u8| {
        signed(move |w| {
            w.roots[1].0.roles.insert(Role::Release, keys_of(&[STRANGER], 1));
            w.release_key = signs;
        })
    };
    assert_eq!(admit(&rotated(STRANGER), None), Ok(()));
    assert_eq!(admit(&rotated(RELEASE), None).unwrap_err(), "release: 0 of 1 needed signatures by the role's keys");
}

#[test]
fn a_pointer_of_the_old_epoch_ends_with_the_epoch() {
    let raised = |epoch| {
        signed(move |w| {
            w.roots[1].0.epoch = 2;
            (w.pointer_epoch, w.release.number.epoch, w.runner.number.epoch) = (epoch, 2, 2);
            // Sequences begin anew with an epoch.
            w.sequence = 1;
        })
    };
    assert_eq!(admit(&raised(2), None), Ok(()));
    assert_eq!(admit(&raised(1), None).unwrap_err(), "pointer: epoch 1 is not the trust root's epoch 2");
}
