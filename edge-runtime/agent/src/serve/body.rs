//! What a request's body may be, and how it is read and answered: bounded in size and time, compressed or not.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, EXPECT, HeaderValue, VARY, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Request, StatusCode};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{Instant, timeout_at};

use super::compress::{self, Coding, Unexpanded};
use super::routes::{Reply, Service};

/// What nobody wants is read all the same, up to this: a client that is still sending when the connection is closed gets a
/// reset in place of the answer that says what is wrong.
const UNWANTED: usize = 64 << 20;
/// The same for a client that may not ask.
const STRANGERS: usize = 1 << 20;
const UNWANTED_TIME: Duration = Duration::from_secs(5);

/// What a request's body may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BodyLimits {
    /// Bytes, as sent and once expanded.
    pub(crate) size: usize,
    /// From its head to its last byte.
    pub(crate) time: Duration,
}

/// Answers one request; `guarded`: whoever asks must show a token, where there are any.
pub(super) async fn respond(service: &Service, limits: BodyLimits, guarded: bool, request: Request<Incoming>) -> Reply {
    let (head, mut body) = request.into_parts();
    let path = head.uri.path();
    // Who asks first whether to send is told no before a byte of the body is on its way.
    let asks = head.headers.contains_key(EXPECT);
    if guarded && let Err(message) = service.access.check(&head.headers) {
        if !asks {
            discard(&mut body, STRANGERS).await;
        }
        let mut reply = service.refused(StatusCode::UNAUTHORIZED, message);
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return reply;
    }
    let bytes = match service.body_limit(&head.method, path) {
        None => {
            if !asks {
                discard(&mut body, UNWANTED).await;
            }
            Bytes::new()
        }
        Some(needed) => {
            let (needed, max) = (usize::try_from(needed).unwrap_or(usize::MAX), limits.size);
            let limits = BodyLimits { size: max.min(needed), ..limits };
            match wanted(&head.headers, &mut body, limits).await {
                Ok(bytes) => bytes,
                Err(unread) => {
                    if !asks && !matches!(unread, Unread::Cut(_) | Unread::Slow) {
                        discard(&mut body, UNWANTED).await;
                    }
                    let why = if needed < max { "what this model's inputs take" } else { "serve.max_request_bytes" };
                    let (status, message) = unread.told(limits, why);
                    return service.refused(status, &message);
                }
            }
        }
    };
    let reply = service.answer(&head.method, path, &head.headers, bytes).await;
    compressed(&head.headers, reply).await
}

enum Unread {
    TooLarge,
    Bomb,
    Cut(hyper::Error),
    Slow,
    Coding(String),
    Damaged(String),
}

impl Unread {
    fn told(self, limits: BodyLimits, why: &str) -> (StatusCode, String) {
        match self {
            Self::TooLarge => {
                let message = format!("the request is larger than {} bytes, {why}", limits.size);
                (StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            Self::Bomb => {
                let message = format!("the request is larger than {} bytes once it is expanded, {why}", limits.size);
                (StatusCode::PAYLOAD_TOO_LARGE, message)
            }
            Self::Cut(error) => (StatusCode::BAD_REQUEST, format!("the body was cut off: {error}")),
            Self::Slow => {
                let seconds = limits.time.as_secs();
                let message =
                    format!("the body did not arrive within {seconds} seconds (serve.body_seconds); send it at once");
                (StatusCode::REQUEST_TIMEOUT, message)
            }
            Self::Coding(message) => (StatusCode::UNSUPPORTED_MEDIA_TYPE, message),
            Self::Damaged(message) => (StatusCode::BAD_REQUEST, message),
        }
    }
}

async fn wanted(headers: &HeaderMap, body: &mut Incoming, limits: BodyLimits) -> Result<Bytes, Unread> {
    let coding = compress::of_request(headers).map_err(Unread::Coding)?;
    let bytes = read(body, limits).await?;
    let Some(coding) = coding else { return Ok(bytes) };
    let size = limits.size;
    let most = bytes.len().saturating_mul(MOST_TO_ONE).min(size);
    let expanded = apart(bytes, most, move |bytes| compress::expand(coding, bytes, size)).await;
    match expanded {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(Unexpanded::TooLarge)) => Err(Unread::Bomb),
        Some(Err(Unexpanded::Damaged(message))) => Err(Unread::Damaged(message)),
        None => Err(Unread::Damaged("the body could not be expanded; send it as it is".to_owned())),
    }
}

/// Bodies that are worked on beside the serving thread at once.
static PLACES: Semaphore = Semaphore::const_new(2);
/// Deflate makes a byte of at most so many.
const MOST_TO_ONE: usize = 1032;

/// Short work here, long work, of `size` bytes, on a thread of its own; nothing if that thread ended before its time. Not on the
/// runtime's: those wait for downloads and for names to be resolved, and whoever asks must not wait for either.
async fn apart<T: Send + 'static>(
    bytes: Bytes,
    size: usize,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> Option<T> {
    if size < compress::LONG {
        return Some(work(&bytes));
    }
    let place = PLACES.acquire().await.ok()?;
    let (send, receive) = oneshot::channel();
    let run = move || {
        let _ = send.send(work(&bytes)); // whoever asked may have left
        drop(place);
    };
    std::thread::Builder::new().name("compress".to_owned()).spawn(run).ok()?;
    receive.await.ok()
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

async fn discard(body: &mut Incoming, most: usize) {
    let until = Instant::now() + UNWANTED_TIME;
    let mut left = most;
    while let Ok(Some(Ok(frame))) = timeout_at(until, body.frame()).await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// The answer as its client would rather have it.
async fn compressed(headers: &HeaderMap, reply: Reply) -> Reply {
    let length = usize::try_from(reply.body().size_hint().lower()).unwrap_or(0);
    let Some(coding) = compress::for_answer(headers, length) else { return reply };
    let (mut head, body) = reply.into_parts();
    let Ok(bytes) = body.collect().await.map(http_body_util::Collected::to_bytes);
    let plain = bytes.clone();
    let size = bytes.len();
    match apart(bytes, size, move |bytes| compress::shrink(coding, bytes)).await {
        Some(Ok(bytes)) => {
            head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(Coding::name(coding)));
            head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
            head.headers.remove(CONTENT_LENGTH);
            Reply::from_parts(head, Full::new(bytes))
        }
        Some(Err(_)) | None => Reply::from_parts(head, Full::new(plain)),
    }
}
