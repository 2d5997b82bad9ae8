//! Paths and statuses of the protocol.

use std::sync::Arc;

use ballast_bundle::TensorSpec;
use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, RETRY_AFTER};
use hyper::{HeaderMap, Method, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::infer::{self, NoAnswer};
use super::{Route, Router, answer, numbers, request};
use crate::driver::Input;
use crate::metrics::Metrics;

/// The extension's header, both ways.
pub(crate) const HEADER_LENGTH: &str = "inference-header-content-length";

/// What answers need.
pub(crate) struct Service {
    pub(crate) router: Arc<Router>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) driver: mpsc::UnboundedSender<Input>,
}

type Reply = Response<Full<Bytes>>;

impl Service {
    /// Whether a request with this path has a body worth reading; everything else is answered at once.
    pub(crate) fn takes_body(method: &Method, path: &str) -> bool {
        method == Method::POST && path.ends_with("/infer")
    }

    pub(crate) async fn answer(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let reply = self.route(method, path, headers, body).await;
        if reply.status().is_client_error() {
            self.metrics.refused();
        }
        reply
    }

    async fn route(&self, method: &Method, path: &str, headers: &HeaderMap, body: Bytes) -> Reply {
        let parts: Vec<&str> = path.trim_start_matches('/').trim_end_matches('/').split('/').collect();
        let get = method == Method::GET || method == Method::HEAD;
        match parts.as_slice() {
            ["metrics"] if get => self.metrics(),
            ["v2"] if get => json_reply(StatusCode::OK, &server()),
            ["v2", "health", "live" | "ready"] if get => {
                json_reply(StatusCode::OK, &json!({"live": true, "ready": true}))
            }
            ["v2", "repository", "index"] if method == Method::POST => self.index(),
            ["v2", "models", model] if get => {
                self.with(model, None, |route| json_reply(StatusCode::OK, &metadata(route)))
            }
            ["v2", "models", model, "versions", version] if get => {
                self.with(model, Some(version), |route| json_reply(StatusCode::OK, &metadata(route)))
            }
            ["v2", "models", model, "ready"] if get => self.ready(model, None),
            ["v2", "models", model, "versions", version, "ready"] if get => self.ready(model, Some(version)),
            ["v2", "models", model, "config"] if get => {
                self.with(model, None, |route| json_reply(StatusCode::OK, &config(route)))
            }
            ["v2", "models", model, "infer"] if method == Method::POST => self.infer(model, None, headers, body).await,
            ["v2", "models", model, "versions", version, "infer"] if method == Method::POST => {
                self.infer(model, Some(version), headers, body).await
            }
            ["v2", ..] | ["metrics"] => {
                let known =
                    matches!(parts.as_slice(), ["v2" | "metrics"] | ["v2", "health" | "models" | "repository", ..]);
                if known {
                    error(StatusCode::METHOD_NOT_ALLOWED, &format!("{method} does not go with this path"))
                } else {
                    error(StatusCode::NOT_FOUND, NOTHING_HERE)
                }
            }
            _ => error(StatusCode::NOT_FOUND, NOTHING_HERE),
        }
    }

    fn metrics(&self) -> Reply {
        let mut served = Vec::new();
        for (model, route) in self.router.all() {
            let role = if route.on_trial { "candidate" } else { "active" };
            served.push((model.clone(), route.primary.contract.version.clone(), role, route.primary.queued()));
            if let Some(backup) = &route.backup {
                served.push((model, backup.contract.version.clone(), "fallback", backup.queued()));
            }
        }
        let mut reply = Response::new(Full::new(Bytes::from(self.metrics.render(&served))));
        let text = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
        reply.headers_mut().insert(CONTENT_TYPE, text);
        reply
    }

    fn index(&self) -> Reply {
        let all: Vec<_> = self.router.all();
        let index: Vec<Value> = all
            .iter()
            .map(|(model, route)| json!({"name": model, "version": route.primary.contract.version, "state": "READY"}))
            .collect();
        json_reply(StatusCode::OK, &Value::Array(index))
    }

    fn with(&self, model: &str, version: Option<&str>, then: impl FnOnce(&Route) -> Reply) -> Reply {
        match self.find(model, version) {
            Ok(route) => then(&route),
            Err(reply) => *reply,
        }
    }

