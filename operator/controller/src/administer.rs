//! Wishes that are not about models: tokens, and gateways that are retired, revoked or labelled.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use ballast_bundle::{GatewayId, NamespaceUid, UnixMillis};
use ballast_fleet::store::{GatewayState, StoreError};
use ballast_fleet::{Fleet, Wish};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::controller::Controller;
use crate::objects::Objects;
use crate::state::{self, StateDir, StateError};

impl Controller {
    /// Carries out what the objects say of tokens and gateways. Errors are logged and tried again by the next pass.
    pub(crate) async fn administer(&self, objects: &Objects, fleet: &Fleet) {
        self.keep_tokens(objects).await;
        let wishes: HashMap<_, _> =
            objects.gateways.iter().map(|(ns, id, wish)| ((ns.clone(), id.clone()), usable(wish))).collect();
        let before = {
            let mut current = self.wishes.write().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *current, wishes.clone())
        };
        for ((namespace, id), wish) in &wishes {
            if before.get(&(namespace.clone(), id.clone())) == Some(wish) {
                continue;
            }
            let asked = objects.gateways.iter().find(|(ns, gateway, _)| ns == namespace && gateway == id);
            if let Some(Err(error)) = asked.and_then(|(_, _, w)| w.labels.as_ref()).map(ballast_fleet::labels::check) {
                tracing::error!("the Gateway object {id}: spec.labels: {error}; the gateway keeps its labels");
            }
            match self.store.gateway(id.clone()).await {
                Ok(Some(row)) if row.namespace == *namespace => {}
                // Not enrolled here (yet): the wish waits for it.
                Ok(_) => continue,
                Err(e) => {
                    tracing::error!(gateway = %id, error = %e, "a gateway's row could not be read; tried again");
                    self.again(namespace, id);
                    continue;
                }
            }
            match self.store.wish(id.clone(), wish.state, wish.labels.clone()).await {
                Ok(row) => {
                    tracing::info!(gateway = %id, state = ?row.state, "gateway set as its object says");
                    if row.state != GatewayState::Enrolled {
                        fleet.connections().close(id);
                    }
                    let target = row.target.clone();
                    let reports = self.store.reports(id.clone()).await.unwrap_or_default();
                    self.roster.update(row, reports, target);
                }
                Err(StoreError::NoGateway(_)) => {}
                Err(e @ StoreError::Revoked(_)) => {
                    tracing::error!("the Gateway object {id} cannot be carried out: {e}")
                }
                Err(e) => {
                    tracing::error!(gateway = %id, error = %e, "a gateway's wish could not be stored; tried again");
                    self.again(namespace, id);
                }
            }
        }
    }

    /// The next pass carries this wish out.
    fn again(&self, namespace: &NamespaceUid, id: &GatewayId) {
        let mut wishes = self.wishes.write().unwrap_or_else(PoisonError::into_inner);
        wishes.remove(&(namespace.clone(), id.clone()));
    }

    /// Makes the tokens that objects ask for, and withdraws those whose objects are gone, in whatever start they were made.
    pub async fn keep_tokens(&self, objects: &Objects) {
        let mut wanted = HashSet::new();
        for (namespace, token, created) in &objects.tokens {
            let (name, namespace_name) = (token.name_any(), token.namespace().unwrap_or_else(|| "default".into()));
            wanted.insert((namespace.clone(), namespace_name.clone(), name.clone()));
            let life = match token.spec.expires_after.millis() {
                Ok(life) => life,
                Err(e) => {
                    tracing::error!(token = name, error = %e, "spec.expiresAfter");
                    continue;
                }
            };
            if let Err(e) = ballast_fleet::labels::check(&token.spec.labels) {
                tracing::error!(token = name, error = %e, "spec.labels");
                continue;
            }
            let spec = (token.spec.clone(), *created);
            let key = (namespace.clone(), name.clone());
            let known = {
                let mut kept = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                let known = kept.get(&key).map(|k| k.spec.as_ref() == Some(&spec));
                if known.is_none() {
                    // Remembered before it is made: whenever this process dies, an object that goes takes its token along.
                    kept.insert(key.clone(), KeptToken { namespace_name: namespace_name.clone(), spec: None });
                    if let Err(e) = save(&self.state, &kept) {
                        tracing::error!(token = name, error = %e, "an enrolment token could not be made; tried again");
                        kept.remove(&key);
                        continue;
                    }
                }
                known
            };
            if known == Some(true) {
                continue;
            }
            let uses = u32::try_from(token.spec.uses).unwrap_or(u32::MAX);
            let expires = UnixMillis(created.saturating_add(life));
            let made = self
                .tokens
                .create(
                    namespace,
                    &namespace_name,
                    &name,
                    token.spec.labels.clone(),
                    uses,
                    expires,
                    token.spec.allow_replace,
                )
                .await;
            match made {
                Ok(_) => {
                    tracing::info!(token = name, uses, "enrolment token ready");
                    let kept = KeptToken { namespace_name, spec: Some(spec) };
                    self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner).insert(key, kept);
                }
                Err(e) => {
                    tracing::error!(token = name, error = %e, "an enrolment token could not be made; tried again")
                }
            }
        }
        if !objects.complete {
            return;
        }
        let gone: Vec<_> = {
            let kept = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            kept.iter()
                .map(|((ns, name), kept)| (ns.clone(), kept.namespace_name.clone(), name.clone()))
                .filter(|key| !wanted.contains(key))
                .collect()
        };
        for (namespace, namespace_name, name) in gone {
            match self.tokens.remove(&namespace, &namespace_name, &name).await {
                Ok(()) => {
                    tracing::info!(token = name, "enrolment token withdrawn");
                    let mut kept = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    kept.remove(&(namespace, name));
                    if let Err(e) = save(&self.state, &kept) {
                        tracing::error!(error = %e, "the list of tokens could not be kept; the next start withdraws it again");
                    }
                }
                Err(e) => tracing::error!(token = name, error = %e, "a token could not be withdrawn; tried again"),
            }
        }
    }
}

