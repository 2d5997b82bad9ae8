//! HTTPS to the fleet's server: one connection per call, everything bounded in size and time.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ballast_bundle::protocol::ErrorBody;
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST, RANGE, RETRY_AFTER};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// To connect and shake hands, to get an answer's head, and between two pieces of a body.
const CONNECT: Duration = Duration::from_secs(10);
const ANSWER: Duration = Duration::from_secs(30);
const PIECE: Duration = Duration::from_secs(30);

/// Why a call failed. Only [`Refused`](Self::Refused) is the server's word.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClientError {
    #[error("{0:?} is not https://host:port")]
    Endpoint(String),
    #[error("the fleet's server {endpoint} cannot be reached: {message}")]
    Unreachable { endpoint: String, message: String },
    #[error("the fleet's server says: {message}")]
    Refused { status: StatusCode, message: String, retry_after: Option<Duration> },
    #[error("the fleet's server sent what this version cannot read: {0}")]
    Unreadable(String),
}

/// The fleet's server as this gateway knows it.
#[derive(Debug)]
pub(crate) struct Client {
    peer: Mutex<Peer>,
}

#[derive(Debug, Clone)]
struct Peer {
    endpoints: Vec<String>,
    tls: Arc<ClientConfig>,
    /// The endpoint that answered last is asked first.
    last: usize,
}

impl Client {
    /// For the endpoints in order of preference.
    pub(crate) fn new(endpoints: Vec<String>, tls: Arc<ClientConfig>) -> Self {
        Self { peer: Mutex::new(Peer { endpoints, tls, last: 0 }) }
    }

    /// After a renewal, or a new trust root.
    pub(crate) fn replace(&self, endpoints: Vec<String>, tls: Arc<ClientConfig>) {
        *self.peer.lock().unwrap_or_else(PoisonError::into_inner) = Peer { endpoints, tls, last: 0 };
    }

    /// A JSON call.
    pub(crate) async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &str,
        body: &Q,
        limit: usize,
    ) -> Result<A, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Unreadable(e.to_string()))?;
        let response = self.call(&Method::POST, path, 0, Bytes::from(body)).await?;
        let bytes = read_all(response, limit).await?;
        serde_json::from_slice(&bytes).map_err(|e| ClientError::Unreadable(format!("{path}: {e}")))
    }

    /// A whole document.
    pub(crate) async fn get(&self, path: &str, limit: usize) -> Result<Bytes, ClientError> {
        read_all(self.call(&Method::GET, path, 0, Bytes::new()).await?, limit).await
    }

    /// A document's bytes from `offset` on, as they come. The server may answer with all of them: look at the status.
    pub(crate) async fn open(&self, path: &str, offset: u64) -> Result<Response<Incoming>, ClientError> {
        self.call(&Method::GET, path, offset, Bytes::new()).await
    }

    async fn call(
        &self,
        method: &Method,
        path: &str,
        offset: u64,
        body: Bytes,
    ) -> Result<Response<Incoming>, ClientError> {
        let peer = self.peer.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut last = ClientError::Endpoint(String::new());
        let count = peer.endpoints.len();
        for n in (0..count).map(|n| (peer.last + n) % count) {
            let Some(endpoint) = peer.endpoints.get(n) else { continue };
            match one(endpoint, &peer.tls, method, path, offset, body.clone()).await {
                // Another endpoint is tried only when this one gave no answer at all.
                Err(error @ (ClientError::Unreachable { .. } | ClientError::Endpoint(_))) => last = error,
                other => {
                    if n != peer.last {
                        self.peer.lock().unwrap_or_else(PoisonError::into_inner).last = n;
                    }
                    return other;
                }
            }
        }
        Err(last)
    }
}

async fn one(
    endpoint: &str,
    tls: &Arc<ClientConfig>,
    method: &Method,
    path: &str,
    offset: u64,
    body: Bytes,
) -> Result<Response<Incoming>, ClientError> {
    let invalid = || ClientError::Endpoint(endpoint.chars().take(200).collect());
    let uri: Uri = endpoint.parse().map_err(|_| invalid())?;
    if uri.scheme_str() != Some("https") {
        return Err(invalid());
    }
    let host = uri.host().ok_or_else(invalid)?;
    let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let port = uri.port_u16().unwrap_or(443);
    let unreachable =
        |message: String| ClientError::Unreachable { endpoint: endpoint.chars().take(200).collect(), message };

    let name = ServerName::try_from(bare.clone()).map_err(|_| invalid())?;
    let connect = async {
        let tcp = TcpStream::connect((bare.as_str(), port)).await?;
        tcp.set_nodelay(true)?;
        TlsConnector::from(Arc::clone(tls)).connect(name, tcp).await
    };
    let stream = within(CONNECT, "no connection", connect).await.map_err(&unreachable)?;
    let (mut sender, connection) =
        within(CONNECT, "no HTTP", hyper::client::conn::http1::handshake(TokioIo::new(stream)))
            .await
            .map_err(&unreachable)?;
    // Ends by itself when the response was read or dropped.
    tokio::spawn(connection);

    let host = uri.authority().map(|a| a.as_str()).unwrap_or(host);
    let mut request = Request::builder().method(method).uri(path).header(HOST, host);
    if *method == Method::POST {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    if offset > 0 {
        request = request.header(RANGE, format!("bytes={offset}-"));
    }
    let request = request.body(Full::new(body)).map_err(|_| invalid())?;
    let response = within(ANSWER, "no answer", sender.send_request(request)).await.map_err(&unreachable)?;
    if response.status().is_success() { Ok(response) } else { Err(refused(response).await) }
}

async fn refused(response: Response<Incoming>) -> ClientError {
    let status = response.status();
    let seconds = response.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let body = read_all(response, 16 << 10).await.unwrap_or_default();
    let message = match serde_json::from_slice::<ErrorBody>(&body) {
        Ok(body) => body.error.chars().filter(|c| !c.is_control()).take(1_000).collect(),
        Err(_) => format!("{status}"),
    };
    ClientError::Refused { status, message, retry_after: seconds.map(Duration::from_secs) }
}

async fn within<T, E: std::fmt::Display>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, String> {
    match tokio::time::timeout(limit, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("{what} within {} seconds", limit.as_secs())),
    }
}

/// The next piece of a body, or `None` at its end.
pub(crate) async fn piece(response: &mut Response<Incoming>) -> Result<Option<Bytes>, ClientError> {
    loop {
        let frame = tokio::time::timeout(PIECE, response.body_mut().frame()).await;
        let failed = |message: String| ClientError::Unreachable { endpoint: "connection".to_owned(), message };
        match frame {
            Err(_) => return Err(failed(format!("it fell silent for {} seconds", PIECE.as_secs()))),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => return Err(failed(e.to_string())),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn read_all(mut response: Response<Incoming>, limit: usize) -> Result<Bytes, ClientError> {
    let mut all = BytesMut::new();
    while let Some(data) = piece(&mut response).await? {
        if all.len() + data.len() > limit {
            return Err(ClientError::Unreadable(format!("more than {limit} bytes")));
        }
        all.extend_from_slice(&data);
    }
    Ok(all.freeze())
}
