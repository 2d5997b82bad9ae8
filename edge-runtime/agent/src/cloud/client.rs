//! HTTPS to an Open Inference Protocol server. Connections are kept for the next request.

use std::sync::{Arc, Mutex, PoisonError};

use ballast_escalation::Outgoing;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::meter::{Meter, Metered};

pub(super) const HEADER_LENGTH: &str = "inference-header-content-length";
/// Connections that are kept while nobody asks.
const IDLE: usize = 4;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("it answers {status}: {message}")]
    Refused { status: StatusCode, message: String },
    #[error("its answer is longer than the {0} bytes that the model's outputs take")]
    TooLong(usize),
}

/// A request as it goes out.
pub(super) struct Body {
    pub(super) bytes: Bytes,
    /// Of the JSON at its beginning.
    pub(super) header: usize,
}

/// An answer, and what it took.
pub(super) struct Reply {
    pub(super) bytes: Bytes,
    pub(super) header: Option<usize>,
    /// Over the wire, both ways, for this request.
    pub(super) metered: u64,
}

struct Open {
    sender: SendRequest<Full<Bytes>>,
    meter: Meter,
}

/// One server.
pub(super) struct Server {
    host: String,
    port: u16,
    authority: String,
    path: String,
    tls: Mutex<Arc<ClientConfig>>,
    idle: Mutex<Vec<Open>>,
}

impl Server {
    /// `https://host[:port][/prefix]`; `None` if it is not that.
    pub(super) fn new(endpoint: &str, model: &str, tls: Arc<ClientConfig>) -> Option<Self> {
        let uri: Uri = endpoint.parse().ok()?;
        if uri.scheme_str() != Some("https") || uri.query().is_some() {
            return None;
        }
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']').to_owned();
        let authority = uri.authority()?.to_string();
        if authority.contains('@') {
            return None;
        }
        let prefix = uri.path().trim_end_matches('/');
        Some(Self {
            host,
            port: uri.port_u16().unwrap_or(443),
            authority,
            path: format!("{prefix}/v2/models/{model}/infer"),
            tls: Mutex::new(tls),
            idle: Mutex::default(),
        })
    }

    /// From the next connection on.
    pub(super) fn identify(&self, tls: Arc<ClientConfig>) {
        *self.tls.lock().unwrap_or_else(PoisonError::into_inner) = tls;
        self.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Asks. Whoever calls bounds the time; an answer of more than `limit` bytes is cut off.
    pub(super) async fn ask(&self, body: Outgoing<Body>, limit: usize) -> Result<Reply, AskError> {
        let Body { bytes, header } = body.into_inner();
        let request = || {
            Request::post(&self.path)
                .header(HOST, &self.authority)
                .header(CONTENT_TYPE, "application/octet-stream")
                .header(HEADER_LENGTH, header)
                .body(Full::new(bytes.clone()))
                .map_err(|e| AskError::Unreachable(e.to_string()))
        };
        let kept = self.kept();
        let (mut open, mut before, kept) = match kept {
            Some(open) => {
                let before = open.meter.read();
                (open, before, true)
            }
            None => (self.connect().await?, 0, false),
        };
        let mut sent = open.sender.send_request(request()?).await;
        // Its server may have closed a kept one meanwhile; asking twice changes nothing there.
        let mut lost = 0;
        if kept && sent.is_err() {
            lost = open.meter.read().saturating_sub(before);
            (open, before) = (self.connect().await?, 0);
            sent = open.sender.send_request(request()?).await;
        }
        let response = sent.map_err(|e| AskError::Unreachable(e.to_string()))?;
        let status = response.status();
        let length = response.headers().get(HEADER_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
        let mut incoming = response.into_body();
        let mut all = BytesMut::new();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(|e| AskError::Unreachable(e.to_string()))?;
            let Ok(data) = frame.into_data() else { continue };
            if all.len().saturating_add(data.len()) > limit {
                return Err(AskError::TooLong(limit));
            }
            all.extend_from_slice(&data);
        }
        let metered = lost.saturating_add(open.meter.read().saturating_sub(before));
        let bytes = all.freeze();
        if !status.is_success() {
            let message = String::from_utf8_lossy(&bytes);
            let message = message.chars().filter(|c| !c.is_control()).take(300).collect();
            return Err(AskError::Refused { status, message });
        }
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < IDLE {
            idle.push(open);
        }
        Ok(Reply { bytes, header: length, metered })
    }

    fn kept(&self) -> Option<Open> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|open| !open.sender.is_closed());
        idle.pop()
    }

    async fn connect(&self) -> Result<Open, AskError> {
        let failed = |e: &dyn std::fmt::Display| AskError::Unreachable(e.to_string());
        let tls = Arc::clone(&self.tls.lock().unwrap_or_else(PoisonError::into_inner));
        let name = ServerName::try_from(self.host.clone()).map_err(|e| failed(&e))?;
        let tcp = TcpStream::connect((self.host.as_str(), self.port)).await.map_err(|e| failed(&e))?;
        tcp.set_nodelay(true).map_err(|e| failed(&e))?;
        let meter = Meter::default();
        let stream = Metered(tcp, meter.clone());
        let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|e| failed(&e))?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
        // Ends by itself when its sender is dropped or the server closes it.
        tokio::spawn(connection);
        Ok(Open { sender, meter })
    }
}
