//! The listener: hyper's HTTP/1.1 server, bounded in connections, sizes and time.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::EXPECT;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::routes::{Reply, Service};

/// Heads and bodies that come slower than this are cut off.
const HEAD: Duration = Duration::from_secs(30);
/// While the gateway drains, a client that has connected and not yet asked is waited for so long.
const FIRST: Duration = Duration::from_secs(2);
/// What nobody wants is read all the same, up to this: a client that is still sending when the connection is closed gets a
/// reset in place of the answer that says what is wrong.
const UNWANTED: usize = 64 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("{address} is in use by another program; stop it, or choose another with --http ADDRESS:PORT")]
    InUse { address: String },
    #[error("cannot serve on {address}; choose another with --http ADDRESS:PORT")]
    Bind { address: String, source: io::Error },
}

/// Takes the address.
pub(crate) async fn bind(address: &str) -> Result<TcpListener, ServeError> {
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse { address: address.to_owned() },
        _ => ServeError::Bind { address: address.to_owned(), source },
    })
}

/// What a request's body may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes.
    pub(crate) size: usize,
    /// From its head to its last byte.
    pub(crate) time: Duration,
}

/// Serves until told to drain.
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    pub(crate) body: BodyLimits,
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
                Ok((stream, peer)) => self.serve(stream, peer, place, &stop),
                Err(error) => {
                    // Out of file descriptors, say: it passes, and spinning does not help.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let until = Instant::now() + self.drain;
        let all = u32::try_from(self.max_connections).unwrap_or(u32::MAX);
        let drained = async {
            self.accept_waiting(listener, &places, &stop).await;
            let _ = places.acquire_many(all).await;
        };
        if timeout_at(until, drained).await.is_err() {
            tracing::warn!("some requests were still in flight when the time to drain was over");
        }
    }

    fn serve(&self, stream: TcpStream, peer: SocketAddr, place: OwnedSemaphorePermit, stop: &watch::Receiver<bool>) {
        let connection = connection(Arc::clone(&self.service), self.body, stream, peer, stop.clone());
        tokio::spawn(async move {
            connection.await;
            drop(place);
        });
    }

    /// Who connected before the listener closes is answered; closing it would reset them.
    async fn accept_waiting(&self, listener: TcpListener, places: &Arc<Semaphore>, stop: &watch::Receiver<bool>) {
        // Straight from the kernel: the runtime may not have heard of them yet.
        let Ok(listener) = listener.into_std() else { return };
        while let Ok((stream, peer)) = listener.accept() {
            let Ok(place) = Arc::clone(places).acquire_owned().await else { return };
            if let Ok(stream) = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                self.serve(stream, peer, place, stop);
            }
        }
    }
}

/// Returns when it is time to drain.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}

async fn connection(
    service: Arc<Service>,
    limits: BodyLimits,
    stream: TcpStream,
    peer: SocketAddr,
    mut stop: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let (begun, mut asked) = watch::channel(false);
    let respond = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        begun.send_replace(true);
        async move { Ok::<_, Infallible>(respond(&service, limits, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), respond);
    tokio::pin!(connection);
    let drain = async {
        stopped(&mut stop).await;
        // Whoever has just connected has a request on its way.
        let _ = tokio::time::timeout(FIRST, asked.wait_for(|asked| *asked)).await;
    };
    let ended = tokio::select! {
        biased; // what was sent before the word to stop is read before it
        ended = connection.as_mut() => Some(ended),
        () = drain => None,
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

async fn respond(service: &Service, limits: BodyLimits, request: Request<Incoming>) -> Reply {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    // Who asks first whether to send is told no before a byte of the body is on its way.
    let asks = head.headers.contains_key(EXPECT);
    let bytes = match service.body_limit(&head.method, path) {
        None => {
            if !asks {
                discard(&mut body).await;
            }
            Bytes::new()
        }
        Some(needed) => {
            let (needed, max) = (usize::try_from(needed).unwrap_or(usize::MAX), limits.size);
            let limits = BodyLimits { size: max.min(needed), ..limits };
            match read(&mut body, limits).await {
                Ok(bytes) => bytes,
                Err(Unread::TooLarge) => {
                    if !asks {
                        discard(&mut body).await;
                    }
                    let why = if needed < max { "what this model's inputs take" } else { "serve.max_request_bytes" };
                    let message = format!("the request is larger than {} bytes, {why}", limits.size);
                    return service.refused(StatusCode::PAYLOAD_TOO_LARGE, &message);
                }
                Err(Unread::Cut(e)) => {
                    return service.refused(StatusCode::BAD_REQUEST, &format!("the body was cut off: {e}"));
                }
                Err(Unread::Slow) => {
                    let seconds = limits.time.as_secs();
                    let message = format!(
                        "the body did not arrive within {seconds} seconds (serve.body_seconds); send it at once"
                    );
                    return service.refused(StatusCode::REQUEST_TIMEOUT, &message);
                }
            }
        }
    };
    service.answer(&head.method, path, &head.headers, bytes).await
}

enum Unread {
    TooLarge,
    Cut(hyper::Error),
    Slow,
}

async fn read(body: &mut Incoming, limits: BodyLimits) -> Result<Bytes, Unread> {
    if body.size_hint().lower() > limits.size as u64 {
        return Err(Unread::TooLarge);
    }
    let until = Instant::now() + limits.time;
    let mut all = BytesMut::new();
    loop {
        match timeout_at(until, body.frame()).await {
            Err(_) => return Err(Unread::Slow),
            Ok(None) => return Ok(all.freeze()),
            Ok(Some(Err(error))) => return Err(Unread::Cut(error)),
            Ok(Some(Ok(frame))) => {
                let Ok(data) = frame.into_data() else { continue };
                if all.len().saturating_add(data.len()) > limits.size {
                    return Err(Unread::TooLarge);
                }
                all.extend_from_slice(&data);
            }
        }
    }
}

async fn discard(body: &mut Incoming) {
    let until = Instant::now() + UNWANTED_TIME;
    let mut left = UNWANTED;
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}
