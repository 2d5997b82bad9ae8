//! The load generator. It knows addresses, images and right answers; it knows nothing of rollouts.
//!
//! One thread and one keep-alive connection per gateway: the next image goes out when the last answer is judged, at
//! most `per_second` of them, so that the figures are about Ballast and not about how two cores share themselves out.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Answer, Connection};
use super::traffic::Traffic;

/// Problems that are kept word by word.
const MAX_PROBLEMS: usize = 20;
/// One request in so many is plain JSON; the others use the binary extension.
const JSON_EVERY: usize = 8;

/// Requests and what became of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sent.
    pub requests: u64,
    /// No answer, or 5xx.
    pub lost: u64,
    /// 429 or 4xx.
    pub refused: u64,
    /// Differs from the independently computed answer of the release that answered.
    pub wrong: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            requests: self.requests + other.requests,
            lost: self.lost + other.lost,
            refused: self.refused + other.refused,
            wrong: self.wrong + other.wrong,
        }
    }
}

/// What one gateway did.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// Its requests.
    pub counts: Counts,
    /// Release → right answers by it.
    pub answered: BTreeMap<String, u64>,
    /// Release of the newest answer.
    pub newest: String,
    /// Answered by the fallback for a candidate that failed.
    pub by_fallback: u64,
}

/// Faults that prove that the demo can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// One answer never arrives.
    DropAnswer,
    /// One bit of one answer's scores flips.
    FlipOutput,
}

/// The running load generator; ends when dropped.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    traffic: Traffic,
    interval: Duration,
    patience: Duration,
    stop: AtomicBool,
    /// 0 none, 1 drop, 2 flip; taken by the first worker that sees it.
    fault: AtomicU8,
    started: Instant,
    gateways: Vec<Mutex<Seen>>,
    problems: Mutex<Vec<String>>,
}

impl Load {
    /// Sends to every gateway at once. No answer within `patience` is a lost one.
    pub fn start(traffic: Traffic, gateways: &[SocketAddr], per_second: u32, patience: Duration) -> Self {
        let shared = Arc::new(Shared {
            traffic,
            interval: Duration::from_secs(1) / per_second.max(1),
            patience,
            stop: AtomicBool::new(false),
            fault: AtomicU8::new(0),
            started: Instant::now(),
            gateways: gateways.iter().map(|_| Mutex::default()).collect(),
            problems: Mutex::default(),
        });
        let workers = gateways
            .iter()
            .enumerate()
            .map(|(index, address)| {
                let (shared, address) = (Arc::clone(&shared), *address);
                std::thread::spawn(move || shared.work(index, address))
            })
            .collect();
        Self { shared, workers }
    }

    /// Per gateway.
    pub fn seen(&self) -> Vec<Seen> {
        self.shared.gateways.iter().map(|g| g.lock().unwrap_or_else(PoisonError::into_inner).clone()).collect()
    }

    /// Of all gateways.
    pub fn counts(&self) -> Counts {
        self.seen().iter().fold(Counts::default(), |sum, seen| sum + seen.counts)
    }

    /// Gateways that answered at least one live request with `version`.
    pub fn reached(&self, version: &str) -> usize {
        self.seen().iter().filter(|s| s.answered.get(version).is_some_and(|n| *n > 0)).count()
    }

