//! Joint inference: what the edge is not sure of, the cloud is asked. Which answers those are, and within which limits,
//! is decided by `ballast-escalation`; here it is done. Whatever the cloud does, the edge's own answer stands after the
//! deadline.

mod client;
mod keeping;
mod line;
mod meter;
mod wire;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use ballast_bundle::{AssignedDeployment, Privacy};
use ballast_escalation::{BreakerState, Keep};
use bytes::Bytes;
use rustls::ClientConfig;

use self::client::Server;
use self::keeping::Keeping;
use self::line::{Line, Own, Tally};
use crate::identity::Credentials;
use crate::serve::Answered;
use crate::state::StateDir;
use crate::time::Clock;
use crate::tls::TlsError;

pub(crate) use line::Said;

/// Every deployment's line to the cloud.
pub(crate) struct Cloud {
    dir: Arc<StateDir>,
    clock: Arc<Clock>,
    /// What this gateway's owner lets out, whatever is assigned.
    privacy: Privacy,
    inner: RwLock<Inner>,
}

struct Inner {
    credentials: Credentials,
    lines: BTreeMap<String, Arc<Line>>,
    /// Budgets and counts outlive their line: no new assignment brings back what was spent.
    kept: BTreeMap<String, (Arc<Keeping>, Arc<Tally>)>,
}

impl Cloud {
    pub(crate) fn new(dir: Arc<StateDir>, clock: Arc<Clock>, privacy: Privacy, credentials: Credentials) -> Self {
        let inner = Inner { credentials, lines: BTreeMap::new(), kept: BTreeMap::new() };
        Self { dir, clock, privacy, inner: RwLock::new(inner) }
    }

