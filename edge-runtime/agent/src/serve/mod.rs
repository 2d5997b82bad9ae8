//! The Open Inference Protocol over HTTP/1.1, with the binary tensor extension, and `/metrics`.

mod access;
mod answer;
mod body;
mod compress;
mod describe;
mod http;
mod infer;
mod listen;
pub(crate) mod numbers;
mod openapi;
mod request;
mod routes;
mod rows;
mod sequence;
mod stats;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError, RwLock};

use crate::loaded::Loaded;

pub(crate) use access::Access;
pub(crate) use body::BodyLimits;
pub(crate) use http::Server;
pub(crate) use infer::Answered;
pub(crate) use listen::Listener;

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

impl Route {
    /// Whoever can answer a request for `primary` instead of it: a release with other tensors cannot.
    pub(crate) fn stand_in(&self) -> Option<&Arc<Loaded>> {
        self.backup.as_ref().filter(|backup| backup.answers_for(&self.primary))
    }

    /// What its primary is called.
    pub(crate) const fn by(&self) -> AnsweredBy {
        if self.on_trial { AnsweredBy::Candidate } else { AnsweredBy::Active }
    }

    fn has(&self, loaded: &Arc<Loaded>) -> bool {
        [Some(&self.primary), self.backup.as_ref()].into_iter().flatten().any(|own| Arc::ptr_eq(own, loaded))
    }
}

/// Routes by served name. A request that an instance has begun ends there; one that waits for a release that leaves is
/// answered by whoever serves then.
#[derive(Default)]
pub(crate) struct Router {
    routes: RwLock<BTreeMap<String, Route>>,
    /// Models that the assignment names, served or not.
    assigned: RwLock<BTreeSet<String>>,
    /// What models carry from request to request.
    sequences: sequence::Sequences,
}

impl Router {
    pub(crate) fn find(&self, model: &str) -> Option<Route> {
        self.routes.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// What `deployment` serves as `model`, or nothing. Another deployment's route is never taken away: a name may have
    /// passed on to it.
    pub(crate) fn set(&self, model: &str, deployment: &str, route: Option<Route>) {
        let mut routes = self.routes.write().unwrap_or_else(PoisonError::into_inner);
        let now = route.clone();
        let old = match route {
            Some(route) => routes.insert(model.to_owned(), route),
            None if routes.get(model).is_some_and(|r| r.primary.deployment == deployment) => routes.remove(model),
            None => None,
        };
        // What leaves is dropped after the lock is given back: it may end threads.
        let serves = routes.get(model).cloned();
        drop(routes);
        self.sequences.served_by(model, serves.as_ref());
        let Some(old) = old else { return };
        for loaded in [Some(old.primary), old.backup].into_iter().flatten() {
            if !now.as_ref().is_some_and(|now| now.has(&loaded)) {
                loaded.leave();
            }
        }
    }

    /// The models that should be served here.
    pub(crate) fn assign(&self, models: BTreeSet<String>) {
        *self.assigned.write().unwrap_or_else(PoisonError::into_inner) = models;
    }

    /// Models that should be served and cannot be yet.
    pub(crate) fn coming(&self) -> Vec<String> {
        let routes = self.routes.read().unwrap_or_else(PoisonError::into_inner);
        let assigned = self.assigned.read().unwrap_or_else(PoisonError::into_inner);
        assigned.iter().filter(|model| !routes.contains_key(*model)).cloned().collect()
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
    cloud: Arc<crate::cloud::Cloud>,
    driver: tokio::sync::mpsc::UnboundedSender<crate::driver::Input>,
    access: Access,
) -> routes::Service {
    let context = infer::Context { router, metrics, cloud, driver, step: None, expires: None };
    routes::Service { context, access }
}
