//! Tokens that EnrollmentToken objects ask for. They go with their objects; those made at the administrator's socket have
//! none. A name is one's or the other's: whoever comes second is refused.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use ballast_bundle::{NamespaceUid, UnixMillis};
use ballast_crds::{EnrollmentToken, EnrollmentTokenSpec};
use kube::ResourceExt as _;
use serde::{Deserialize, Serialize};

use crate::controller::Controller;
use crate::objects::Objects;
use crate::state::{self, StateDir, StateError};
use crate::tokens::{Asked, TokenError};

type Key = (NamespaceUid, String);

/// A token that was made from an object.
#[derive(Debug)]
struct Kept {
    namespace_name: String,
    /// What it was made of, with the time of creation; absent until it is made in this process.
    spec: Option<(EnrollmentTokenSpec, u64)>,
}

/// What is known of objects' tokens.
#[derive(Debug, Default)]
pub struct KeptTokens {
    /// Those that objects have.
    kept: HashMap<Key, Kept>,
    /// Objects that were told that their name is taken.
    refused: HashSet<Key>,
    /// Made in this process, and not handed over yet.
    fresh: HashSet<Key>,
}

/// One line of `token-objects.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: NamespaceUid,
    namespace_name: String,
    name: String,
}

const FILE: &str = "token-objects.json";

/// Those of earlier starts.
pub fn load(state: &StateDir) -> Result<KeptTokens, StateError> {
    let lines: Vec<Line> = state::read_json(&state.path(FILE))?.unwrap_or_default();
    let kept = |line: Line| ((line.namespace, line.name), Kept { namespace_name: line.namespace_name, spec: None });
    Ok(KeptTokens { kept: lines.into_iter().map(kept).collect(), refused: HashSet::new(), fresh: HashSet::new() })
}

impl KeptTokens {
    fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let line = |((namespace, name), kept): (&Key, &Kept)| Line {
            namespace: namespace.clone(),
            namespace_name: kept.namespace_name.clone(),
            name: name.clone(),
        };
        let mut lines: Vec<Line> = self.kept.iter().map(line).collect();
        lines.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        state::write_json(&state.path(FILE), &lines)
    }
}

