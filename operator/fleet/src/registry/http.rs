//! The pull side of the distribution specification.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::Response;
use ballast_bundle::{Digest, NamespaceUid};
use bytes::{Bytes, BytesMut};
use hyper::body::{Frame, SizeHint};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncSeekExt, ReadBuf};

use super::{Registry, Repository};
use crate::pulls::Pull;

/// Read and sent at once; one such buffer per pull is the registry's memory.
const CHUNK: usize = 64 << 10;
/// Tags in one answer.
const TAGS: usize = 1000;

/// Answers `GET` or `HEAD /v2/<path>` for a gateway of `namespace`. `place` is held until the last byte is sent.
pub(crate) async fn pull(
    registry: Arc<Registry>,
    namespace: &NamespaceUid,
    method: &Method,
    path: &str,
    query: &str,
    headers: &HeaderMap,
    place: Pull,
) -> Response {
    if path.is_empty() {
        return answer(StatusCode::OK, "application/json", b"{}".to_vec(), method);
    }
    let Some((repository, what)) = split(path) else {
        return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such repository here", method);
    };
    let repository = match repository.parse::<Repository>() {
        // The same answer for what is not there and what is somebody else's: names of other namespaces do not leak.
        Ok(repository) if repository.namespace() == namespace => repository,
        _ => return error(StatusCode::NOT_FOUND, "NAME_UNKNOWN", "there is no such repository here", method),
    };
    match what {
        What::Manifest(reference) => {
            let (registry, repository, reference) = (registry.clone(), repository.clone(), reference.to_owned());
            let found = blocking(move || {
                let (digest, media_type) = registry.manifest(&repository, &reference)?;
                Some((digest, media_type, std::fs::read(registry.blob_path(&digest)).ok()?))
            })
            .await;
            match found {
                Some((digest, media_type, bytes)) => {
                    let mut response = answer(StatusCode::OK, &media_type, bytes, method);
                    name_digest(response.headers_mut(), &digest);
                    response
                }
                None => error(StatusCode::NOT_FOUND, "MANIFEST_UNKNOWN", "there is no such manifest", method),
            }
        }
        What::Blob(digest) => blob(registry, repository, digest, method, headers, place).await,
        What::Referrers(digest) => {
            let wanted = parameter(query, "artifactType");
            let mut found = blocking(move || registry.referrers(&repository, &digest)).await;
            let filtered = wanted.is_some();
            if let Some(wanted) = wanted {
                found.retain(|d| d.artifact_type.as_deref() == Some(wanted.as_str()));
            }
            let media_type = "application/vnd.oci.image.index.v1+json";
            let index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": found});
            let mut response = answer(StatusCode::OK, media_type, index.to_string().into_bytes(), method);
            if filtered {
                response.headers_mut().insert("oci-filters-applied", HeaderValue::from_static("artifactType"));
            }
            response
        }
        What::Tags => {
            let limit = parameter(query, "n").and_then(|n| n.parse().ok()).unwrap_or(TAGS).min(TAGS);
            let last = parameter(query, "last").unwrap_or_default();
            let name = repository.to_string();
            let tags = blocking(move || registry.tags(&repository)).await;
            let tags: Vec<_> = tags.into_iter().filter(|t| *t > last).take(limit).collect();
            answer(
                StatusCode::OK,
                "application/json",
                json!({"name": name, "tags": tags}).to_string().into_bytes(),
                method,
            )
        }
    }
}

enum What<'a> {
    Manifest(&'a str),
    Blob(Digest),
    Referrers(Digest),
    Tags,
}

fn split(path: &str) -> Option<(&str, What<'_>)> {
    let (head, last) = path.rsplit_once('/')?;
    let (name, kind) = head.rsplit_once('/')?;
    let what = match kind {
        "manifests" => What::Manifest(last),
        "blobs" => What::Blob(last.parse().ok()?),
        "referrers" => What::Referrers(last.parse().ok()?),
        "tags" if last == "list" => What::Tags,
        _ => return None,
    };
    Some((name, what))
}