    /// The first problems, word by word.
    pub fn problems(&self) -> Vec<String> {
        self.shared.problems.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes one answer go astray.
    pub fn inject(&self, fault: Fault) {
        self.shared.fault.store(if fault == Fault::DropAnswer { 1 } else { 2 }, Ordering::SeqCst);
    }

    /// Stops sending; answers in flight are still counted.
    pub fn stop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            // A worker that panicked has lost its requests' answers; that must not pass silently.
            if worker.join().is_err() {
                self.shared.record(0, |s| s.counts.lost += 1);
                self.shared.problem(0, "lost", "the load generator itself failed");
            }
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work(&self, gateway: usize, address: SocketAddr) {
        let mut connection = Connection::new(address, self.patience);
        let path = format!("/v2/models/{}/infer", self.traffic.model);
        // Gateways start at different images.
        let mut n = gateway * 7;
        let mut next = Instant::now();
        while !self.stop.load(Ordering::SeqCst) {
            let index = n % self.traffic.count();
            let json = n.is_multiple_of(JSON_EVERY).then(|| self.traffic.json(index)).flatten();
            let answer = match json {
                Some(body) => connection.post(&path, None, &body),
                None => {
                    let (body, length) = self.traffic.binary(index);
                    connection.post(&path, Some(length), &body)
                }
            };
            self.count(gateway, index, self.tampered(answer));
            n += 1;
            next += self.interval;
            let now = Instant::now();
            match next.checked_duration_since(now) {
                Some(wait) => std::thread::sleep(wait),
                // Behind: go on from here, without a burst to make up for it.
                None => next = now,
            }
        }
    }

    fn tampered(&self, answer: std::io::Result<Answer>) -> std::io::Result<Answer> {
        let Ok(mut answer) = answer else { return answer };
        match self.fault.load(Ordering::SeqCst) {
            1 if self.take_fault(1) => Err(std::io::Error::other("dropped on purpose")),
            // The exponent of the last score: only where scores are raw bytes.
            2 if answer.json_length.is_some() && self.take_fault(2) => {
                if let Some(byte) = answer.body.last_mut() {
                    *byte ^= 0x40;
                }
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    fn take_fault(&self, fault: u8) -> bool {
        self.fault.compare_exchange(fault, 0, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn count(&self, gateway: usize, index: usize, answer: std::io::Result<Answer>) {
        self.record(gateway, |s| s.counts.requests += 1);
        match answer {
            Err(error) => {
                self.record(gateway, |s| s.counts.lost += 1);
                self.problem(gateway, "lost", &error.to_string());
            }
            Ok(answer) if answer.status == 200 => match self.traffic.judge(index, &answer) {
                Ok(right) => self.record(gateway, |s| {
                    *s.answered.entry(right.version.clone()).or_default() += 1;
                    s.by_fallback += u64::from(right.by_fallback);
                    s.newest = right.version;
                }),
                Err(error) => {
                    self.record(gateway, |s| s.counts.wrong += 1);
                    self.problem(gateway, "wrong", &format!("{error:#}"));
                }
            },
            Ok(answer) => {
                let (refused, word) =
                    ((400..500).contains(&answer.status), if answer.status < 500 { "refused" } else { "lost" });
                self.record(gateway, |s| if refused { s.counts.refused += 1 } else { s.counts.lost += 1 });
                let text = String::from_utf8_lossy(&answer.body).chars().take(300).collect::<String>();
                self.problem(gateway, word, &format!("{}: {text}", answer.status));
            }
        }
    }

    fn record(&self, gateway: usize, change: impl FnOnce(&mut Seen)) {
        if let Some(seen) = self.gateways.get(gateway) {
            change(&mut seen.lock().unwrap_or_else(PoisonError::into_inner));
        }
    }

    fn problem(&self, gateway: usize, word: &str, text: &str) {
        let mut problems = self.problems.lock().unwrap_or_else(PoisonError::into_inner);
        if problems.len() < MAX_PROBLEMS {
            problems.push(format!(
                "{:.1} s into the traffic, gateway {}: {word}: {text}",
                self.started.elapsed().as_secs_f64(),
                gateway + 1
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::net::{TcpListener, TcpStream};

    use super::super::fleet::reserve_port;
    use super::super::traffic::tests::right;
    use super::*;

    const PATIENCE: Duration = Duration::from_secs(5);

    /// A gateway that answers right, but for what `spoil` makes of the n-th answer.
    fn gateway(spoil: impl Fn(usize, Answer) -> Option<Answer> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let traffic = Traffic::digits("digits").unwrap();
            let mut n = 0;
            for stream in listener.incoming().flatten() {
                let mut stream = BufReader::new(stream);
                while let Some((index, binary)) = request(&mut stream) {
                    n += 1;
                    match spoil(n, right(&traffic, "1.0.0", index, binary)) {
                        Some(answer) => write(stream.get_mut(), &answer),
                        None => break,
                    }
                }
            }
        });
        address
    }

    fn request(stream: &mut BufReader<TcpStream>) -> Option<(usize, bool)> {
        let (mut length, mut json) = (0, None);
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let line = line.trim();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = value.parse().ok()?;
            }
            if let Some(value) = line.strip_prefix("inference-header-content-length: ") {
                json = value.parse::<usize>().ok();
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).ok()?;
        let head: serde_json::Value = serde_json::from_slice(&body[..json.unwrap_or(length)]).ok()?;
        Some((head["id"].as_str()?.parse().ok()?, json.is_some()))
    }

    fn write(stream: &mut TcpStream, answer: &Answer) {
        let json = answer.json_length.map(|n| format!("inference-header-content-length: {n}\r\n")).unwrap_or_default();
        let head = format!("HTTP/1.1 {} X\r\ncontent-length: {}\r\n{json}\r\n", answer.status, answer.body.len());
        let _ = stream.write_all(&[head.as_bytes(), &answer.body].concat());
    }

    fn until(load: &Load, requests: u64) {
        for _ in 0..3000 {
            if load.counts().requests >= requests {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{requests} requests did not happen: {:?} {:?}", load.counts(), load.problems());
    }

    fn traffic() -> Traffic {
        Traffic::digits("digits").unwrap()
    }

    #[test]
    fn right_answers_count_as_nothing_else() {
        let gateways = [gateway(|_, a| Some(a)), gateway(|_, a| Some(a))];
        let mut load = Load::start(traffic(), &gateways, 5000, PATIENCE);
        until(&load, 500);
        load.stop();
        let counts = load.counts();
        assert_eq!((counts.lost, counts.refused, counts.wrong), (0, 0, 0), "{:?}", load.problems());
        assert_eq!(load.reached("1.0.0"), 2);
        assert_eq!(load.reached("2.0.0"), 0);
        assert_eq!(load.seen().iter().map(|s| s.answered["1.0.0"]).sum::<u64>(), counts.requests);
    }

    #[test]
    fn every_kind_of_bad_answer_is_counted_as_what_it_is() {
        let address = gateway(|n, mut answer| {
            match n {
                10 => answer.status = 500,
                20 => answer.status = 503,
                30 => answer.status = 429,
                40 => answer.status = 400,
                50 => return None,
                60 => *answer.body.last_mut().unwrap() ^= 0x40,
                70 => answer.body = b"{}".to_vec(),
                _ => {}
            }
            Some(answer)
        });
        let mut load = Load::start(traffic(), &[address], 5000, PATIENCE);
        until(&load, 100);
        load.stop();
        let counts = load.counts();
        assert_eq!((counts.lost, counts.refused, counts.wrong), (3, 2, 2), "{:?}", load.problems());
        assert_eq!(load.problems().len(), 7);
    }

    #[test]
    fn injected_faults_show() {
        for (fault, want) in [(Fault::DropAnswer, (1, 0)), (Fault::FlipOutput, (0, 1))] {
            let mut load = Load::start(traffic(), &[gateway(|_, a| Some(a))], 5000, PATIENCE);
            load.inject(fault);
            until(&load, 50);
            load.stop();
            assert_eq!((load.counts().lost, load.counts().wrong), want, "{fault:?} {:?}", load.problems());
        }
    }

    #[test]
    fn nobody_there_is_lost() {
        let (_nobody_listens, free) = reserve_port().unwrap();
        let mut load = Load::start(traffic(), &[free], 1000, PATIENCE);
        until(&load, 3);
        load.stop();
        assert_eq!(load.counts().lost, load.counts().requests);
    }
}
