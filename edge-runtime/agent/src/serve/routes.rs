//! Paths and statuses of the protocol.

use std::borrow::Cow;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::task::{JoinError, JoinHandle};

use super::access::Access;
use super::infer::{Answered, Context, NoAnswer};
use super::sequence::Ask;
use super::{AnsweredBy, Route, answer, describe, openapi, request, stats};
use crate::metrics::Took;

/// The extension's header, both ways.
const HEADER_LENGTH: &str = "inference-header-content-length";

/// What a client that found the queue full waits, in seconds.
const COME_AGAIN: u32 = 1;
/// What a client waits whose model is on its way to the gateway, in seconds.
const NOT_YET: u32 = 5;

/// Answers.
pub(crate) struct Service {
    pub(crate) context: Context,
    pub(crate) access: Access,
}

pub(crate) type Reply = Response<Full<Bytes>>;

/// A path that there is.
pub(super) enum Place<'a> {
    Metrics,
    Server,
    Health,
    Index,
    OpenApi,
    /// Statistics of everything that is served.
    Stats,
    Model(Cow<'a, str>, Option<Cow<'a, str>>, About),
}

pub(super) enum About {
    Metadata,
    Ready,
    Config,
    Stats,
    Infer,
}

impl<'a> Place<'a> {
    pub(super) fn of(path: &'a str) -> Option<Self> {
        let about = |word: &str| match word {
            "ready" => Some(About::Ready),
            "config" => Some(About::Config),
            "stats" => Some(About::Stats),
            "infer" => Some(About::Infer),
            _ => None,
        };
        let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        Some(match *parts.as_slice() {
            ["metrics"] => Self::Metrics,
            ["openapi.json"] => Self::OpenApi,
            ["v2"] => Self::Server,
            ["v2", "health", "live" | "ready"] => Self::Health,
            ["v2", "repository", "index"] => Self::Index,
            ["v2", "models", "stats"] => Self::Stats,
            ["v2", "models", model] => Self::Model(decoded(model)?, None, About::Metadata),
            ["v2", "models", model, "versions", version] => {
                Self::Model(decoded(model)?, Some(decoded(version)?), About::Metadata)
            }
            ["v2", "models", model, word] => Self::Model(decoded(model)?, None, about(word)?),
            ["v2", "models", model, "versions", version, word] => {
                Self::Model(decoded(model)?, Some(decoded(version)?), about(word)?)
            }
            _ => return None,
        })
    }

    pub(super) const fn methods(&self) -> &'static str {
        match self {
            Self::Index | Self::Model(_, _, About::Infer) => "POST",
            Self::Metrics | Self::OpenApi | Self::Server | Self::Health | Self::Stats | Self::Model(..) => "GET, HEAD",
        }
    }
}

