//! The TLS listener: accepts, bounds and closes connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::Request;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tower::util::MapRequestLayer;
use tower::{Layer, ServiceExt as _};

use crate::api::{self, Caller};
use crate::ca::{self, Authority};
use crate::connections::Connections;
use crate::dispatch::{Dispatch, PointerSigner};
use crate::documents::Documents;
use crate::pulls::Pulls;
use crate::registry::Registry;
use crate::store::GatewayStore;
use crate::tls::{self, TlsError};
use crate::watched::Watched;

/// From the first byte to the end of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// For a request's head; also how long a connection may idle between two requests.
const HEAD: Duration = Duration::from_secs(30);
/// After the signal to stop, requests in flight get so long.
const DRAIN: Duration = Duration::from_secs(5);

/// Bounds of one server, and lives of what it issues.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at once; more wait in the kernel's backlog. 25 KiB each.
    pub connections: usize,
    /// Requests at once; more are refused with Retry-After.
    pub requests: usize,
    /// Enrolments at once; they cost a signature and come from strangers.
    pub enrolments: usize,
    /// Pulls at once.
    pub pulls: usize,
    /// Of those, by one gateway. One pulls blob after blob; the rest is for pulls that its network dropped and that are not cut
    /// yet.
    pub pulls_per_gateway: usize,
    /// Of gateways' certificates.
    pub certificate_life: Duration,
    /// Of pointers.
    pub pointer_life: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 8192,
            requests: 1024,
            enrolments: 32,
            pulls: 256,
            pulls_per_gateway: 8,
            certificate_life: ca::GATEWAY_LIFE,
            pointer_life: Duration::from_hours(24 * 7),
        }
    }
}

/// All that the handlers need.
pub struct Fleet {
    pub(crate) authority: Arc<Authority>,
    pub(crate) store: Arc<dyn GatewayStore>,
    pub(crate) dispatch: Arc<dyn Dispatch>,
    pub(crate) signer: Arc<dyn PointerSigner>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) documents: Arc<Documents>,
    pub(crate) connections: Arc<Connections>,
    pub(crate) limits: Limits,
    pub(crate) requests: Arc<Semaphore>,
    pub(crate) enrolments: Semaphore,
    pub(crate) pulls: Arc<Pulls>,
}

impl Fleet {
    /// Puts the parts together.
    pub fn new(
        authority: Arc<Authority>,
        store: Arc<dyn GatewayStore>,
        dispatch: Arc<dyn Dispatch>,
        signer: Arc<dyn PointerSigner>,
        registry: Arc<Registry>,
        documents: Arc<Documents>,
        limits: Limits,
    ) -> Arc<Self> {
        Arc::new(Self {
            requests: Arc::new(Semaphore::new(limits.requests)),
            enrolments: Semaphore::new(limits.enrolments),
            pulls: Pulls::new(limits.pulls, limits.pulls_per_gateway),
            connections: Arc::default(),
            authority,
            store,
            dispatch,
            signer,
            registry,
            documents,
            limits,
        })
    }

    /// Open connections, to close those of a gateway that was taken out.
    pub fn connections(&self) -> &Arc<Connections> {
        &self.connections
    }

    /// 2 to 9 s, so that those who were refused together do not come back together.
    pub(crate) fn retry_after(&self) -> Duration {
        let mut random = [0];
        let _ = getrandom::fill(&mut random); // without randomness all wait 2 s
        Duration::from_secs(2 + u64::from(random[0] % 8))
    }
}

/// Why the server does not serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Port in use, no such address, not allowed.
    #[error("cannot listen on {address} (is another operator running? --listen takes another port)")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Certificates.
    #[error(transparent)]
    Tls(#[from] TlsErrorOpaque),
}

/// Why TLS could not be set up.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct TlsErrorOpaque(#[from] TlsError);

/// A bound server that does not accept yet: its port is known, so that endpoint and root can name it.
pub struct FleetServer {
    listener: TcpListener,
    address: SocketAddr,
}

impl FleetServer {
    /// Binds; port 0 takes a free one.
    pub async fn bind(address: SocketAddr) -> Result<Self, ServeError> {
        let listen = |source| ServeError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` turns true, then lets requests in flight end. `hosts` are the names and addresses in the
    /// server's certificate.
    pub async fn serve(
        self,
        fleet: Arc<Fleet>,
        hosts: Vec<String>,
        mut stop: watch::Receiver<bool>,
    ) -> Result<(), ServeError> {
        let (config, certificate) =
            tls::server_config(&fleet.authority, &hosts, crate::now()).map_err(TlsErrorOpaque)?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let router = api::router(Arc::clone(&fleet));
        let slots = Arc::new(Semaphore::new(fleet.limits.connections));
        let mut renewal = tokio::time::interval(ca::SERVER_LIFE * 2 / 3);
        renewal.tick().await; // the first tick is now
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            let slot = tokio::select! {
                slot = Arc::clone(&slots).acquire_owned() => slot,
                () = crate::stopped(&mut stop) => break,
            };
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = crate::stopped(&mut stop) => break,
                _ = renewal.tick() => {
                    if let Err(e) = certificate.renew(&fleet.authority, crate::now()) {
                        tracing::error!(error = %e, "the server's certificate could not be renewed");
                    }
                    continue;
                }
            };
            while tasks.try_join_next().is_some() {}
            match accepted {
                Ok((stream, _)) => {
                    let work = connection(Arc::clone(&fleet), acceptor.clone(), router.clone(), stream, stop.clone());
                    tasks.spawn(async move {
                        work.await;
                        drop(slot);
                    });
                }
                Err(e) => {
                    // Out of descriptors: waiting is all that helps, and spinning is what must not happen.
                    tracing::warn!(error = %e, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(self.listener);
        let drained = async { while tasks.join_next().await.is_some() {} };
        drop(tokio::time::timeout(DRAIN, drained).await); // what is left is dropped with the set
        Ok(())
    }
}

async fn connection(
    fleet: Arc<Fleet>,
    acceptor: TlsAcceptor,
    router: axum::Router,
    stream: TcpStream,
    mut stop: watch::Receiver<bool>,
) {
    drop(stream.set_nodelay(true)); // slower, not wrong, without
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(Watched::new(stream))).await else {
        return; // scanners and strangers; nothing to say to them
    };
    let peer = match stream.get_ref().1.peer_certificates().and_then(<[_]>::first).map(ca::peer) {
        None => None,
        Some(Ok(peer)) => Some(Arc::new(peer)),
        Some(Err(e)) => {
            tracing::warn!(error = %e, "a certificate of our own CA is not a gateway's");
            return;
        }
    };
    let guard = peer.as_ref().map(|p| fleet.connections.open(p.gateway.clone()));
    let caller = Caller(peer);
    let service = MapRequestLayer::new(move |mut request: Request<hyper::body::Incoming>| {
        request.extensions_mut().insert(caller.clone());
        request.map(axum::body::Body::new)
    })
    .layer(router.into_service::<axum::body::Body>().boxed_clone());
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(64)
            .max_buf_size(64 << 10)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service))
    );
    let closed = async {
        match &guard {
            Some(guard) => guard.closed().await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(closed);
    tokio::select! {
        _ = connection.as_mut() => {}
        () = &mut closed => {}
        () = crate::stopped(&mut stop) => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                _ = connection => {}
                () = closed => {}
            }
        }
    }
}
