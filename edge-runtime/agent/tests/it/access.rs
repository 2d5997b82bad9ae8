//! Who may ask, from where, and with what.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Output;

use crate::fleet::Fleet;
use crate::gateway::{Gateway, call, run, stderr, wait_for};
use crate::requests::serving_with;

const TOKEN: &str = "correct-horse-battery-staple";

fn token_file(dir: &Path, text: &str) -> String {
    let (path, new) = (dir.join("tokens"), dir.join("tokens.new"));
    std::fs::write(&new, text).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn refused(gateway: &Gateway, arguments: &[&str]) -> Output {
    let output = run(&[&["run", "--state", gateway.state()], arguments].concat());
    assert!(!output.status.success());
    output
}

/// Every one of them ends before anything is served.
#[test]
fn addresses_that_others_can_reach_need_something_that_says_who_may_ask() {
    let fleet = Fleet::start();
    let gateway = Gateway::enrolled(&fleet);
    for address in ["0.0.0.0:0", "[::]:0"] {
        let told = stderr(&refused(&gateway, &["--http", address]));
        for words in
            ["serve.http is ", "which other machines can reach", "serve.token_file", "serve.client_ca", "127.0.0.1"]
        {
            assert!(told.contains(words), "{told}");
        }
    }
    let path = token_file(gateway.dir.path(), "short");
    let told = stderr(&refused(&gateway, &["--set", &format!("serve.token_file={path}")]));
    assert!(told.contains("one token a line"), "{told}");
    let told = stderr(&refused(&gateway, &["--set", "serve.certificate=/no/such/file", "--set", "serve.key=/none"]));
    assert!(told.contains("serve.certificate: /no/such/file"), "{told}");
}

#[test]
fn a_token_opens_every_call_and_can_be_exchanged_while_it_serves() {
    let dir = tempfile::tempdir().unwrap();
    let path = token_file(dir.path(), TOKEN);
    // The last `--http` counts: any address.
    let (_fleet, gateway) =
        serving_with(&["--set", "serve.http=0.0.0.0:0", "--set", &format!("serve.token_file={path}")]);
    let port = gateway.address().rsplit_once(':').unwrap().1.to_owned();
    let address = format!("127.0.0.1:{port}");
    let ask = |method: &str, path: &str, token: &str| {
        call(&address, method, path, &[("Authorization", format!("Bearer {token}"))], b"").unwrap()
    };
    for (method, path) in [
        ("GET", "/v2"),
        ("GET", "/v2/health/ready"),
        ("GET", "/metrics"),
        ("GET", "/openapi.json"),
        ("POST", "/v2/repository/index"),
        ("GET", "/v2/models/digits"),
    ] {
        let none = call(&address, method, path, &[], b"").unwrap();
        assert_eq!((none.status, none.header("www-authenticate")), (401, Some("Bearer")), "{path}: {none:?}");
        assert!(none.error().contains("Authorization: Bearer TOKEN"), "{}", none.error());
        assert_eq!(ask(method, path, "correct-horse-battery-stapl").status, 401);
        assert_eq!(ask(method, path, TOKEN).status, 200, "{path}");
    }
    let infer = call(&address, "POST", "/v2/models/digits/infer", &[], &[b' '; 100_000]).unwrap();
    assert_eq!(infer.status, 401, "{infer:?}");

    // The new one below the old one, then the new one alone.
    token_file(dir.path(), &format!("{TOKEN}\nanother-secret-of-ours\n"));
    wait_for("the new token counts", || ask("GET", "/v2", "another-secret-of-ours").status == 200);
    assert_eq!(ask("GET", "/v2", TOKEN).status, 200);
    token_file(dir.path(), "another-secret-of-ours\n");
    wait_for("the old token counts no more", || ask("GET", "/v2", TOKEN).status == 401);
    assert_eq!(ask("GET", "/v2", "another-secret-of-ours").status, 200);
    assert!(!gateway.log().contains("secret-of-ours") && !gateway.log().contains(TOKEN), "no secret is logged");
}

#[test]
fn a_unix_socket_serves_the_same_to_this_machines_programs() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edge.sock");
    // A socket that a killed process left behind.
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let set = format!("serve.unix={}", path.display());
    let tokens = format!("serve.token_file={}", token_file(dir.path(), TOKEN));
    let (fleet, mut gateway) = serving_with(&["--set", &set, "--set", &tokens, "--set", "serve.max_connections=1"]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    let get = |path: &Path| {
        let mut stream = UnixStream::connect(path).unwrap();
        stream.write_all(b"GET /v2/models/digits HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    let answer = get(&path);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"digits\""), "no token is asked for: {answer}");
    // The one place is nobody's while nobody has come: both listeners serve in turns.
    for _ in 0..3 {
        assert_eq!(call(&gateway.address(), "GET", "/v2", &[], b"").unwrap().status, 401);
        assert!(get(&path).starts_with("HTTP/1.1 200"));
    }

    // A second gateway does not take it away, nor anything else that is there.
    let other = Gateway::enrolled(&fleet);
    let told = stderr(&refused(&other, &["--http", "127.0.0.1:0", "--set", &set]));
    assert!(told.contains("is in use by another program"), "{told}");
    assert!(get(&path).starts_with("HTTP/1.1 200"));
    let file = dir.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let told = stderr(&refused(&other, &["--http", "127.0.0.1:0", "--set", &format!("serve.unix={}", file.display())]));
    assert!(told.contains("is no socket") && file.exists(), "{told}");
    let told = stderr(&refused(&other, &["--http", "127.0.0.1:0", "--set", "serve.unix=/no/such/folder/s"]));
    assert!(told.contains("its folder must be there"), "{told}");

    assert!(gateway.terminate());
    assert!(!path.exists(), "it is gone with the gateway");
}
