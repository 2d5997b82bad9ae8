//! A fleet's server for one test: enrols, signs, serves documents and blobs, and fails where it is told to.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll};

use ballast_bundle::protocol::{
    EnrollRequest, Identity, ReleaseReport, ReleaseState, RenewRequest, SyncRequest, SyncResponse,
};
use ballast_bundle::{
    AssignedDeployment, Assignment, Audience, Blob, Counter, DeploymentRef, Digest, Envelope, Escalation, Pointer,
    ReleaseLayers, ReleaseNumber, ReleaseRef, ReleaseStatement, Role, RoleKeys, RunnerRef, RunnerStatement, SigningKey,
    TrialPolicy, TrustRoot, UnixMillis, sign_pointer, sign_release, sign_root, sign_runner,
};
use ballast_compiler::Artifacts;
use ballast_sandbox::EngineProfile;
use base64::Engine as _;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertificateSigningRequestParams, IsCa, Issuer, KeyPair};

use crate::models;

pub(crate) const NAMESPACE: &str = "ns-1";
pub(crate) const DAY_MILLIS: i64 = 24 * 3600 * 1000;

/// A running server. Stops with the test.
pub(crate) struct Fleet {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

struct Shared {
    issuer: Issuer<'static, KeyPair>,
    ca: rcgen::Certificate,
    keys: BTreeMap<Role, SigningKey>,
    state: Mutex<State>,
}

/// What a test looks at and changes.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) roots: Vec<Envelope>,
    pub(crate) assignment: Option<Vec<u8>>,
    pub(crate) sequence: u64,
    pub(crate) blobs: BTreeMap<Digest, Vec<u8>>,
    /// Every report, in order.
    pub(crate) reports: Vec<ReleaseReport>,
    pub(crate) syncs: u64,
    pub(crate) requests: Vec<(String, Option<String>)>,
    /// Pointers are as old as this, and were good for seven days.
    pub(crate) pointer_age_millis: i64,
    /// Of pointers and of the next trust root, less one.
    pub(crate) raised: u32,
    /// The next trust root has other keys for releases and runners.
    pub(crate) exchanged: bool,
    /// Certificates given out from now on have this much of an hour behind them; otherwise they end in two thousand years.
    pub(crate) certificate_minutes: Option<u64>,
    pub(crate) renewals: u64,
    /// The token's refusal.
    pub(crate) refuse_token: Option<String>,
    /// Blobs larger than this are cut off after so many bytes a connection.
    pub(crate) cut_after: Option<usize>,
    /// Served instead of the real content.
    pub(crate) tampered: BTreeSet<Digest>,
    pub(crate) facts: Option<ballast_bundle::protocol::Facts>,
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) fn blob(bytes: &[u8]) -> Blob {
    Blob { digest: Digest::of(bytes), size: bytes.len() as u64 }
}

pub(crate) fn deployment() -> DeploymentRef {
    DeploymentRef { namespace: NAMESPACE.parse().unwrap(), name: "digits".to_owned() }
}

/// A key that the first trust root does not name.
pub(crate) fn stranger(role: Role) -> SigningKey {
    SigningKey::generate([100 + role as u8; 32]).unwrap()
}

