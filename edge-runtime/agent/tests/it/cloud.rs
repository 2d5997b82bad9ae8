//! Joint inference: a gateway at the edge, and behind mutual TLS another one as the cloud, or whatever else may stand there.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ballast_bundle::{
    BudgetLimits, ClassThresholds, CloudEndpoint, ConfidenceRule, Escalation, EscalationLimits, Privacy, Rule, Scores,
    Threshold,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::fleet::Fleet;
use crate::gateway::{Gateway, Reply, wait_for};
use crate::models::Live;

/// What stands behind the door.
#[derive(Clone)]
enum Behind {
    /// Another gateway's plain HTTP.
    Gateway(String),
    /// It takes everything and says nothing.
    Silence,
    /// It says this, whatever it is asked.
    Says(String),
}

/// A TLS door that lets gateways of the fleet in.
struct Door {
    address: SocketAddr,
    behind: Arc<Mutex<Behind>>,
    opened: Arc<AtomicU64>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Door {
    fn of(fleet: &Fleet, behind: Behind) -> Self {
        let acceptor = fleet.acceptor(false);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (behind, opened) = (Arc::new(Mutex::new(behind)), Arc::new(AtomicU64::new(0)));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (within, count) = (Arc::clone(&behind), Arc::clone(&opened));
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let accepting = async {
                    loop {
                        let (stream, _) = listener.accept().await.unwrap();
                        let (acceptor, within, count) = (acceptor.clone(), Arc::clone(&within), Arc::clone(&count));
                        tokio::spawn(async move {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            count.fetch_add(1, Ordering::SeqCst);
                            let behind = within.lock().unwrap().clone();
                            serve(stream, behind).await;
                        });
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, behind, opened, stop: Some(stop), thread: Some(thread) }
    }

    fn exchange(&self, behind: Behind) {
        *self.behind.lock().unwrap() = behind;
    }

    fn opened(&self) -> u64 {
        self.opened.load(Ordering::SeqCst)
    }

    fn close(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
    }
}

async fn serve(mut stream: tokio_rustls::server::TlsStream<tokio::net::TcpStream>, behind: Behind) {
    match behind {
        Behind::Gateway(address) => {
            if let Ok(mut inner) = tokio::net::TcpStream::connect(address).await {
                let _ = tokio::io::copy_bidirectional(&mut stream, &mut inner).await;
            }
        }
        Behind::Silence => {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {}
        }
        Behind::Says(answer) => {
            let mut bytes = vec![0; 1 << 16];
            let mut seen = Vec::new();
            // A digits request is 256 bytes of image behind its JSON.
            while !whole(&seen) {
                match stream.read(&mut bytes).await {
                    Ok(n) if n > 0 => seen.extend_from_slice(&bytes[..n]),
                    _ => return,
                }
            }
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    }
}

/// Head and body of a request have arrived.
fn whole(seen: &[u8]) -> bool {
    let Some(end) = seen.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
    let head = String::from_utf8_lossy(&seen[..end]).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length:")).map(|n| n.trim().parse::<usize>());
    seen.len() >= end + 4 + length.unwrap().unwrap()
}

fn http(status: &str, body: &str) -> Behind {
    Behind::Says(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len()))
}

fn escalation(door: &Door, below: Threshold) -> Escalation {
    Escalation {
        confidence: ConfidenceRule {
            output: "scores".to_owned(),
            rule: Rule::MaxSoftmax,
            scores: Scores::Probabilities,
            thresholds: ClassThresholds::same(below),
        },
        cloud: CloudEndpoint {
            endpoint: format!("https://{}", door.address),
            model: "digits".to_owned(),
            deadline_millis: 20_000,
            ca: None,
        },
        limits: EscalationLimits {
            budget: BudgetLimits { bytes_per_day: 100 << 20, requests_per_minute: 100_000 },
            concurrency: 4,
            random_share: 0,
        },
        privacy: Privacy::Any,
    }
}

/// A gateway that asks as `escalation` says, and lets out what `privacy` says.
fn asking(fleet: &Fleet, escalation: &Escalation, privacy: &str) -> Gateway {
    let release = fleet.digits("1.0.0", 1);
    fleet.escalates(&release, escalation);
    let mut gateway = Gateway::enrolled(fleet);
    gateway.start(&["--set", &format!("privacy={privacy}")]);
    wait_for("1.0.0 answers", || gateway.image(&[0; 256]).status == 200);
    gateway
}

/// The cloud: a fleet of its own with digits 2.0.0.
fn cloud() -> (Fleet, Gateway) {
    let fleet = Fleet::start();
    let release = fleet.digits("2.0.0", 1);
    fleet.assign(Some(&release), Some(&release));
    let gateway = Gateway::started(&fleet);
    wait_for("2.0.0 is active", || gateway.answers_as("2.0.0", "active"));
    (fleet, gateway)
}

fn parameter(reply: &Reply, name: &str) -> String {
    reply.json()["parameters"][name].as_str().unwrap_or_default().to_owned()
}

/// A line of `/metrics`.
fn metric(gateway: &Gateway, line: &str) -> u64 {
    let text = gateway.metrics();
    let found = text.lines().find_map(|l| l.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
    found.trim().parse().unwrap()
}

fn outcome(gateway: &Gateway, outcome: &str) -> u64 {
    metric(gateway, &format!("ballast_escalation_requests_total{{deployment=\"digits\",outcome=\"{outcome}\"}}"))
}

fn own(live: &Live, gateway: &Gateway, n: usize) {
    let reply = gateway.image(live.image(n));
    assert_eq!((reply.status, parameter(&reply, "ballast_cloud_model").as_str()), (200, ""), "{reply:?}");
    assert_ne!(reply.by(), "cloud");
    close(&reply.scores(), &live.expected("1.0.0", n));
}

fn close(is: &[f32], expected: &[f32]) {
    assert_eq!(is.len(), expected.len());
    for (is, expected) in is.iter().zip(expected) {
        assert!((is - expected).abs() <= 1e-3 + 1e-3 * expected.abs(), "{is} {expected}");
    }
}

#[test]
fn what_the_edge_is_not_sure_of_the_cloud_answers() {
    let live = Live::load();
    let fleet = Fleet::start();
    let (_theirs, above) = cloud();
    let door = Door::of(&fleet, Behind::Gateway(above.address()));
    let below = Threshold::try_from(9_900).unwrap();
    let gateway = asking(&fleet, &escalation(&door, below), "Any");
    let (mut asked, mut kept) = (0, 0);
    for n in (0..live.len()).filter(|n| !live.is_blank(*n)).take(60) {
        let reply = gateway.image(live.image(n));
        assert_eq!((reply.status, reply.version().as_str()), (200, "1.0.0"), "the edge's release let it go");
        let confidence: f64 = parameter(&reply, "ballast_confidence").parse().unwrap();
        // The confidence is of the edge's own scores, whoever answered.
        let scores = live.expected("1.0.0", n);
        let share = f64::from(scores.iter().copied().fold(0.0, f32::max));
        assert!((confidence - share).abs() < 2e-3, "{confidence} {share}");
        if confidence < 0.99 {
            asked += 1;
            assert_eq!(reply.by(), "cloud");
            assert_eq!(parameter(&reply, "ballast_cloud_model"), "digits");
            assert_eq!(parameter(&reply, "ballast_cloud_version"), "2.0.0");
            close(&reply.scores(), &live.expected("2.0.0", n));
        } else {
            kept += 1;
            assert_ne!(reply.by(), "cloud");
            close(&reply.scores(), &live.expected("1.0.0", n));
        }
    }
    assert!(asked > 0 && kept > 0, "{asked} asked, {kept} kept: the images tell nothing");
    assert!(outcome(&gateway, "answered") >= asked && outcome(&gateway, "sure") >= kept);
    let says = |says: &str| {
        metric(&gateway, &format!("ballast_escalation_agreement_total{{deployment=\"digits\",cloud=\"{says}\"}}"))
    };
    assert_eq!(says("agreed") + says("disagreed"), outcome(&gateway, "answered"));
    let bytes = metric(&gateway, "ballast_escalation_bytes_total{deployment=\"digits\"}");
    assert!(bytes > asked * 256, "at least the images: {bytes}");
    assert!(door.opened() < asked, "connections are kept: {} for {asked} requests", door.opened());
}

#[test]
fn nothing_leaves_unless_both_the_owner_and_the_deployment_let_it() {
    let live = Live::load();
    for (owner, deployment) in [("LocalOnly", Privacy::Any), ("Features", Privacy::Any), ("Any", Privacy::LocalOnly)] {
        let fleet = Fleet::start();
        let door = Door::of(&fleet, Behind::Silence);
        let escalation = Escalation { privacy: deployment, ..escalation(&door, Threshold::EVERYTHING) };
        let gateway = asking(&fleet, &escalation, owner);
        (0..3).for_each(|n| own(&live, &gateway, n));
        assert!(outcome(&gateway, "private") >= 3);
        assert_eq!(door.opened(), 0, "{owner} {deployment:?}");
    }
}

#[test]
fn whatever_stands_there_the_edge_answers() {
    let live = Live::load();
    let fleet = Fleet::start();
    let mut door = Door::of(&fleet, http("404 Not Found", "{\"error\":\"there is no model\"}"));
    let gateway = asking(&fleet, &escalation(&door, Threshold::EVERYTHING), "Any");
    let other = |shape: &str, data: &str| {
        let output = format!("{{\"name\":\"scores\",\"datatype\":\"FP32\",\"shape\":{shape},\"data\":{data}}}");
        http("200 OK", &format!("{{\"model_name\":\"x\",\"outputs\":[{output}]}}"))
    };
    let ten = "[1,2,3,4,5,6,7,8,9,0]";
    let mut says = vec![
        (http("401 Unauthorized", "{\"error\":\"the token has expired\"}"), "the token has expired"),
        (http("200 OK", "hello"), "cannot be read"),
        (http("200 OK", "{\"outputs\":[]}"), "has no output"),
        (other("[1,9]", "[1,2,3,4,5,6,7,8,9]"), "the edge's is FP32"),
        (other("[1,10]", "[1,2,3]"), "has 3 elements"),
        (Behind::Says("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{".to_owned()), "no answer: "),
        (http("200 OK", &"x".repeat(200_000)), "is longer than"),
    ];
    // The breaker opens at the fifth failure in a row; an answer that is right closes it in between.
    let right = other("[1,10]", ten);
    for (n, (behind, says)) in says.drain(..).enumerate() {
        door.exchange(right.clone());
        wait_for("the cloud is asked", || gateway.image(live.image(n)).by() == "cloud");
        door.exchange(behind);
        own(&live, &gateway, n);
        assert!(gateway.log().contains(says), "{says}");
    }
    door.close();
    left_alone(&live, &gateway);
    assert_eq!(metric(&gateway, "ballast_escalation_circuit_open{deployment=\"digits\"}"), 1);
}

/// The edge answers all the while. Pauses grow, so that a slow machine comes to one that is longer than it takes to ask.
fn left_alone(live: &Live, gateway: &Gateway) {
    wait_for("the cloud is left alone after failures in a row", || {
        own(live, gateway, 0);
        outcome(gateway, "unreachable") > 0
    });
}

#[test]
fn a_cloud_that_says_nothing_costs_the_deadline_and_no_more_requests_than_it_takes_to_know() {
    let live = Live::load();
    let fleet = Fleet::start();
    let door = Door::of(&fleet, Behind::Silence);
    let mut escalation = escalation(&door, Threshold::EVERYTHING);
    escalation.cloud.deadline_millis = 50;
    let gateway = asking(&fleet, &escalation, "Any");
    left_alone(&live, &gateway);
    assert!(outcome(&gateway, "failed") >= 5);
    assert!(gateway.log().contains("no answer within 50 ms"));
}

#[test]
fn a_budget_of_nothing_sends_nothing_and_what_was_spent_stays_spent_over_restarts() {
    let live = Live::load();
    let fleet = Fleet::start();
    let (_theirs, above) = cloud();
    let door = Door::of(&fleet, Behind::Gateway(above.address()));
    let mut escalation = escalation(&door, Threshold::EVERYTHING);
    escalation.limits.budget.bytes_per_day = 0;
    let mut gateway = asking(&fleet, &escalation, "Any");
    (0..3).for_each(|n| own(&live, &gateway, n));
    assert_eq!((door.opened(), outcome(&gateway, "over_bytes") >= 3), (0, true));

    // A change of the assignment acts without a restart. So many bytes are a few requests.
    escalation.limits.budget.bytes_per_day = 200_000;
    fleet.escalates(&fleet.digits("1.0.0", 1), &escalation);
    wait_for("the cloud answers", || gateway.image(live.image(0)).by() == "cloud");
    wait_for("the budget is used up", || gateway.image(live.image(0)).by() != "cloud");
    let spent = metric(&gateway, "ballast_escalation_bytes_total{deployment=\"digits\"}");
    assert!((1..=200_000).contains(&spent), "{spent}");
    gateway.kill();
    gateway.start(&["--set", "privacy=Any"]);
    wait_for("1.0.0 answers", || gateway.image(&[0; 256]).status == 200);
    (0..3).for_each(|n| own(&live, &gateway, n));
    // The minute that was running counts as used up; in the next one it is the bytes that are missing.
    wait_for("the budget is still used up", || {
        own(&live, &gateway, 0);
        outcome(&gateway, "over_bytes") > 0
    });
    let bytes = metric(&gateway, "ballast_escalation_bytes_total{deployment=\"digits\"}");
    assert_eq!(bytes, 0, "nothing since the start");
}

#[test]
fn an_output_without_a_confidence_is_said_once_and_asks_nobody() {
    let live = Live::load();
    let fleet = Fleet::start();
    let door = Door::of(&fleet, Behind::Silence);
    let mut escalation = escalation(&door, Threshold::EVERYTHING);
    escalation.confidence.output = "labels".to_owned();
    let gateway = asking(&fleet, &escalation, "Any");
    for n in 0..5 {
        own(&live, &gateway, n);
        let reply = gateway.image(live.image(n));
        assert!(reply.json()["parameters"]["ballast_confidence"].is_null());
    }
    assert!(outcome(&gateway, "unreadable") >= 10);
    assert_eq!((door.opened(), gateway.log().matches("there is no output").count()), (0, 1));
}
