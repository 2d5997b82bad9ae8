//! Paths and statuses of the protocol.

use ballast_bundle::Batch;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};

use super::infer::{Answered, Context, NoAnswer};
use super::sequence::Ask;
use super::{AnsweredBy, Route, answer, describe, request};

/// The extension's header, both ways.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// What a client that found the queue full waits, in seconds.
const COME_AGAIN: u32 = 1;
/// What a client waits whose model is on its way to the gateway, in seconds.
const NOT_YET: u32 = 5;

/// Answers.
pub(crate) struct Service(pub(crate) Context);

pub(crate) type Reply = Response<Full<Bytes>>;

/// A path that there is.
enum Place<'a> {
    Metrics,
    Server,
    Health,
    Index,
    Model(&'a str, Option<&'a str>, About),
}

enum About {
    Metadata,
    Ready,
    Config,
    Infer,
}

impl<'a> Place<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let about = |word: &str| match word {
            "ready" => Some(About::Ready),
            "config" => Some(About::Config),
            "infer" => Some(About::Infer),
            _ => None,
        };
        let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        Some(match *parts.as_slice() {
            ["metrics"] => Self::Metrics,
            ["v2"] => Self::Server,
            ["v2", "health", "live" | "ready"] => Self::Health,
            ["v2", "repository", "index"] => Self::Index,
            ["v2", "models", model] => Self::Model(model, None, About::Metadata),
            ["v2", "models", model, "versions", version] => Self::Model(model, Some(version), About::Metadata),
            ["v2", "models", model, word] => Self::Model(model, None, about(word)?),
            ["v2", "models", model, "versions", version, word] => Self::Model(model, Some(version), about(word)?),
            _ => return None,
        })
    }

    const fn methods(&self) -> &'static str {
        match self {
            Self::Index | Self::Model(_, _, About::Infer) => "POST",
            Self::Metrics | Self::Server | Self::Health | Self::Model(..) => "GET, HEAD",
        }
    }
}

impl Service {
    /// Bytes that a request can sensibly have; `None`: its body says nothing and is not read.
    pub(crate) fn body_limit(&self, method: &Method, path: &str) -> Option<u64> {
        match Place::of(path) {
            Some(Place::Model(model, version, About::Infer)) if method == Method::POST => {
                self.find(model, version).ok().map(|(route, _)| request::longest(&route.primary.contract))
            }
            Some(_) | None => None,
        }
    }