/// Short, so that tests are.
pub(crate) fn trial() -> TrialPolicy {
    TrialPolicy { min_duration_millis: 300, min_requests: 3, max_failures: 0 }
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = params.self_signed(&key).unwrap();
        let issuer = Issuer::new(params, key);
        let roles = [Role::Root, Role::Runtime, Role::Release, Role::Assignment];
        let keys: BTreeMap<_, _> =
            roles.into_iter().zip(1u8..).map(|(role, n)| (role, SigningKey::generate([n; 32]).unwrap())).collect();
        let shared = Arc::new(Shared { issuer, ca, keys, state: Mutex::new(State::default()) });
        let root = shared.root(1);
        let envelope = sign_root(&root, &[&shared.keys[&Role::Root]]);
        shared.state().roots.push(envelope);
        let mut fleet = Self { address: ([127, 0, 0, 1], 0).into(), shared, stop: None, thread: None };
        fleet.up();
        fleet
    }

    /// TLS of a server in this fleet; whether it talks to gateways without a certificate, too.
    pub(crate) fn acceptor(&self, strangers: bool) -> tokio_rustls::TlsAcceptor {
        let server_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&server_key, &self.shared.issuer).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.shared.ca.der().clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots));
        let verifier = if strangers { verifier.allow_unauthenticated() } else { verifier };
        let chain = vec![certificate.der().clone(), self.shared.ca.der().clone()];
        let config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(chain, rustls_pki_types::PrivateKeyDer::try_from(server_key.serialize_der()).unwrap())
            .unwrap();
        tokio_rustls::TlsAcceptor::from(Arc::new(config))
    }

    /// Listens (again, on the same port).
    pub(crate) fn up(&mut self) {
        let acceptor = self.acceptor(true);
        let listener = std::net::TcpListener::bind(self.address).unwrap();
        listener.set_nonblocking(true).unwrap();
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    () = accept(listener, acceptor, shared) => {}
                    _ = stopped => {}
                }
            });
        });
        (self.stop, self.thread) = (Some(stop), Some(thread));
    }

    /// Gone: connections are refused.
    pub(crate) fn down(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state()
    }

    pub(crate) fn token(&self) -> String {
        let json = serde_json::json!({
            "endpoint": format!("https://{}", self.address),
            "caSha256": Digest::of(self.shared.ca.der()),
            "secret": "let me in",
        });
        format!("ballast-token-v1.{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json.to_string()))
    }

    pub(crate) fn put(&self, bytes: Vec<u8>) -> Blob {
        let blob = blob(&bytes);
        self.state().blobs.insert(blob.digest, bytes);
        blob
    }

    /// Signs a bundle.
    pub(crate) fn release(&self, artifacts: &Artifacts, version: &str, counter: u64) -> ReleaseRef {
        self.release_of(&deployment(), artifacts, version, counter, &self.shared.keys[&Role::Release])
    }

    /// Signs a bundle for a deployment, with a key.
    pub(crate) fn release_of(
        &self,
        deployment: &DeploymentRef,
        artifacts: &Artifacts,
        version: &str,
        counter: u64,
        key: &SigningKey,
    ) -> ReleaseRef {
        let layers = ReleaseLayers {
            weights: self.put(artifacts.weights.clone()),
            plan: self.put(artifacts.plan.clone()),
            contract: self.put(artifacts.contract.clone()),
            golden: self.put(artifacts.golden.clone()),
        };
        let manifest = self.put(serde_json::to_vec(&layers).unwrap());
        let number = ReleaseNumber { epoch: 1, counter: Counter(counter) };
        let statement = ReleaseStatement {
            deployment: deployment.clone(),
            version: version.to_owned(),
            number,
            target: models::TARGET.parse().unwrap(),
            abi: 1 << 16,
            compiler: ballast_compiler::COMPILER_VERSION,
            manifest: manifest.clone(),
            layers,
        };
        let statement = self.put(sign_release(&statement, key));
        ReleaseRef {
            version: version.to_owned(),
            number,
            repository: format!("{NAMESPACE}/digits"),
            manifest,
            statement,
        }
    }

    pub(crate) fn key(&self, role: Role) -> &SigningKey {
        &self.shared.keys[&role]
    }

    pub(crate) fn digits(&self, version: &str, counter: u64) -> ReleaseRef {
        self.release(&models::digits(version), version, counter)
    }

    /// The runner's reference, signed by the role that is given.
    pub(crate) fn runner_signed_by(&self, role: Role) -> RunnerRef {
        let (profile, code) = models::runner();
        self.runner(profile, code, Digest::of(ballast_aot::RUNNER_WASM), 1, self.key(role))
    }

    /// A runner's reference.
    pub(crate) fn runner(
        &self,
        profile: &EngineProfile,
        code: &[u8],
        wasm: Digest,
        counter: u64,
        key: &SigningKey,
    ) -> RunnerRef {
        let module = self.put(code.to_vec());
        let statement = RunnerStatement {
            number: ReleaseNumber { epoch: 1, counter: Counter(counter) },
            target: models::TARGET.parse().unwrap(),
            triple: profile.triple.clone(),
            cpu_features: profile.cpu_features.clone(),
            profile: profile.hash(),
            engine: EngineProfile::engine_version().to_owned(),
            abi: 1 << 16,
            plan_majors: vec![1],
            wasm,
            module: module.clone(),
        };
        let statement = self.put(sign_runner(&statement, key));
        RunnerRef { repository: format!("{NAMESPACE}/runner"), module, statement }
    }

    /// What the gateway is told from now on.
    pub(crate) fn assign(&self, want: Option<&ReleaseRef>, stable: Option<&ReleaseRef>) {
        self.assign_with(want, stable, trial(), self.runner_signed_by(Role::Runtime));
    }

    pub(crate) fn assign_with(
        &self,
        want: Option<&ReleaseRef>,
        stable: Option<&ReleaseRef>,
        trial: TrialPolicy,
        runner: RunnerRef,
    ) {
        let deployments = vec![AssignedDeployment {
            deployment: deployment(),
            model: "digits".to_owned(),
            want: want.cloned(),
            stable: stable.cloned(),
            trial,
            escalation: None,
        }];
        self.assign_all(deployments, Some(runner));
    }

    /// 1.0.0 of digits, as this asks the cloud.
    pub(crate) fn escalates(&self, release: &ReleaseRef, escalation: &Escalation) {
        let deployments = vec![AssignedDeployment {
            deployment: deployment(),
            model: "digits".to_owned(),
            want: Some(release.clone()),
            stable: Some(release.clone()),
            trial: trial(),
            escalation: Some(escalation.clone()),
        }];
        self.assign_all(deployments, Some(self.runner_signed_by(Role::Runtime)));
    }

    pub(crate) fn assign_all(&self, deployments: Vec<AssignedDeployment>, runner: Option<RunnerRef>) {
        let assignment = Assignment {
            format: 1,
            namespace: NAMESPACE.parse().unwrap(),
            target: models::TARGET.parse().unwrap(),
            runner,
            deployments,
        };
        let mut state = self.state();
        state.assignment = Some(serde_json::to_vec(&assignment).unwrap());
        state.sequence += 1;
    }

    /// The newest report of a version.
    pub(crate) fn report(&self, version: &str) -> Option<ReleaseReport> {
        self.state().reports.iter().rev().find(|r| r.version == version).cloned()
    }

    pub(crate) fn is(&self, version: &str, state: ReleaseState) -> bool {
        self.report(version).is_some_and(|r| r.state == state)
    }

    /// The next trust root, signed as it must be.
    pub(crate) fn next_root(&self) {
        let version = self.state().roots.len() as u64 + 1;
        let envelope = sign_root(&self.shared.root(version), &[&self.shared.keys[&Role::Root]]);
        self.state().roots.push(envelope);
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.down();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn root(&self, version: u64) -> TrustRoot {
        let role = |key: &SigningKey| RoleKeys {
            keys: BTreeMap::from([(key.public().key_id(), key.public().to_pem())]),
            threshold: 1,
        };
        let all = self.state().exchanged;
        let exchanged = |role: &Role| all && matches!(role, Role::Release | Role::Runtime);
        TrustRoot {
            format: 1,
            fleet: "fleet-1".parse().unwrap(),
            version,
            epoch: 1 + self.state().raised,
            minimum_compiler: 1,
            roles: self
                .keys
                .iter()
                .map(|(r, k)| (*r, if exchanged(r) { role(&stranger(*r)) } else { role(k) }))
                .collect(),
            ca: vec![self.ca.pem()],
            endpoints: Vec::new(),
            issued: UnixMillis(now()),
        }
    }

    fn enroll(&self, request: &EnrollRequest) -> Result<Identity, String> {
        let mut state = self.state();
        if request.token != "let me in" {
            return Err("there is no such token".to_owned());
        }
        if let Some(refusal) = &state.refuse_token {
            return Err(refusal.clone());
        }
        state.facts = Some(request.facts.clone());
        self.identity(&state, &request.csr)
    }

    fn renew(&self, request: &RenewRequest) -> Result<Identity, String> {
        let mut state = self.state();
        state.renewals += 1;
        state.certificate_minutes = None;
        self.identity(&state, &request.csr)
    }

    fn identity(&self, state: &State, csr: &str) -> Result<Identity, String> {
        let mut csr = CertificateSigningRequestParams::from_pem(csr).map_err(|e| e.to_string())?;
        if let Some(minutes) = state.certificate_minutes {
            let (now, minute) = (std::time::SystemTime::now(), std::time::Duration::from_secs(60));
            csr.params.not_before = (now - minute * u32::try_from(minutes).unwrap()).into();
            csr.params.not_after = (now + minute * u32::try_from(60 - minutes).unwrap()).into();
        }
        let certificate = csr.signed_by(&self.issuer).map_err(|e| e.to_string())?;
        Ok(Identity {
            gateway: "gw-1".parse().unwrap(),
            namespace: NAMESPACE.parse().unwrap(),
            certificate: format!("{}{}", certificate.pem(), self.ca.pem()),
            root: state.roots.last().unwrap().clone(),
        })
    }

    fn sync(&self, request: SyncRequest) -> SyncResponse {
        let mut state = self.state();
        state.syncs += 1;
        state.reports.extend(request.reports);
        if request.facts.is_some() {
            state.facts = request.facts;
        }
        let pointer = state.assignment.as_ref().map(|assignment| Pointer {
            format: 1,
            audience: Audience {
                fleet: "fleet-1".parse().unwrap(),
                namespace: NAMESPACE.parse().unwrap(),
                gateway: "gw-1".parse().unwrap(),
            },
            assignment: blob(assignment),
            epoch: 1 + state.raised,
            sequence: Counter(state.sequence),
            issued: UnixMillis(now().saturating_add_signed(-state.pointer_age_millis)),
            expires: UnixMillis(now().saturating_add_signed(7 * DAY_MILLIS - state.pointer_age_millis)),
        });
        SyncResponse {
            pointer: pointer.map(|p| sign_pointer(&p, &self.keys[&Role::Assignment])),
            target: Some(models::TARGET.parse().unwrap()),
            root_version: state.roots.len() as u64,
            wait_millis: 100,
            need_facts: false,
        }
    }
}

async fn accept(listener: tokio::net::TcpListener, acceptor: tokio_rustls::TlsAcceptor, shared: Arc<Shared>) {
    loop {
        let Ok((tcp, _)) = listener.accept().await else { continue };
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let Ok(tls) = acceptor.accept(tcp).await else { return };
            let trusted = tls.get_ref().1.peer_certificates().is_some();
            let service = hyper::service::service_fn(move |request| {
                let shared = Arc::clone(&shared);
                async move { Ok::<_, Infallible>(answer(&shared, trusted, request).await) }
            });
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(tls), service).await;
        });
    }
}