async fn blob(
    registry: Arc<Registry>,
    repository: Repository,
    digest: Digest,
    method: &Method,
    headers: &HeaderMap,
    place: Pull,
) -> Response {
    let unknown = || error(StatusCode::NOT_FOUND, "BLOB_UNKNOWN", "this repository has no such blob", method);
    let path = registry.blob_path(&digest);
    if !blocking(move || registry.has_link(&repository, &digest)).await {
        return unknown();
    }
    let Ok(mut file) = tokio::fs::File::open(path).await else {
        return unknown();
    };
    let Ok(size) = file.metadata().await.map(|m| m.len()) else {
        return unknown();
    };
    let range = headers.get(header::RANGE).and_then(|v| v.to_str().ok());
    let (status, start, length) = match range.map(|r| read_range(r, size)) {
        None | Some(Range::Whole) => (StatusCode::OK, 0, size),
        Some(Range::Part { start, length }) => (StatusCode::PARTIAL_CONTENT, start, length),
        Some(Range::Unsatisfiable) => {
            let mut response =
                error(StatusCode::RANGE_NOT_SATISFIABLE, "BLOB_UNKNOWN", "the range is outside the blob", method);
            insert(response.headers_mut(), header::CONTENT_RANGE, &format!("bytes */{size}"));
            return response;
        }
    };
    let body = if method == Method::HEAD || length == 0 {
        Body::empty()
    } else {
        if file.seek(std::io::SeekFrom::Start(start)).await.is_err() {
            return unknown();
        }
        Body::new(FileBody { file, left: length, _place: place })
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    let out = response.headers_mut();
    insert(out, header::CONTENT_TYPE, "application/octet-stream");
    insert(out, header::CONTENT_LENGTH, &length.to_string());
    insert(out, header::ACCEPT_RANGES, "bytes");
    if status == StatusCode::PARTIAL_CONTENT {
        insert(out, header::CONTENT_RANGE, &format!("bytes {start}-{}/{size}", start + length - 1));
    }
    name_digest(out, &digest);
    response
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    Whole,
    Part { start: u64, length: u64 },
    Unsatisfiable,
}

/// One range of RFC 9110 §14; anything else (several ranges, other units) is ignored, as it allows.
fn read_range(value: &str, size: u64) -> Range {
    let Some((from, to)) = value.strip_prefix("bytes=").filter(|r| !r.contains(',')).and_then(|r| r.split_once('-'))
    else {
        return Range::Whole;
    };
    let (from, to) = (from.trim(), to.trim());
    if from.is_empty() {
        return match to.parse::<u64>() {
            Ok(0) => Range::Unsatisfiable,
            Ok(n) if size > 0 => Range::Part { start: size - n.min(size), length: n.min(size) },
            Ok(_) => Range::Unsatisfiable,
            Err(_) => Range::Whole,
        };
    }
    let (Ok(start), Ok(end)) = (from.parse::<u64>(), if to.is_empty() { Ok(u64::MAX) } else { to.parse::<u64>() })
    else {
        return Range::Whole;
    };
    if end < start {
        return Range::Whole;
    }
    if start >= size {
        return Range::Unsatisfiable;
    }
    Range::Part { start, length: end.min(size - 1) - start + 1 }
}

/// Streams a part of a file; gives its place back when dropped.
struct FileBody {
    file: tokio::fs::File,
    left: u64,
    _place: Pull,
}

impl hyper::body::Body for FileBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let want = usize::try_from(self.left).unwrap_or(CHUNK).min(CHUNK);
        let mut chunk = BytesMut::zeroed(want);
        let mut buffer = ReadBuf::new(&mut chunk);
        match Pin::new(&mut self.file).poll_read(cx, &mut buffer) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(e)) => Poll::Ready(Some(Err(e))),
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().len();
                if read == 0 {
                    // The announced length cannot be kept; the connection ends and the client resumes.
                    return Poll::Ready(Some(Err(std::io::ErrorKind::UnexpectedEof.into())));
                }
                chunk.truncate(read);
                self.left -= read as u64;
                Poll::Ready(Some(Ok(Frame::data(chunk.freeze()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

async fn blocking<T: Send + Default + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap_or_default()
}

fn parameter(query: &str, name: &str) -> Option<String> {
    query.split('&').find_map(|p| p.split_once('=').filter(|(k, _)| *k == name)).map(|(_, v)| {
        // Media types are the only values that clients escape here.
        v.replace("%2F", "/").replace("%2f", "/").replace("%2B", "+").replace("%2b", "+")
    })
}

fn insert(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn name_digest(headers: &mut HeaderMap, digest: &Digest) {
    insert(headers, header::HeaderName::from_static("docker-content-digest"), &digest.to_string());
    insert(headers, header::ETAG, &format!("\"{digest}\""));
}

fn answer(status: StatusCode, media_type: &str, bytes: Vec<u8>, method: &Method) -> Response {
    let length = bytes.len().to_string();
    let mut response = Response::new(if method == Method::HEAD { Body::empty() } else { Body::from(bytes) });
    *response.status_mut() = status;
    insert(response.headers_mut(), header::CONTENT_TYPE, media_type);
    insert(response.headers_mut(), header::CONTENT_LENGTH, &length);
    response
}

fn error(status: StatusCode, code: &str, message: &str, method: &Method) -> Response {
    let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
    answer(status, "application/json", body.into_bytes(), method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let part = |start, length| Range::Part { start, length };
        for (value, size, want) in [
            ("bytes=0-", 10, part(0, 10)),
            ("bytes=3-", 10, part(3, 7)),
            ("bytes=3-4", 10, part(3, 2)),
            ("bytes=3-99", 10, part(3, 7)),
            ("bytes=-3", 10, part(7, 3)),
            ("bytes=-30", 10, part(0, 10)),
            ("bytes=-0", 10, Range::Unsatisfiable),
            ("bytes=10-", 10, Range::Unsatisfiable),
            ("bytes=0-", 0, Range::Unsatisfiable),
            ("bytes=5-3", 10, Range::Whole),
            ("bytes=0-1,3-4", 10, Range::Whole),
            ("lines=1-2", 10, Range::Whole),
            ("bytes=x-", 10, Range::Whole),
            ("bytes=18446744073709551615-", 10, Range::Unsatisfiable),
        ] {
            assert_eq!(read_range(value, size), want, "{value}");
        }
    }

    #[test]
    fn paths() {
        let digest = Digest::of(b"x");
        assert!(matches!(split(&format!("n/d/blobs/{digest}")), Some(("n/d", What::Blob(_)))));
        assert!(matches!(split("n/runner/t/manifests/latest"), Some(("n/runner/t", What::Manifest("latest")))));
        assert!(matches!(split("n/d/tags/list"), Some(("n/d", What::Tags))));
        for bad in ["n", "n/blobs", "n/d/blobs/latest", "n/d/tags/other", "n/d/uploads/x"] {
            assert!(split(bad).is_none(), "{bad}");
        }
    }
}
