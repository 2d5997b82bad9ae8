//! Those who should get little: no certificate, too much, too slow, too many.

use ballast_fleet::{AdminSocket, FleetServer, Limits};
use hyper::{Method, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::client::{Connection, Key};
use crate::harness::{Server, sync_request};

#[tokio::test]
async fn without_a_certificate_only_enrolment_and_roots_answer() {
    let server = Server::start().await;
    let mut anonymous = server.anonymous().await;
    for path in ["/v2/", "/v1/assignments/sha256:00", "/v2/ns-a/digits/tags/list"] {
        assert_eq!(anonymous.get(path).await.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    assert_eq!(anonymous.post("/v1/sync", &sync_request()).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(anonymous.get("/v1/roots/1").await.status, StatusCode::OK);
    assert_eq!(anonymous.get("/nothing").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_certificate_of_another_ca_ends_the_handshake() {
    let server = Server::start().await;
    let other = Server::start().await;
    let (identity, key) = other.enrolled("ns-a").await;
    let identity = Some((identity.certificate.as_str(), &key));
    // TLS 1.3 tells the client with its first read.
    if let Ok(mut connection) = Connection::open(server.address, server.authority.certificate_pem(), identity).await {
        assert!(connection.send(Method::GET, "/v1/roots/1", &[], "").await.is_err());
    }
}

#[tokio::test]
async fn bodies_are_bounded_and_must_be_what_they_claim() {
    let server = Server::start().await;
    let mut anonymous = server.anonymous().await;
    let big = vec![b' '; 65 << 10];
    let answer = anonymous.send(Method::POST, "/v1/enroll", &[], big).await.unwrap();
    assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut anonymous = server.anonymous().await;
    for rubbish in ["", "{", "[]", "{\"token\":1}", &"[".repeat(10_000)] {
        let answer = anonymous.send(Method::POST, "/v1/enroll", &[], rubbish.to_owned()).await.unwrap();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let secret = server.token("t", "ns-a", |_| {}).await;
    let mut request = crate::harness::enrolment(&secret, &Key::new(), None);
    request.csr = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n".into();
    let answer = anonymous.post("/v1/enroll", &request).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    assert!(answer.error().contains("PKCS#10"), "{}", answer.error());
}

#[tokio::test]
async fn who_comes_when_it_is_full_is_told_when_to_come_back() {
    let later = |answer: crate::client::Answer| {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((1..=9).contains(&seconds), "{seconds}");
        assert!(answer.error().contains("busy"), "{}", answer.error());
    };
    let server = Server::with(Limits { enrolments: 0, ..Limits::default() }).await;
    let request = crate::harness::enrolment("whatever", &Key::new(), None);
    later(server.anonymous().await.post("/v1/enroll", &request).await);

    let server = Server::with(Limits { requests: 0, ..Limits::default() }).await;
    later(server.anonymous().await.get("/v1/roots/1").await);

    let server = Server::with(Limits { pulls: 0, ..Limits::default() }).await;
    let (identity, key) = server.enrolled("ns-a").await;
    let mut gateway = server.connect(&identity, &key).await;
    later(gateway.get("/v2/ns-a/digits/tags/list").await);
    assert_eq!(gateway.post("/v1/sync", &sync_request()).await.status, StatusCode::OK, "only pulls are full");
}

#[tokio::test]
async fn one_gateway_takes_only_its_share_of_the_pulls() {
    let server = Server::with(Limits { pulls: 3, pulls_per_gateway: 2, ..Limits::default() }).await;
    let (greedy, greedy_key) = server.enrolled("ns-a").await;
    let (other, other_key) = server.enrolled("ns-b").await;
    // More than all buffers between the two hold: a pull that nobody reads does not end.
    let content = vec![7; 32 << 20];
    for namespace in ["ns-a", "ns-b"] {
        server.registry.put_blob(&format!("{namespace}/digits").parse().unwrap(), &content).unwrap();
    }
    let path = |namespace| format!("/v2/{namespace}/digits/blobs/{}", ballast_bundle::Digest::of(&content));
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = server.connect(&greedy, &greedy_key).await;
        let pull = connection.begin(&path("ns-a")).await;
        assert_eq!(pull.status(), StatusCode::OK);
        held.push((connection, pull));
    }
    let mut third = server.connect(&greedy, &greedy_key).await;
    let answer = third.get(&path("ns-a")).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=9).contains(&seconds), "{seconds}");
    assert!(answer.error().contains("2 pulls open"), "{}", answer.error());
    assert_eq!(third.post("/v1/sync", &sync_request()).await.status, StatusCode::OK, "only its pulls are too many");

    // The others' places are there; the one after the last is refused as ever.
    let mut connection = server.connect(&other, &other_key).await;
    let pull = connection.begin(&path("ns-b")).await;
    assert_eq!(pull.status(), StatusCode::OK);
    let mut late = server.connect(&other, &other_key).await;
    assert_eq!(late.get(&path("ns-b")).await.status, StatusCode::SERVICE_UNAVAILABLE);

    // Who ends one may begin one.
    drop(held.pop());
    let mut status = StatusCode::TOO_MANY_REQUESTS;
    for _ in 0..1_000 {
        status = third.send(Method::HEAD, &path("ns-a"), &[], "").await.unwrap().status;
        if status == StatusCode::OK {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(status, StatusCode::OK);
    drop((held, pull));
}

#[tokio::test]
async fn what_gateways_send_is_bounded_too() {
    let server = Server::start().await;
    let (identity, key) = server.enrolled("ns-a").await;
    for (path, kib) in [("/v1/sync", 257), ("/v1/renew", 65)] {
        let mut gateway = server.connect(&identity, &key).await;
        let answer = gateway.send(Method::POST, path, &[], vec![b' '; kib << 10]).await.unwrap();
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_never_ends_its_handshake_is_cut() {
    let server = Server::start().await;
    let mut silent = tokio::net::TcpStream::connect(server.address).await.unwrap();
    silent.write_all(&[0x16, 0x03, 0x01]).await.unwrap();
    // The clock is tokio's: it jumps as soon as nothing else is to do.
    let mut rest = Vec::new();
    assert_eq!(silent.read_to_end(&mut rest).await.unwrap_or(0), 0);
}

/// Why, once: in the sentence, and not again among its causes, which many print behind it.
fn said_once(error: &dyn std::error::Error, why: &str) {
    let mut text = error.to_string();
    let mut cause = error.source();
    assert!(text.contains(why), "{text}");
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    assert_eq!(text.matches(why).count(), 1, "{text}");
}

#[test]
fn a_volume_that_fails_says_why() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let path = file.path().join("below");
    let Err(error) = ballast_fleet::registry::Registry::open(&path) else { panic!("opened") };
    said_once(&error, "Not a directory");
    let Err(error) = ballast_fleet::Documents::open(&path) else { panic!("opened") };
    said_once(&error, "Not a directory");
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = FleetServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let Err(error) = FleetServer::bind(taken.address()).await else { panic!("bound twice") };
    let text = error.to_string();
    assert!(text.contains(&taken.address().to_string()) && text.contains("--listen"), "{text}");
}

#[tokio::test]
async fn the_administrators_socket_is_private_and_belongs_to_one_process() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("admin.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap()); // what a dead process leaves behind
    let socket = AdminSocket::bind(&path).await.unwrap();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(AdminSocket::bind(&path).await.is_err());
    drop(socket);
    AdminSocket::bind(&path).await.unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "mine").unwrap();
    let Err(error) = AdminSocket::bind(&file).await else { panic!("bound over a file") };
    said_once(&error, "that is no socket");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "mine");
}
