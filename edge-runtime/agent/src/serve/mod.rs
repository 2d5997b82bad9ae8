//! The Open Inference Protocol over HTTP/1.1, with the binary tensor extension, and `/metrics`.

mod answer;
mod http;
mod infer;
mod numbers;
mod request;
mod routes;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::loaded::Loaded;

pub(crate) use http::{Server, bind};

/// Who answers for one model, now.
#[derive(Clone)]
pub(crate) struct Route {
    /// Takes every request.
    pub(crate) primary: Arc<Loaded>,
    /// Whether it is on trial.
    pub(crate) on_trial: bool,
    /// Answers what fails on `primary`.
    pub(crate) backup: Option<Arc<Loaded>>,
}

/// Routes by served name. A request keeps the route that it found: it ends where it started.
#[derive(Default)]
pub(crate) struct Router {
    routes: RwLock<BTreeMap<String, Route>>,
}

impl Router {
    pub(crate) fn find(&self, model: &str) -> Option<Route> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    pub(crate) fn set(&self, model: &str, route: Option<Route>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        // What leaves is dropped after the lock is given back: it may end threads.
        let old = match route {
            Some(route) => routes.insert(model.to_owned(), route),
            None => routes.remove(model),
        };
        drop(routes);
        drop(old);
    }

    pub(crate) fn all(&self) -> Vec<(String, Route)> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(model, route)| (model.clone(), route.clone())).collect()
    }
}

/// Where an answer came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnsweredBy {
    Candidate,
    Active,
    Fallback,
}

impl AnsweredBy {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Candidate => "candidate",
            Self::Active => "active",
            Self::Fallback => "fallback",
        }
    }
}

/// What answers requests.
pub(crate) fn service(
    router: Arc<Router>,
    metrics: Arc<crate::metrics::Metrics>,
    driver: tokio::sync::mpsc::UnboundedSender<crate::driver::Input>,
) -> routes::Service {
    routes::Service { router, metrics, driver }
}