type Body = http_body_util::combinators::BoxBody<Bytes, std::io::Error>;

fn full(status: StatusCode, bytes: Vec<u8>) -> Response<Body> {
    let body = Full::new(Bytes::from(bytes)).map_err(|never| match never {}).boxed();
    Response::builder().status(status).body(body).unwrap()
}

fn refuse(status: StatusCode, message: &str) -> Response<Body> {
    full(status, serde_json::json!({"error": message}).to_string().into_bytes())
}

async fn answer(shared: &Shared, trusted: bool, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let range = request.headers().get("range").map(|v| v.to_str().unwrap().to_owned());
    shared.state().requests.push((path.clone(), range.clone()));
    let body = request.into_body().collect().await.map(|b| b.to_bytes()).unwrap_or_default();
    if !trusted && path != "/v1/enroll" {
        return refuse(StatusCode::UNAUTHORIZED, "present a certificate");
    }
    match path.as_str() {
        "/v1/enroll" => match shared.enroll(&serde_json::from_slice(&body).unwrap()) {
            Ok(identity) => full(StatusCode::OK, serde_json::to_vec(&identity).unwrap()),
            Err(message) => refuse(StatusCode::FORBIDDEN, &message),
        },
        "/v1/renew" => match shared.renew(&serde_json::from_slice(&body).unwrap()) {
            Ok(identity) => full(StatusCode::OK, serde_json::to_vec(&identity).unwrap()),
            Err(message) => refuse(StatusCode::FORBIDDEN, &message),
        },
        "/v1/sync" => {
            let response = shared.sync(serde_json::from_slice(&body).unwrap());
            full(StatusCode::OK, serde_json::to_vec(&response).unwrap())
        }
        path => {
            if let Some(version) = path.strip_prefix("/v1/roots/") {
                let version: usize = version.parse().unwrap();
                let root = serde_json::to_vec(&shared.state().roots[version - 1]).unwrap();
                return full(StatusCode::OK, root);
            }
            if path.starts_with("/v1/assignments/") {
                return full(StatusCode::OK, shared.state().assignment.clone().unwrap());
            }
            let digest: Option<Digest> = path.rsplit('/').next().and_then(|d| d.parse().ok());
            digest.map_or_else(|| refuse(StatusCode::NOT_FOUND, "no"), |digest| blob_answer(shared, digest, range))
        }
    }
}

fn blob_answer(shared: &Shared, digest: Digest, range: Option<String>) -> Response<Body> {
    let state = shared.state();
    let Some(mut bytes) = state.blobs.get(&digest).cloned() else {
        return refuse(StatusCode::NOT_FOUND, "there is no such blob");
    };
    if state.tampered.contains(&digest) {
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
    }
    let from = range.map_or(0, |r| r.trim_start_matches("bytes=").trim_end_matches('-').parse::<usize>().unwrap());
    let status = if from > 0 { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let rest = bytes.split_off(from);
    let cut = state.cut_after.filter(|cut| rest.len() > *cut);
    let Some(cut) = cut else { return full(status, rest) };
    let body = Cut { sent: Some(Bytes::copy_from_slice(&rest[..cut])), flushed: false }.boxed();
    Response::builder().status(status).header("content-length", rest.len()).body(body).unwrap()
}

/// A body that promises more than it sends.
struct Cut {
    sent: Option<Bytes>,
    flushed: bool,
}

impl hyper::body::Body for Cut {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        if let Some(bytes) = self.sent.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        if !std::mem::replace(&mut self.flushed, true) {
            // The bytes are on their way before the cable is pulled.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Some(Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the cable was pulled"))))
    }
}