    pub(crate) async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let reply = self.route(method, path, headers, body).await;
        if reply.status().is_client_error() {
            self.0.metrics.refused();
        }
        reply
    }

    /// A request that is not looked at.
    pub(crate) fn refused(&self, status: StatusCode, message: &str) -> Reply {
        self.0.metrics.refused();
        error(status, message)
    }

    async fn route(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let Some(place) = Place::of(path) else { return error(StatusCode::NOT_FOUND, NOTHING_HERE) };
        let methods = place.methods();
        if !methods.split(", ").any(|m| m == method.as_str()) {
            let method: String = method.as_str().chars().take(20).collect();
            let message = format!("{method} does not go with this path; {methods} does");
            let mut reply = error(StatusCode::METHOD_NOT_ALLOWED, &message);
            reply.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
            return reply;
        }
        match place {
            Place::Metrics => self.metrics(),
            Place::Server => json_reply(StatusCode::OK, &describe::server()),
            Place::Health => json_reply(StatusCode::OK, &json!({"live": true, "ready": true})),
            Place::Index => json_reply(StatusCode::OK, &describe::index(&self.0.router.all(), &self.0.router.coming())),
            Place::Model(model, version, about) => {
                let (route, by) = match self.find(model, version) {
                    Ok(found) => found,
                    Err(reply) => return *reply,
                };
                let contract = &route.primary.contract;
                match about {
                    About::Metadata => json_reply(StatusCode::OK, &describe::metadata(&route)),
                    About::Config => json_reply(StatusCode::OK, &describe::config(contract)),
                    About::Ready => json_reply(StatusCode::OK, &json!({"name": contract.model, "ready": true})),
                    About::Infer => self.infer(route, by, version, headers, body).await,
                }
            }
        }
    }

    fn metrics(&self) -> Reply {
        let mut served = Vec::new();
        for (model, route) in self.0.router.all() {
            let version = route.primary.contract.version.clone();
            served.push((model.clone(), version, route.by().as_str(), route.primary.queued()));
            if let Some(backup) = &route.backup {
                served.push((model, backup.contract.version.clone(), AnsweredBy::Fallback.as_str(), backup.queued()));
            }
        }
        let mut text = self.0.metrics.render(&served);
        self.0.router.sequences.render(&mut text);
        let mut reply = Response::new(Full::new(Bytes::from(text)));
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        reply.headers_mut().insert(CONTENT_TYPE, text);
        reply
    }

    /// Who answers, and what that release is called. A version that stands behind a trial can be asked for by name.
    fn find(&self, model: &str, version: Option<&str>) -> Result<(Route, AnsweredBy), Box<Reply>> {
        let model: String = model.chars().take(200).collect();
        let Some(route) = self.0.router.find(&model) else {
            if self.0.router.coming().contains(&model) {
                let message = format!("no release of {model:?} is active here yet; ask again after Retry-After");
                let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, &message);
                reply.headers_mut().insert(RETRY_AFTER, NOT_YET.into());
                return Err(Box::new(reply));
            }
            let served: Vec<_> = self.0.router.all().into_iter().map(|(model, _)| model).collect();
            let served = if served.is_empty() { "none yet".to_owned() } else { served.join(", ") };
            let message = format!("there is no model {model:?} here; served are: {served}");
            return Err(Box::new(error(StatusCode::NOT_FOUND, &message)));
        };
        let by = route.by();
        match version {
            Some(version) if version != route.primary.contract.version => {
                let backup = route.backup.as_ref().filter(|backup| backup.contract.version == version);
                if let Some(backup) = backup.cloned() {
                    let by = if route.on_trial { AnsweredBy::Active } else { AnsweredBy::Fallback };
                    return Ok((Route { primary: backup, on_trial: false, backup: None }, by));
                }
                let (version, has) = (version.chars().take(100).collect::<String>(), &route.primary.contract.version);
                let message = format!("version {version:?} of {model:?} is not served here now; {has:?} is");
                Err(Box::new(error(StatusCode::NOT_FOUND, &message)))
            }
            Some(_) | None => Ok((route, by)),
        }
    }

    async fn infer(
        &self,
        route: Route,
        by: AnsweredBy,
        version: Option<&str>,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Reply {
        if headers.get(CONTENT_ENCODING).is_some_and(|v| v != "identity") {
            return error(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "compressed requests are not read; send the body as it is",
            );
        }
        let header = match headers.get(HEADER_LENGTH) {
            None => None,
            Some(value) => match value.to_str().ok().and_then(|v| v.trim().parse::<usize>().ok()) {
                Some(length) => Some(length),
                None => return error(StatusCode::BAD_REQUEST, "Inference-Header-Content-Length is not a number"),
            },
        };
        let wanted = match request::read(&body, header, &route.primary.contract) {
            Ok(wanted) => wanted,
            Err(message) => return error(StatusCode::BAD_REQUEST, &message),
        };
        drop(body);
        let batch = route.primary.contract.batch.clone();
        // A task of its own: a client that hangs up does not hide a release's failure.
        let ask = Ask { version: version.map(str::to_owned), ..wanted.ask };
        let inference = tokio::spawn(self.0.clone().infer_request(route, by, wanted.inputs, wanted.rows, ask));
        match inference.await {
            Ok(Ok(answered)) => answered_reply(
                &answered,
                wanted.id.as_deref(),
                &wanted.outputs,
                batch.as_ref().map(|b| (b, wanted.rows)),
            ),
            Ok(Err(NoAnswer::QueueFull)) => {
                let mut reply =
                    error(StatusCode::TOO_MANY_REQUESTS, "the model's queue is full; try again after Retry-After");
                reply.headers_mut().insert(RETRY_AFTER, COME_AGAIN.into());
                reply
            }
            Ok(Err(NoAnswer::Sequence(message))) => error(StatusCode::BAD_REQUEST, &message),
            Ok(Err(NoAnswer::SequencesFull { message, after })) => {
                let mut reply = error(StatusCode::TOO_MANY_REQUESTS, &message);
                reply.headers_mut().insert(RETRY_AFTER, after.into());
                reply
            }
            Ok(Err(NoAnswer::Input(message))) => error(StatusCode::UNPROCESSABLE_ENTITY, &message),
            Ok(Err(NoAnswer::Failed(message))) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
            Ok(Err(NoAnswer::Gone(message))) => error(StatusCode::SERVICE_UNAVAILABLE, message),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the request was given up; ask again"),
        }
    }
}

fn answered_reply(
    answered: &Answered,
    id: Option<&str>,
    wanted: &[(usize, bool)],
    rows: Option<(&Batch, u64)>,
) -> Reply {
    let loaded = &answered.loaded;
    let (number, outputs) = (loaded.release.number, &answered.answer.outputs);
    let body = answer::write(&loaded.contract, number, answered.by, id, wanted, outputs, rows, answered.told.as_ref());
    let mut reply = Response::new(Full::new(body.bytes));
    let kind = if body.header.is_some() { "application/octet-stream" } else { "application/json" };
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(header) = body.header {
        reply.headers_mut().insert(HEADER_LENGTH, header.into());
    }
    reply
}

const NOTHING_HERE: &str = "there is nothing here; the Open Inference Protocol is below /v2, metrics at /metrics";

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `{"error": …}`.
fn error(status: StatusCode, message: &str) -> Reply {
    json_reply(status, &json!({"error": message}))
}
