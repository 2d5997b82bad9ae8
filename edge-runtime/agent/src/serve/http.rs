//! Connections: hyper's HTTP/1.1 server, bounded in number and time.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Instant, timeout_at};

use super::body::{BodyLimits, respond};
use super::listen::{Accepted, Listener};
use super::routes::Service;

/// Heads that come slower than this are cut off.
const HEAD: Duration = Duration::from_secs(30);
/// While the gateway drains, a client that has connected and not yet asked is waited for so long.
const FIRST: Duration = Duration::from_secs(2);
/// Serves until told to drain.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) service: Arc<Service>,
    pub(crate) body: BodyLimits,
    /// Of each listener: who fills up one leaves the others alone.
    pub(crate) max_connections: usize,
    pub(crate) drain: Duration,
}

impl Server {
    /// Returns when every connection has ended, or the time for that is over.
    pub(crate) async fn run(self, listeners: Vec<Listener>, mut stop: watch::Receiver<bool>) {
        let all: Vec<_> =
            listeners.into_iter().map(|listener| tokio::spawn(self.clone().accept(listener, stop.clone()))).collect();
        stopped(&mut stop).await;
        let until = Instant::now() + self.drain;
        let drained = async {
            for listener in all {
                let _ = listener.await;
            }
        };
        if timeout_at(until, drained).await.is_err() {
            tracing::warn!("some requests were still in flight when the time to drain was over");
        }
    }

    /// Takes connections until told to stop; whoever connected by then is answered: closing would reset them.
    /// Returns when every connection has ended.
    async fn accept(self, listener: Listener, mut stop: watch::Receiver<bool>) {
        let places = Arc::new(Semaphore::new(self.max_connections));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = stopped(&mut stop) => break,
            };
            match accepted {
                // One connection waits here for its place, the others in the kernel's queue, not in our memory.
                Ok(accepted) => {
                    let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
                    self.serve(accepted, listener.guarded, place, &stop);
                }
                Err(error) => {
                    // Out of file descriptors, say: it passes, and spinning does not help.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
        let guarded = listener.guarded;
        for accepted in listener.waiting() {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            self.serve(accepted, guarded, place, &stop);
        }
        let _ = places.acquire_many(u32::try_from(self.max_connections).unwrap_or(u32::MAX)).await;
    }

    fn serve(&self, accepted: Accepted, guarded: bool, place: OwnedSemaphorePermit, stop: &watch::Receiver<bool>) {
        let (server, stop) = (self.clone(), stop.clone());
        tokio::spawn(async move {
            server.connection(accepted, guarded, stop).await;
            drop(place);
        });
    }

    async fn connection(self, accepted: Accepted, guarded: bool, mut stop: watch::Receiver<bool>) {
        let peer = accepted.peer.clone();
        let stream = match accepted.open().await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%peer, %error, "connection ended");
                return;
            }
        };
        let (begun, mut asked) = watch::channel(false);
        let (service, limits) = (self.service, self.body);
        let respond = service_fn(move |request: Request<Incoming>| {
            let service = Arc::clone(&service);
            begun.send_replace(true);
            async move { Ok::<_, Infallible>(respond(&service, limits, guarded, request).await) }
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
}

/// Returns when it is time to drain.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|stop| *stop).await;
}