    fn find(&self, model: &str, version: Option<&str>) -> Result<Route, Box<Reply>> {
        let model: String = model.chars().take(200).collect();
        let Some(route) = self.router.find(&model) else {
            let served: Vec<_> = self.router.all().into_iter().map(|(model, _)| model).collect();
            let served = if served.is_empty() { "none yet".to_owned() } else { served.join(", ") };
            let message = format!("there is no model {model:?} here; served are: {served}");
            return Err(Box::new(error(StatusCode::NOT_FOUND, &message)));
        };
        match version {
            Some(version) if version != route.primary.contract.version => {
                let (version, has) = (version.chars().take(100).collect::<String>(), &route.primary.contract.version);
                let message = format!("version {version:?} of {model:?} is not served here now; {has:?} is");
                Err(Box::new(error(StatusCode::NOT_FOUND, &message)))
            }
            Some(_) | None => Ok(route),
        }
    }

    fn ready(&self, model: &str, version: Option<&str>) -> Reply {
        self.with(model, version, |route| {
            json_reply(StatusCode::OK, &json!({"name": route.primary.contract.model, "ready": true}))
        })
    }

    async fn infer(&self, model: &str, version: Option<&str>, headers: &HeaderMap, body: Bytes) -> Reply {
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
        let route = match self.find(model, version) {
            Ok(route) => route,
            Err(reply) => return *reply,
        };
        let wanted = match request::read(&body, header, &route.primary.contract) {
            Ok(wanted) => wanted,
            Err(message) => return error(StatusCode::BAD_REQUEST, &message),
        };
        drop(body);
        match infer::infer(&self.router, route, wanted.inputs, &self.driver, &self.metrics).await {
            Ok(answered) => {
                let loaded = &answered.loaded;
                let (number, outputs) = (loaded.release.number, &answered.answer.outputs);
                let body = answer::write(
                    &loaded.contract,
                    number,
                    answered.by,
                    wanted.id.as_deref(),
                    &wanted.outputs,
                    outputs,
                );
                let mut reply = Response::new(Full::new(body.bytes));
                let kind = if body.header.is_some() { "application/octet-stream" } else { "application/json" };
                reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
                if let Some(header) = body.header {
                    reply.headers_mut().insert(HEADER_LENGTH, header.into());
                }
                reply
            }
            Err(NoAnswer::QueueFull) => {
                let mut reply =
                    error(StatusCode::TOO_MANY_REQUESTS, "the model's queue is full; try again after Retry-After");
                reply.headers_mut().insert(RETRY_AFTER, 1.into());
                reply
            }
            Err(NoAnswer::Input(message)) => error(StatusCode::UNPROCESSABLE_ENTITY, &message),
            Err(NoAnswer::Failed(message)) => error(StatusCode::INTERNAL_SERVER_ERROR, &message),
            Err(NoAnswer::Gone) => error(StatusCode::SERVICE_UNAVAILABLE, "the model was withdrawn"),
        }
    }
}

const NOTHING_HERE: &str = "there is nothing here; the Open Inference Protocol is below /v2, metrics at /metrics";

fn server() -> Value {
    json!({"name": "ballast-edge", "version": env!("CARGO_PKG_VERSION"), "extensions": ["binary_tensor_data"]})
}

fn tensors(specs: &[TensorSpec]) -> Vec<Value> {
    specs.iter().map(|t| json!({"name": t.name, "datatype": numbers::name(t.datatype), "shape": t.shape})).collect()
}

fn metadata(route: &Route) -> Value {
    let contract = &route.primary.contract;
    json!({
        "name": contract.model,
        "versions": [contract.version],
        "platform": "ballast_plan",
        "inputs": tensors(&contract.inputs),
        "outputs": tensors(&contract.outputs),
    })
}

/// What tritonclient's `/config` reads: names, types and dimensions.
fn config(route: &Route) -> Value {
    let contract = &route.primary.contract;
    let tensors = |specs: &[TensorSpec]| -> Vec<Value> {
        let all = specs.iter();
        all.map(
            |t| json!({"name": t.name, "data_type": format!("TYPE_{}", numbers::name(t.datatype)), "dims": t.shape}),
        )
        .collect()
    };
    json!({
        "name": contract.model,
        "platform": "ballast_plan",
        "max_batch_size": 0,
        "input": tensors(&contract.inputs),
        "output": tensors(&contract.outputs),
    })
}

fn json_reply(status: StatusCode, value: &Value) -> Reply {
    let mut reply = Response::new(Full::new(Bytes::from(value.to_string())));
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static("application/json"));
    reply
}

/// `{"error": …}`.
pub(crate) fn error(status: StatusCode, message: &str) -> Reply {
    json_reply(status, &json!({"error": message}))
}