impl Controller {
    /// Makes a token that no object asked for, under a name that is free.
    pub async fn new_token(&self, asked: &Asked) -> Result<String, TokenError> {
        let _naming = self.naming.lock().await;
        let key = (asked.namespace.clone(), asked.name.clone());
        let (name, namespace) = (&asked.name, &asked.namespace_name);
        let wished =
            self.source.objects().tokens.iter().any(|(uid, token, _)| *uid == key.0 && token.name_any() == key.1);
        if wished || self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner).kept.contains_key(&key) {
            return Err(TokenError::Taken(format!(
                "the EnrollmentToken object {name} in namespace {namespace} has this name: choose another one, or use the object's token"
            )));
        }
        let known = self.store.tokens().await?;
        if let Some(known) = known.iter().find(|t| t.namespace == key.0 && t.name == key.1) {
            return Err(TokenError::Taken(format!(
                "there is a token {name} in namespace {namespace} already ({} of {} uses left): choose another name",
                known.uses.saturating_sub(known.used),
                known.uses
            )));
        }
        self.tokens.create(asked).await
    }

    /// Makes the tokens that objects ask for, and withdraws those whose objects are gone, in whatever start they were made.
    pub async fn keep_tokens(&self, objects: &Objects) {
        let mut wanted = HashSet::new();
        for (namespace, token, created) in &objects.tokens {
            wanted.insert((namespace.clone(), token.name_any()));
            self.keep_token(namespace, token, *created).await;
        }
        if objects.complete {
            self.withdraw_tokens(&wanted).await;
        }
    }

    /// Errors are logged and tried again by the next pass.
    async fn keep_token(&self, namespace: &NamespaceUid, token: &EnrollmentToken, created: u64) {
        let (name, namespace_name) = (token.name_any(), token.namespace().unwrap_or_else(|| "default".into()));
        let life = match token.spec.expires_after.millis() {
            Ok(life) => life,
            Err(e) => return tracing::error!(token = name, error = %e, "spec.expiresAfter"),
        };
        if let Err(e) = ballast_fleet::labels::check(&token.spec.labels) {
            return tracing::error!(token = name, error = %e, "spec.labels");
        }
        let spec = (token.spec.clone(), created);
        let key = (namespace.clone(), name.clone());
        let known = {
            let tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.kept.get(&key).map(|k| k.spec.as_ref() == Some(&spec))
        };
        let free = match known {
            Some(true) => return,
            Some(false) => Ok(true),
            None => self.take_name(&key, &namespace_name).await,
        };
        let asked = Asked {
            namespace: namespace.clone(),
            namespace_name: namespace_name.clone(),
            name: name.clone(),
            labels: token.spec.labels.clone(),
            uses: u32::try_from(token.spec.uses).unwrap_or(u32::MAX),
            expires: UnixMillis(created.saturating_add(life)),
            allow_replace: token.spec.allow_replace,
        };
        let made = match free {
            Ok(true) => self.tokens.create(&asked).await,
            Ok(false) => return,
            Err(e) => Err(e),
        };
        match made {
            Ok(text) => {
                let fresh = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner).fresh.contains(&key);
                if let Err(error) = self.source.hand_over(token, &text, fresh).await {
                    return tracing::error!(
                        token = name,
                        error,
                        "an enrolment token could not be handed over; tried again"
                    );
                }
                tracing::info!(token = name, uses = asked.uses, "enrolment token ready");
                let kept = Kept { namespace_name, spec: Some(spec) };
                let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                tokens.fresh.remove(&key);
                tokens.kept.insert(key, kept);
            }
            Err(e) => tracing::error!(token = name, error = %e, "an enrolment token could not be made; tried again"),
        }
    }

    /// Makes a name an object's, unless somebody made a token of that name without one. Durable before the token is made:
    /// whenever this process dies, an object that goes takes its token along.
    async fn take_name(&self, key: &Key, namespace_name: &str) -> Result<bool, TokenError> {
        let _naming = self.naming.lock().await;
        let taken = self.store.tokens().await?.iter().any(|t| t.namespace == key.0 && t.name == key.1);
        let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
        if taken {
            if tokens.refused.insert(key.clone()) {
                tracing::error!(
                    "the EnrollmentToken object {} in namespace {namespace_name} is not carried out: `ballast token create` made a token of this name, which stays as it is; give the object another metadata.name",
                    key.1
                );
            }
            return Ok(false);
        }
        tokens.refused.remove(key);
        tokens.fresh.insert(key.clone());
        tokens.kept.insert(key.clone(), Kept { namespace_name: namespace_name.to_owned(), spec: None });
        let saved = tokens.save(&self.state);
        if saved.is_err() {
            tokens.kept.remove(key);
        }
        Ok(saved.map(|()| true)?)
    }

    async fn withdraw_tokens(&self, wanted: &HashSet<Key>) {
        let gone: Vec<_> = {
            let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.refused.retain(|key| wanted.contains(key));
            tokens.fresh.retain(|key| wanted.contains(key));
            let gone = tokens.kept.iter().filter(|(key, _)| !wanted.contains(*key));
            gone.map(|(key, kept)| (key.clone(), kept.namespace_name.clone())).collect()
        };
        for (key, namespace_name) in gone {
            let name = &key.1;
            match self.tokens.remove(&key.0, &namespace_name, name).await {
                Ok(()) => {
                    tracing::info!(token = name, "enrolment token withdrawn");
                    let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.kept.remove(&key);
                    if let Err(e) = tokens.save(&self.state) {
                        tracing::error!(error = %e, "the list of tokens could not be kept; the next start withdraws it again");
                    }
                }
                Err(e) => tracing::error!(token = name, error = %e, "a token could not be withdrawn; tried again"),
            }
        }
    }
}
