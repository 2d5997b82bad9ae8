//! HTTP/1.1 to an operator's unix socket or to a gateway, bounded in time and size.

use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::{Method, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::exit::Failure;

const TIMEOUT: Duration = Duration::from_secs(30);
/// A thousand gateways with all their facts are 2 MiB.
const MAX_ANSWER: usize = 64 << 20;

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Failed(format!("no runtime: {e}")))
}

/// Asks the operator.
pub fn operator(socket: &Path, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let unreachable = |e: String| {
        Failure::Unreachable(format!(
            "no operator answers on {}: {e}; say where its state directory is with --socket STATE/admin.sock or BALLAST_SOCKET",
            socket.display()
        ))
    };
    runtime()?
        .block_on(async {
            let work = async {
                let stream = UnixStream::connect(socket).await.map_err(|e| unreachable(e.to_string()))?;
                send(stream, "localhost", method, path, body).await.map_err(unreachable)
            };
            let answer = tokio::time::timeout(TIMEOUT, work).await;
            answer.map_err(|_| unreachable("no answer within 30 s".into()))?
        })
        .and_then(decode)
}

/// Asks a gateway; `base` is `http://host:port`.
pub fn gateway(base: &str, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let authority = base
        .strip_prefix("http://")
        .map(|a| a.trim_end_matches('/'))
        .filter(|a| !a.is_empty() && !a.contains('/'))
        .ok_or_else(|| Failure::Failed(format!("{base:?} is not a gateway's address: write http://HOST:PORT")))?;
    let unreachable = |e: String| Failure::Unreachable(format!("no gateway answers on {base}: {e}"));
    let address = if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    runtime()?
        .block_on(async {
            let work = async {
                let stream = TcpStream::connect(address).await.map_err(|e| unreachable(e.to_string()))?;
                send(stream, authority, method, path, body).await.map_err(unreachable)
            };
            let answer = tokio::time::timeout(TIMEOUT, work).await;
            answer.map_err(|_| unreachable("no answer within 30 s".into()))?
        })
        .and_then(decode)
}

async fn send<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    host: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> Result<(u16, Bytes), String> {
    let text = |e: hyper::Error| e.to_string();
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
    let driver = tokio::spawn(connection);
    let body = body.map(|b| b.to_string()).unwrap_or_default();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", host)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|e| e.to_string())?;
    let response = sender.send_request(request).await.map_err(text)?;
    let status = response.status().as_u16();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|e| e.to_string())?.to_bytes();
    driver.abort();
    Ok((status, body))
}

/// The JSON of a good answer; the sentence of a bad one.
fn decode((status, body): (u16, Bytes)) -> Result<Value, Failure> {
    let json: Option<Value> = serde_json::from_slice(&body).ok();
    if (200..300).contains(&status) {
        return json.ok_or_else(|| Failure::Failed("the answer is not JSON".into()));
    }
    let sentence = json.as_ref().and_then(|j| j.get("error")).and_then(Value::as_str).map(str::to_owned);
    let sentence = sentence.unwrap_or_else(|| format!("refused with HTTP status {status}"));
    Err(if status == 404 { Failure::Missing(sentence) } else { Failure::Failed(sentence) })
}

/// A segment of a path that a person typed.
pub fn segment(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