/// Labels that no certificate can carry would lock the gateway out at its next renewal: it keeps those that it has.
fn usable(wish: &Wish) -> Wish {
    let labels = wish.labels.clone().filter(|labels| ballast_fleet::labels::check(labels).is_ok());
    Wish { labels, ..wish.clone() }
}

/// A token that was made from an object.
#[derive(Debug)]
pub(crate) struct KeptToken {
    namespace_name: String,
    /// What it was made of, with the time of creation; absent until it is made in this process.
    spec: Option<(ballast_crds::EnrollmentTokenSpec, u64)>,
}

/// All of them. Others were made at the administrator's socket and have no object to go with.
pub(crate) type KeptTokens = HashMap<(NamespaceUid, String), KeptToken>;

/// One line of `token-objects.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: NamespaceUid,
    namespace_name: String,
    name: String,
}

/// Those of earlier starts.
pub(crate) fn load(state: &StateDir) -> Result<KeptTokens, StateError> {
    let lines: Vec<Line> = state::read_json(&state.path(FILE))?.unwrap_or_default();
    let kept =
        |line: Line| ((line.namespace, line.name), KeptToken { namespace_name: line.namespace_name, spec: None });
    Ok(lines.into_iter().map(kept).collect())
}

const FILE: &str = "token-objects.json";

fn save(state: &StateDir, kept: &KeptTokens) -> Result<(), StateError> {
    let mut lines: Vec<Line> = kept
        .iter()
        .map(|((namespace, name), kept)| Line {
            namespace: namespace.clone(),
            namespace_name: kept.namespace_name.clone(),
            name: name.clone(),
        })
        .collect();
    lines.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    state::write_json(&state.path(FILE), &lines)
}
