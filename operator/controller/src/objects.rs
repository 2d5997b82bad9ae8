//! What the controller needs from wherever its objects come from.

use std::collections::BTreeMap;
use std::sync::Arc;

use ballast_bundle::{Counter, DeploymentRef, GatewayId, NamespaceUid};
use ballast_crds::{EnrollmentToken, Gateway, GatewayState, HardwareTarget, ModelDeployment, ModelDeploymentStatus};
use ballast_fleet::{BoxFuture, Wish};
use kube::ResourceExt as _;
use serde::Serialize;

use crate::events::Event;

/// A ModelDeployment and where it lives.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// UID of its namespace.
    pub namespace: NamespaceUid,
    /// The object as last accepted.
    pub object: Arc<ModelDeployment>,
    /// Order of creation: who was first keeps a name.
    pub created: u64,
}

impl Deployment {
    /// Namespace UID and name.
    pub fn deployment(&self) -> DeploymentRef {
        DeploymentRef { namespace: self.namespace.clone(), name: self.object.name_any() }
    }

    /// The namespace's name.
    pub fn namespace_name(&self) -> String {
        self.object.namespace().unwrap_or_else(|| "default".into())
    }
}

/// All objects as last accepted.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// True when the source is whole: only then does an absent object mean that it was removed.
    pub complete: bool,
    /// Wishes.
    pub deployments: Vec<Deployment>,
    /// Objects that are there and cannot be understood: what ran goes on.
    pub standing: Vec<DeploymentRef>,
    /// Besides the built-in ones, or instead of them.
    pub targets: Vec<HardwareTarget>,
    /// By namespace; with the time of creation in milliseconds.
    pub tokens: Vec<(NamespaceUid, Arc<EnrollmentToken>, u64)>,
    /// EnrollmentTokens that are there and cannot be understood: what was made of them stays.
    pub standing_tokens: Vec<StandingToken>,
    /// What administrators say of gateways.
    pub gateways: Vec<(NamespaceUid, GatewayId, Wish)>,
}

/// An EnrollmentToken that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StandingToken {
    /// UID of its namespace.
    pub namespace: NamespaceUid,
    /// The namespace's name.
    pub namespace_name: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: Option<String>,
}

/// `ballast.dev/retry`: another try of the release with this counter. The same release may be retried again, as the next
/// attempt: `COUNTER`, then `COUNTER/2`, ….
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Of the release that failed.
    pub counter: u64,
    /// 1 the first time.
    pub attempt: u32,
}

impl std::fmt::Display for Retry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.attempt {
            0 | 1 => write!(f, "{}", self.counter),
            attempt => write!(f, "{}/{attempt}", self.counter),
        }
    }
}

impl std::str::FromStr for Retry {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (counter, attempt) = text.trim().split_once('/').unwrap_or((text.trim(), "1"));
        Ok(Self { counter: counter.parse()?, attempt: attempt.parse()? })
    }
}

/// What an administrator asks for through the socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    /// `spec.rollout.paused`.
    Paused(bool),
    /// `spec.rollout.paused: false`, and another try of a release that halted.
    Resume(Retry),
    /// `ballast.dev/retry`.
    Retry(Retry),
    /// `spec.model` from a revision.
    Model(serde_json::Value),
}

/// Why a newer wish for an object is not in force: what was accepted before goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SourceProblem {
    /// Below the directory; empty when the directory itself is to blame.
    pub file: String,
    /// From 1, where one line is to blame.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Where objects come from.
pub trait Source: Send + Sync + 'static {
    /// UID of a namespace by its name; made when nobody asked for it before. Blocking.
    fn namespace(&self, name: &str) -> Result<NamespaceUid, String>;
    /// The names of all namespaces that have a UID.
    fn namespaces(&self) -> BTreeMap<NamespaceUid, String>;
    /// All of them, now.
    fn objects(&self) -> Objects;
    /// Ends when they changed since the last time.
    fn changed(&self) -> BoxFuture<'_, ()>;
    /// The highest counter that is known to have been given out for a deployment, where the source keeps it. What it says is
    /// as good as whoever may write the object.
    fn counter(&self, _deployment: &DeploymentRef) -> Option<Counter> {
        None
    }
    /// Makes a counter durable with the object, before anything is signed under it; refuses when the object is another one
    /// than the one that was read. Blocking.
    fn reserve(&self, _deployment: &DeploymentRef, _counter: Counter) -> Result<(), String> {
        Ok(())
    }
    /// After a pass over everything: whatever waits for its withdrawal may go, unless it is still remembered.
    fn settled(&self, _remembered: &dyn Fn(&DeploymentRef) -> bool) {}
    /// Gives a token's text to whoever may read it, besides its file. A place that is taken is an error where the text is a
    /// `fresh` one: it is somebody else's, or holds the text of before.
    fn hand_over<'a>(
        &'a self,
        _token: &'a EnrollmentToken,
        _text: &'a str,
        _fresh: bool,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }
    /// Writes a status if it differs from the one that is there.
    fn put_status(&self, deployment: &Deployment, status: ModelDeploymentStatus);
    /// Remembers an event; the same again counts up. Blocking.
    fn put_event(&self, deployment: &Deployment, event: Event);
    /// What is remembered of an object, the newest last. Blocking.
    fn events(&self, deployment: &Deployment) -> Vec<Event>;
    /// Changes an object as an administrator asks. Blocking.
    fn overlay(&self, deployment: &Deployment, overlay: Overlay) -> Result<(), String>;
    /// What is wrong with the source itself: files that cannot be read, and so on; for people.
    fn problems(&self) -> Vec<String>;
    /// What of that keeps a newer wish for this object from being seen.
    fn problems_of(&self, deployment: &Deployment) -> Vec<SourceProblem>;
}

/// What a Gateway object asks for.
pub(crate) fn wish(gateway: Gateway) -> Wish {
    let state = match gateway.spec.state {
        GatewayState::Enrolled => ballast_fleet::store::GatewayState::Enrolled,
        GatewayState::Retired => ballast_fleet::store::GatewayState::Retired,
        GatewayState::Revoked => ballast_fleet::store::GatewayState::Revoked,
    };
    Wish { state, labels: gateway.spec.labels }
}
