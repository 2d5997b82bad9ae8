//! A server with a controller that does what the test says.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ballast_bundle::protocol::{EnrollRequest, Facts, Identity, ReleaseReport, SyncRequest};
use ballast_bundle::{Assignment, Digest, Envelope, EnvelopeSignature, GatewayId, NamespaceUid, Pointer, UnixMillis};
use ballast_fleet::ca::Authority;
use ballast_fleet::registry::Registry;
use ballast_fleet::store::{GatewayRow, GatewayStore, RedbStore, StoredReport};
use ballast_fleet::token::{Token, TokenRecord, hash};
use ballast_fleet::{BoxFuture, Dispatch, Dispatched, Documents, Fleet, FleetServer, Limits, PointerSigner, Wish, now};
use base64::Engine as _;
use tokio::sync::watch;

use crate::client::{Connection, Key};

/// What the controller would decide.
#[derive(Default)]
pub struct Decisions {
    pub assignments: Mutex<HashMap<NamespaceUid, Assignment>>,
    pub wishes: Mutex<HashMap<GatewayId, Wish>>,
}

impl Dispatch for Decisions {
    fn dispatch<'a>(
        &'a self,
        gateway: &'a GatewayRow,
        _: &'a [StoredReport],
        _: UnixMillis,
    ) -> BoxFuture<'a, Dispatched> {
        let assignment = self.assignments.lock().unwrap().get(&gateway.namespace).cloned();
        let target = assignment.as_ref().map(|a| a.target.clone());
        Box::pin(async move { Dispatched { target, assignment, wait: Duration::from_secs(1) } })
    }

    fn accepts(&self, _: &GatewayRow, report: &ReleaseReport) -> bool {
        report.deployment.name == "digits"
    }

    fn wish(&self, _: &NamespaceUid, gateway: &GatewayId) -> Option<Wish> {
        self.wishes.lock().unwrap().get(gateway).cloned()
    }
}

/// Signatures are other rooms' matter; here an envelope only carries its payload.
pub struct Unsigned;

pub fn envelope(payload: &[u8]) -> Envelope {
    Envelope {
        payload: base64::engine::general_purpose::STANDARD.encode(payload),
        payload_type: "test".into(),
        signatures: vec![EnvelopeSignature { keyid: String::new(), sig: String::new() }],
    }
}

pub fn open(envelope: &Envelope) -> Pointer {
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(&envelope.payload).unwrap()).unwrap()
}

impl PointerSigner for Unsigned {
    fn sign(&self, pointer: &Pointer) -> Envelope {
        envelope(&serde_json::to_vec(pointer).unwrap())
    }

    fn epoch(&self) -> u32 {
        1
    }

    fn root_version(&self) -> u64 {
        1
    }

    fn root(&self, version: u64) -> Option<Envelope> {
        (version == 1).then(|| envelope(b"root"))
    }
}

pub struct Server {
    pub address: SocketAddr,
    pub authority: Arc<Authority>,
    pub store: Arc<RedbStore>,
    pub registry: Arc<Registry>,
    pub decisions: Arc<Decisions>,
    pub fleet: Arc<Fleet>,
    pub stop: watch::Sender<bool>,
    pub _directory: tempfile::TempDir,
}

impl Server {
    pub async fn start() -> Self {
        Self::with(Limits::default()).await
    }

    pub async fn with(limits: Limits) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (key, certificate) = Authority::generate(&"plant".parse().unwrap(), now()).unwrap();
        let authority = Arc::new(Authority::from_pem("plant".parse().unwrap(), &key, &certificate).unwrap());
        Self::again(directory, authority, limits).await
    }

    pub async fn again(directory: tempfile::TempDir, authority: Arc<Authority>, limits: Limits) -> Self {
        let store = Arc::new(RedbStore::open(&directory.path().join("gateways.redb"), now()).unwrap());
        let registry = Arc::new(Registry::open(&directory.path().join("registry")).unwrap());
        let documents = Arc::new(Documents::open(&directory.path().join("assignments")).unwrap());
        let decisions = Arc::new(Decisions::default());
        let fleet = Fleet::new(
            Arc::clone(&authority),
            store.clone(),
            decisions.clone(),
            Arc::new(Unsigned),
            Arc::clone(&registry),
            documents,
            limits,
        );
        let server = FleetServer::bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = server.address();
        let (stop, stopped) = watch::channel(false);
        let serving = server.serve(Arc::clone(&fleet), vec!["localhost".into(), "127.0.0.1".into()], stopped);
        tokio::spawn(async move { serving.await.unwrap() });
        Self { address, authority, store, registry, decisions, fleet, stop, _directory: directory }
    }

    pub async fn token(&self, name: &str, namespace: &str, change: impl FnOnce(&mut TokenRecord)) -> String {
        let token = Token::new(format!("https://{}", self.address), self.authority.digest()).unwrap();
        let mut record = TokenRecord {
            hash: hash(&token.secret),
            name: name.into(),
            namespace: namespace.parse().unwrap(),
            labels: [("line".to_owned(), "bottling".to_owned())].into(),
            uses: 1,
            used: 0,
            expires: UnixMillis(now().0 + 60_000),
            allow_replace: false,
        };
        change(&mut record);
        self.store.put_token(record).await.unwrap();
        token.secret
    }

    pub async fn anonymous(&self) -> Connection {
        Connection::open(self.address, self.authority.certificate_pem(), None).await.unwrap()
    }

    pub async fn connect(&self, identity: &Identity, key: &Key) -> Connection {
        let identity = Some((identity.certificate.as_str(), key));
        Connection::open(self.address, self.authority.certificate_pem(), identity).await.unwrap()
    }

    pub async fn enrolled(&self, namespace: &str) -> (Identity, Key) {
        let secret = self.token(&format!("t-{namespace}"), namespace, |t| t.uses = 1).await;
        let key = Key::new();
        let identity = self.anonymous().await.post("/v1/enroll", &enrolment(&secret, &key, None)).await.json();
        (identity, key)
    }
}

pub fn enrolment(secret: &str, key: &Key, name: Option<&str>) -> EnrollRequest {
    EnrollRequest {
        token: secret.into(),
        csr: key.csr(),
        display_name: name.map(Into::into),
        facts: Facts { arch: "x86_64".into(), ..Facts::default() },
    }
}

pub fn facts() -> Facts {
    Facts { arch: "x86_64".into(), os: "linux".into(), memory_bytes: 1 << 30, ..Facts::default() }
}

pub fn sync_request() -> SyncRequest {
    SyncRequest {
        facts_digest: Digest::of(&serde_json::to_vec(&facts()).unwrap()),
        facts: Some(facts()),
        root_version: 1,
        assignment: None,
        reports: Vec::new(),
    }
}

pub fn assignment(namespace: &str) -> Assignment {
    Assignment {
        format: 1,
        namespace: namespace.parse().unwrap(),
        target: "x86-64".parse().unwrap(),
        runner: None,
        deployments: Vec::new(),
    }
}
