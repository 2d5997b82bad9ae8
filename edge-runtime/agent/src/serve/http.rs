//! The listener: hyper's HTTP/1.1 server, bounded in connections, sizes and time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};

use super::routes::{Service, error};

/// Heads and bodies that come slower than this are cut off.
const HEAD: Duration = Duration::from_secs(30);
const BODY: Duration = Duration::from_secs(30);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{address} is in use by another program; stop it, or choose another with --http ADDRESS:PORT")]
    InUse { address: String },
    #[error("cannot serve on {address}: {source}; choose another with --http ADDRESS:PORT")]
    Bind { address: String, source: io::Error },
}

/// Takes the address.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse { address: address.to_owned() },
        _ => ServeError::Bind { address: address.to_owned(), source },
    })
}

/// Serves until told to drain.
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    pub(crate) max_request: usize,
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
}

impl Server {
    /// Returns when every connection has ended, or the time for that is over.
    pub(crate) async fn run(self, listener: TcpListener, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            // The place comes first: who cannot be served waits in the kernel's queue, not in our memory.
            let place = tokio::select! {
                place = Arc::clone(&places).acquire_owned() => place,
                () = stopped(&mut stop) => break,
            };
            let Ok(place) = place else { break };
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                Ok((stream, peer)) => {
                    let connection =
                        connection(Arc::clone(&self.service), self.max_request, stream, peer, stop.clone());
                    tokio::spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Out of file descriptors, say: it passes, and spinning does not help.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        drop(listener);
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        if tokio::time::timeout(self.drain, places.acquire_many(all)).await.is_err() {
            tracing::warn!("some requests were still in flight when the time to drain was over");
        }
    }
}

/// Returns when it is time to drain.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    service: Arc<Service>,
    max_request: usize,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let respond = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(respond(&service, max_request, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), respond);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = stopped(&mut stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "connection ended");
    }
}

async fn respond(
    service: &Service,
    max: usize,
    request: Request<Incoming>,
) -> hyper::Response<http_body_util::Full<Bytes>> {
    let (head, body) = request.into_parts();
    let too_large = || {
        error(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the request is larger than {max} bytes (serve.max_request_bytes)"),
        )
    };
    let path = head.uri.path();
    let bytes = if Service::takes_body(&head.method, path) {
        if body.size_hint().lower() > max as u64 {
            return too_large();
        }
        match tokio::time::timeout(BODY, Limited::new(body, max).collect()).await {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(e)) if e.is::<LengthLimitError>() => return too_large(),
            Ok(Err(e)) => return error(StatusCode::BAD_REQUEST, &format!("the body was cut off: {e}")),
            Err(_) => return error(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time; send it at once"),
        }
    } else {
        Bytes::new()
    };
    service.answer(&head.method, path, &head.headers, bytes).await
}