/// A part of a path without its percent signs; nothing if that is no text.
fn decoded(part: &str) -> Option<Cow<'_, str>> {
    if !part.contains('%') {
        return Some(Cow::Borrowed(part));
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(part.len()), part.as_bytes());
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = rest.split_first_chunk::<2>()?;
        let digit = |d: u8| char::from(d).to_digit(16).and_then(|d| u8::try_from(d).ok());
        bytes.push(digit(digits[0])? << 4 | digit(digits[1])?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

impl Service {
    /// Bytes that a request can sensibly have; `None`: its body says nothing and is not read.
    pub(crate) fn body_limit(&self, method: &Method, path: &str) -> Option<u64> {
        match Place::of(path) {
            Some(Place::Model(model, version, About::Infer)) if method == Method::POST => {
                self.find(&model, version.as_deref()).ok().map(|(route, _)| request::longest(&route.primary.contract))
            }
            Some(_) | None => None,
        }
    }

    pub(crate) async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let reply = self.route(method, path, headers, body).await;
        if reply.status().is_client_error() {
            self.context.metrics.refused();
        }
        reply
    }

    /// A request that is not looked at.
    pub(crate) fn refused(&self, status: StatusCode, message: &str) -> Reply {
        self.context.metrics.refused();
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
            Place::OpenApi => openapi::reply(),
            Place::Stats => {
                let (all, metrics) = (self.context.router.all(), &self.context.metrics);
                json_reply(StatusCode::OK, &stats::as_json(&stats::of(all.iter().map(|(_, route)| route), metrics)))
            }
            Place::Server => json_reply(StatusCode::OK, &describe::server()),
            Place::Health => json_reply(StatusCode::OK, &json!({"live": true, "ready": true})),
            Place::Index => {
                json_reply(StatusCode::OK, &describe::index(&self.context.router.all(), &self.context.router.coming()))
            }
            Place::Model(model, version, about) => {
                let (route, by) = match self.find(&model, version.as_deref()) {
                    Ok(found) => found,
                    Err(reply) => return *reply,
                };
                let contract = &route.primary.contract;
                match about {
                    About::Metadata => json_reply(StatusCode::OK, &describe::metadata(&route)),
                    About::Stats => {
                        let found = match version {
                            Some(version) => vec![stats::one(contract, &version, &self.context.metrics)],
                            None => stats::of([&route], &self.context.metrics),
                        };
                        json_reply(StatusCode::OK, &stats::as_json(&found))
                    }
                    About::Config => json_reply(StatusCode::OK, &describe::config(contract)),
                    About::Ready => json_reply(StatusCode::OK, &json!({"name": contract.model, "ready": true})),
                    About::Infer => self.infer(route, by, version.as_deref(), headers, body).await,
                }
            }
        }
    }

    fn metrics(&self) -> Reply {
        let mut served = Vec::new();
        for (model, route) in self.context.router.all() {
            let version = route.primary.contract.version.clone();
            served.push((model.clone(), version, route.by().as_str(), route.primary.queued()));
            if let Some(backup) = &route.backup {
                served.push((model, backup.contract.version.clone(), AnsweredBy::Fallback.as_str(), backup.queued()));
            }
        }
        let mut text = self.context.metrics.render(&served);
        self.context.router.sequences.render(&mut text);
        text.push_str(&self.context.cloud.render());
        let mut reply = Response::new(Full::new(Bytes::from(text)));
        let text = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        reply.headers_mut().insert(CONTENT_TYPE, text);
        reply
    }

    /// Who answers, and what that release is called. A version that stands behind a trial can be asked for by name.
    fn find(&self, model: &str, version: Option<&str>) -> Result<(Route, AnsweredBy), Box<Reply>> {
        let model: String = model.chars().take(200).collect();
        let Some(route) = self.context.router.find(&model) else {
            if self.context.router.coming().contains(&model) {
                let message = format!("no release of {model:?} is active here yet; ask again after Retry-After");
                let mut reply = error(StatusCode::SERVICE_UNAVAILABLE, &message);
                reply.headers_mut().insert(RETRY_AFTER, NOT_YET.into());
                return Err(Box::new(reply));
            }
            let served: Vec<_> = self.context.router.all().into_iter().map(|(model, _)| model).collect();
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
        let arrived = Instant::now();
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
        let input = arrived.elapsed();
        let expires = wanted.timeout.and_then(|timeout| arrived.checked_add(timeout));
        let entry = wanted.question.entry;
        // A task of its own: a client that hangs up does not hide a release's failure.
        let ask = Ask { version: version.map(str::to_owned), ..wanted.ask };
        let context = Context { expires, ..self.context.clone() };
        let inference = tokio::spawn(context.infer_request(route, by, wanted.question, wanted.rows, ask));
        match in_time(inference, expires).await {
            Ok(Ok(mut answered)) => {
                let begun = Instant::now();
                let contract = &answered.loaded.contract;
                if contract.buckets.is_some() {
                    let (_, specs) = contract.entry(entry);
                    let outputs = answered.answer.outputs.iter_mut().zip(&specs).zip(&wanted.shapes).enumerate();
                    let longer = outputs.filter(|(_, ((_, spec), shape))| spec.shape != **shape);
                    longer.for_each(|(n, ((bytes, _), shape))| *bytes = contract.cut_back(entry, n, shape, bytes));
                }
                let reply = answered_reply(&answered, wanted.id.as_deref(), &wanted.outputs, &wanted.shapes);
                let took = Took { whole: arrived.elapsed(), input, output: begun.elapsed() };
                let contract = &answered.loaded.contract;
                self.context.metrics.answered(&contract.model, &contract.version, took);
                reply
            }
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
            Ok(Err(NoAnswer::Expired)) => error(
                StatusCode::GATEWAY_TIMEOUT,
                "the request's own timeout passed before there was an answer; ask again, or with a longer one",
            ),
            Ok(Err(NoAnswer::Gone(message))) => error(StatusCode::SERVICE_UNAVAILABLE, message),
            Err(_) => error(StatusCode::INTERNAL_SERVER_ERROR, "the request was given up; ask again"),
        }
    }
}

