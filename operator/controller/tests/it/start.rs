//! The program itself: what it refuses to start with, in one clear sentence, and what is asked at its socket.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ballast_bundle::protocol::Facts;
use ballast_bundle::{Digest, UnixMillis};
use ballast_fleet::store::{GatewayRow, GatewayState, GatewayStore as _, RedbStore};

struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("fleet")).unwrap();
        let place = Self { directory };
        let fleet = "apiVersion: ballast.dev/v1alpha1\nkind: Fleet\nmetadata: {name: plant}\n";
        place.put("fleet.yaml", fleet);
        place
    }

    fn put(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join("fleet").join(name), text).unwrap();
    }

    fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    fn operator(&self, state: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ballast-operator"));
        command.arg("--directory").arg(self.directory.path().join("fleet")).arg("--state").arg(state);
        command.args(["--listen", "127.0.0.1:0"]).stdin(Stdio::null());
        command
    }

    /// An operator that is ready.
    fn running(&self) -> Running {
        let log = std::fs::File::create(self.directory.path().join("log")).unwrap();
        let mut running = Running(self.operator(&self.state()).stderr(log).spawn().unwrap());
        for _ in 0..12_000 {
            if self.state().join("endpoint").exists() && UnixStream::connect(self.state().join("admin.sock")).is_ok() {
                return running;
            }
            assert!(running.0.try_wait().unwrap().is_none(), "{}", self.log());
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("not ready: {}", self.log());
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// It must end by itself with one sentence that holds all of `words`.
    fn refuses(&self, what: &str, state: &Path, words: &[&str]) {
        let output = self.operator(state).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{what}: {said}");
        let last = said.lines().filter(|line| line.starts_with("ballast-operator: ")).collect::<Vec<_>>();
        let [line] = last[..] else { panic!("{what}: one sentence, not {said}") };
        for word in words {
            assert!(line.contains(word), "{what}: {word} in {line}");
        }
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
}

/// Ends with this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Status and body of a call at the socket.
fn post(socket: &Path, path: &str, body: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    let length = body.len();
    write!(
        stream,
        "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
}

fn gateway() -> GatewayRow {
    GatewayRow {
        id: "gw-a".parse().unwrap(),
        namespace: "ns-a".parse().unwrap(),
        token: String::new(),
        display_name: None,
        labels: Default::default(),
        keys: vec![Digest::of(b"key")],
        state: GatewayState::Enrolled,
        facts: Facts::default(),
        facts_digest: None,
        enrolled: UnixMillis(1),
        last_seen: None,
        certificate_expires: None,
        target: None,
        assignment: None,
        root_version: 0,
        pointer: None,
        revision: 0,
    }
}

#[test]
fn a_state_directory_that_cannot_be_used_is_said_to_be() {
    let place = Place::new();
    let file = place.directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    // In the way, above, and where nobody can write, the administrator included.
    for state in [file.clone(), file.join("state"), PathBuf::from("/proc/ballast")] {
        let shown = state.display().to_string();
        place.refuses("not writable", &state, &[&shown, "is not writable", "choose another --state"]);
    }
    let mut running = place.running();
    let (state, shown) = (place.state(), place.state().canonicalize().unwrap().display().to_string());
    place.refuses("held", &state, &[&shown, "is held by a running ballast-operator", "stop it, or choose another"]);
    assert!(running.0.try_wait().unwrap().is_none(), "the one that holds it goes on");
}

#[test]
fn keys_that_are_missing_while_gateways_are_enrolled_are_never_made_again() {
    let place = Place::new();
    drop(place.running());
    // Made elsewhere and copied: a child that another test starts meanwhile would hold this file's lock for a moment. The
    // runtime's end is that of all threads that write.
    let made = place.directory.path().join("made.redb");
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let store = RedbStore::open(&made, UnixMillis(1)).unwrap();
        store.adopt(gateway()).await.unwrap();
    });
    std::fs::copy(&made, place.state().join("gateways.redb")).unwrap();
    // Roots gone as well: whoever is enrolled is reason enough.
    std::fs::remove_dir_all(place.state().join("roots")).unwrap();
    for name in ["root", "runtime", "release", "assignment", "ca", "ca-certificate"] {
        let key = place.state().join(format!("keys/{name}.pem"));
        std::fs::rename(&key, place.directory.path().join("aside")).unwrap();
        let shown = format!("keys/{name}.pem");
        let words = [shown.as_str(), "is missing", "gateways of this fleet trust it", "restore it from the backup"];
        place.refuses(name, &place.state(), &words);
        assert!(!key.exists(), "{name}: nothing was made");
        std::fs::rename(place.directory.path().join("aside"), &key).unwrap();
    }
    drop(place.running());
}

#[test]
fn a_token_of_a_name_that_is_taken_is_a_conflict() {
    let place = Place::new();
    let token = "apiVersion: ballast.dev/v1alpha1\nkind: EnrollmentToken\nmetadata: {name: hall}\nspec: {uses: 5}\n";
    place.put("token.yaml", token);
    let _running = place.running();
    let socket = place.state().join("admin.sock");
    for _ in 0..12_000 {
        if place.state().join("tokens/hall").exists() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let before = std::fs::read(place.state().join("tokens/hall")).unwrap();
    let (status, said) = post(&socket, "/v1/tokens", r#"{"name": "hall", "uses": 1}"#);
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("the EnrollmentToken object hall in namespace default has this name"), "{said}");
    assert_eq!(std::fs::read(place.state().join("tokens/hall")).unwrap(), before);
    assert_eq!(post(&socket, "/v1/tokens", r#"{"name": "press"}"#).0, 200);
    let (status, said) = post(&socket, "/v1/tokens", r#"{"name": "press"}"#);
    assert_eq!(status, 409, "{said}");
    assert!(said.contains("there is a token press in namespace default already (1 of 1 uses left)"), "{said}");
}