    /// A certificate was renewed, or a trust root has other authorities.
    pub(crate) fn identify(&self, credentials: Credentials) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        for line in inner.lines.values() {
            match self.tls(&credentials, line.escalation.cloud.ca.as_deref()) {
                Ok(tls) => line.server.identify(tls),
                Err(error) => tracing::error!(%error, deployment = line.deployment, "the old certificate stays in use"),
            }
        }
        inner.credentials = credentials;
    }

    fn tls(&self, credentials: &Credentials, ca: Option<&str>) -> Result<Arc<ClientConfig>, TlsError> {
        let own = ca.map(|ca| vec![ca.to_owned()]);
        let ca = own.as_ref().unwrap_or(&credentials.ca);
        crate::tls::mutual(ca, &credentials.certificate, &credentials.key, Arc::clone(&self.clock))
    }

    /// What is assigned from now on.
    pub(crate) fn assign(&self, deployments: &[AssignedDeployment]) {
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut inner.lines);
        for assigned in deployments {
            let Some(escalation) = &assigned.escalation else { continue };
            let name = assigned.deployment.name.clone();
            if let Some(same) = before.remove(&name).filter(|line| line.escalation == *escalation) {
                inner.lines.insert(name, same);
                continue;
            }
            let tls = match self.tls(&inner.credentials, escalation.cloud.ca.as_deref()) {
                Ok(tls) => tls,
                Err(error) => {
                    tracing::error!(%error, deployment = name, "the cloud is not asked");
                    continue;
                }
            };
            let Some(server) = Server::new(&escalation.cloud.endpoint, &escalation.cloud.model, tls) else {
                let endpoint = &escalation.cloud.endpoint;
                tracing::error!(
                    deployment = name,
                    endpoint,
                    "the cloud is not asked: not https://HOST[:PORT][/PREFIX]"
                );
                continue;
            };
            if self.privacy < Privacy::Any && escalation.privacy == Privacy::Any {
                tracing::warn!(
                    deployment = name,
                    "nothing leaves: the deployment would ask the cloud, and this gateway's `privacy` does not allow it"
                );
            }
            let open = || (Arc::new(Keeping::open(Arc::clone(&self.dir), &name, self.clock.now())), Arc::default());
            let (keeping, tally) = inner.kept.entry(name.clone()).or_insert_with(open).clone();
            let line = Line {
                deployment: name.clone(),
                escalation: escalation.clone(),
                server,
                keeping,
                tally,
                privacy: self.privacy.min(escalation.privacy),
                clock: Arc::clone(&self.clock),
            };
            inner.lines.insert(name, Arc::new(line));
        }
    }

    /// The answer to a request of `rows` rows: the edge's own, or the cloud's in its place. A client that does not wait for
    /// longer than `expires` is not made to.
    pub(crate) async fn finish(
        &self,
        mut answered: Answered,
        inputs: &[Bytes],
        rows: u64,
        expires: Option<Instant>,
    ) -> Answered {
        let line = {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            inner.lines.get(&answered.loaded.deployment).cloned()
        };
        let Some(line) = line else { return answered };
        let own = Own { contract: &answered.loaded.contract, outputs: &answered.answer.outputs, rows, expires };
        let Some((said, outputs)) = line.finish(own, inputs).await else { return answered };
        answered.said = Some(said);
        if let Some(outputs) = outputs {
            answered.answer.outputs = outputs;
        }
        answered
    }

    /// Prometheus' text format; nothing where no deployment asks the cloud.
    pub(crate) fn render(&self) -> String {
        let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
        if inner.kept.is_empty() {
            return String::new();
        }
        let mut out = String::new();
        let head = |out: &mut String, name: &str, kind: &str, help: &str| {
            let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        };
        let name = "ballast_escalation_requests_total";
        head(&mut out, name, "counter", "Answers by what became of them at the border to the cloud");
        for (deployment, (_, tally)) in &inner.kept {
            let kept = [
                ("sure", Keep::Sure),
                ("private", Keep::Private),
                ("over_bytes", Keep::OverBytes),
                ("over_requests", Keep::OverRequests),
                ("unreachable", Keep::Unreachable),
                ("busy", Keep::Busy),
            ];
            let kept = kept.map(|(outcome, keep)| (outcome, tally.kept(keep)));
            let load = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            let asked = [
                ("answered", load(&tally.answered)),
                ("failed", load(&tally.failed)),
                ("unreadable", load(&tally.unreadable)),
            ];
            for (outcome, count) in asked.into_iter().chain(kept) {
                let _ = writeln!(out, "{name}{{deployment=\"{deployment}\",outcome=\"{outcome}\"}} {count}");
            }
        }
        let name = "ballast_escalation_agreement_total";
        head(
            &mut out,
            name,
            "counter",
            "The cloud's answers, escalated or of the random share, by whether the edge said the same",
        );
        for (deployment, (_, tally)) in &inner.kept {
            for (says, count) in [("agreed", &tally.agreed), ("disagreed", &tally.disagreed)] {
                let count = count.load(Ordering::Relaxed);
                let _ = writeln!(out, "{name}{{deployment=\"{deployment}\",cloud=\"{says}\"}} {count}");
            }
        }
        let name = "ballast_escalation_bytes_total";
        head(
            &mut out,
            name,
            "counter",
            "Bytes over connections to the cloud that were answered, both ways, TLS included",
        );
        for (deployment, (_, tally)) in &inner.kept {
            let _ = writeln!(out, "{name}{{deployment=\"{deployment}\"}} {}", tally.bytes.load(Ordering::Relaxed));
        }
        let name = "ballast_escalation_circuit_open";
        head(&mut out, name, "gauge", "1 while the cloud is left alone because it did not answer");
        for (deployment, (keeping, _)) in &inner.kept {
            let closed = |state: BreakerState| matches!(state, BreakerState::Closed { .. });
            let open = keeping.with(|escalator, _| !closed(escalator.breaker().state()));
            let _ = writeln!(out, "{name}{{deployment=\"{deployment}\"}} {}", u8::from(open));
        }
        out
    }
}