/// What came of an inference, or that its client's time was over: the inference goes on, so that no failure stays unseen.
async fn in_time(
    inference: JoinHandle<Result<Answered, NoAnswer>>,
    expires: Option<Instant>,
) -> Result<Result<Answered, NoAnswer>, JoinError> {
    match expires {
        None => inference.await,
        Some(expires) => tokio::time::timeout_at(expires.into(), inference).await.unwrap_or(Ok(Err(NoAnswer::Expired))),
    }
}

fn answered_reply(answered: &Answered, id: Option<&str>, wanted: &[(usize, bool)], shapes: &[Vec<u64>]) -> Reply {
    let loaded = &answered.loaded;
    let (number, outputs) = (loaded.release.number, &answered.answer.outputs);
    let (who, told) = ((answered.by, answered.said.as_ref()), answered.told.as_ref());
    let body = answer::write(&loaded.contract, number, who, id, wanted, outputs, shapes, told);
    let mut reply = Response::new(Full::new(body.bytes));
    let kind = if body.header.is_some() { "application/octet-stream" } else { "application/json" };
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if let Some(header) = body.header {
        reply.headers_mut().insert(HEADER_LENGTH, header.into());
    }
    reply
}

const NOTHING_HERE: &str = "there is nothing here; the Open Inference Protocol is below /v2, metrics at /metrics";

pub(super) fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

/// `{"error": …}`.
fn error(status: StatusCode, message: &str) -> Reply {
    json_reply(status, &json!({"error": message}))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// One path of every kind, with names in braces.
    pub(in super::super) const EVERY_PLACE: [&str; 17] = [
        "/metrics",
        "/openapi.json",
        "/v2",
        "/v2/health/live",
        "/v2/health/ready",
        "/v2/models/stats",
        "/v2/repository/index",
        "/v2/models/{model}",
        "/v2/models/{model}/ready",
        "/v2/models/{model}/config",
        "/v2/models/{model}/stats",
        "/v2/models/{model}/infer",
        "/v2/models/{model}/versions/{version}",
        "/v2/models/{model}/versions/{version}/ready",
        "/v2/models/{model}/versions/{version}/config",
        "/v2/models/{model}/versions/{version}/stats",
        "/v2/models/{model}/versions/{version}/infer",
    ];

    #[test]
    fn paths_are_what_they_are_and_nothing_else_is() {
        let mut kinds = std::collections::BTreeSet::new();
        for path in EVERY_PLACE {
            let kind = match Place::of(path).unwrap() {
                Place::Metrics => "metrics".to_owned(),
                Place::Server => "server".to_owned(),
                Place::Health => path.to_owned(),
                Place::Index => "index".to_owned(),
                Place::OpenApi => "openapi".to_owned(),
                Place::Stats => "stats".to_owned(),
                Place::Model(model, version, about) => {
                    assert!(model == "{model}" && version.as_ref().is_none_or(|v| v == "{version}"));
                    let about = match about {
                        About::Metadata => "metadata",
                        About::Ready => "ready",
                        About::Config => "config",
                        About::Stats => "stats",
                        About::Infer => "infer",
                    };
                    format!("{about} of {}", if version.is_some() { "a version" } else { "a model" })
                }
            };
            assert!(kinds.insert(kind), "{path} is there twice");
        }
        for path in
            ["/", "/v1", "/v2/models", "/v2/models/a/b", "/v2/models/a/versions/1/x", "/v2/health", "/metrics/x"]
        {
            assert!(Place::of(path).is_none(), "{path}");
        }
    }

    #[test]
    fn names_may_be_escaped() {
        let model = |path: &str| match Place::of(path)? {
            Place::Model(model, version, _) => Some(format!("{model} {}", version.unwrap_or_default())),
            _ => None,
        };
        assert_eq!(model("/v2/models/a%20b/versions/1%2B2%2f3/infer").as_deref(), Some("a b 1+2/3"));
        assert_eq!(model("/v2/models/%F0%9F%A6%80").as_deref(), Some("\u{1f980} "));
        for path in ["/v2/models/%", "/v2/models/%4", "/v2/models/%zz", "/v2/models/%+1", "/v2/models/%ff"] {
            assert_eq!(model(path), None, "{path}");
        }
    }
}
