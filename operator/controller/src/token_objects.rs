//! Tokens that EnrollmentToken objects ask for. They go with their objects; those made at the administrator's socket have
//! none. A name is one's or the other's: whoever comes second is refused.

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use ballast_bundle::{Digest, NamespaceUid, UnixMillis};
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
    /// Of the object; an earlier version did not note it.
    uid: Option<String>,
    /// What it was made of, with the time of creation; absent until it is made in this process.
    spec: Option<(EnrollmentTokenSpec, u64)>,
    /// Of the text that was handed over last; an earlier version did not note it.
    handed: Option<Digest>,
}

impl Kept {
    /// Whether what is in a text's place already is this text, as far as anybody can tell without reading it.
    fn is_there(&self, text: &str) -> bool {
        self.handed.is_none_or(|handed| handed == Digest::of(text.as_bytes()))
    }

    /// Whether the object with this UID is the one that it was made from.
    fn is_of(&self, uid: Option<&str>) -> bool {
        self.uid.as_deref().is_none_or(|own| uid.is_none_or(|uid| uid == own))
    }
}

/// What could not be handed over is tried again after a pause that doubles.
#[derive(Debug, Clone, Copy)]
struct Failed {
    since: Instant,
    times: u32,
}

impl Failed {
    /// The longest pause.
    const LONGEST: Duration = Duration::from_secs(300);

    /// Once more.
    fn again(before: Option<&Self>, now: Instant) -> Self {
        Self { since: now, times: before.map_or(0, |failed| failed.times.saturating_add(1)) }
    }

    /// 1 s, 2 s, 4 s, ….
    fn pause(&self) -> Duration {
        Duration::from_secs(1).saturating_mul(1_u32.checked_shl(self.times).unwrap_or(u32::MAX)).min(Self::LONGEST)
    }

    fn waits(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) < self.pause()
    }
}

/// The objects that there are.
#[derive(Default)]
struct Asking {
    /// Their UIDs.
    uids: HashMap<Key, Option<String>>,
    /// By the names of namespace and token: a text's place has no more than these.
    places: HashMap<(String, String), NamespaceUid>,
}

impl Asking {
    fn of(objects: &Objects) -> Self {
        let understood = objects
            .tokens
            .iter()
            .map(|(namespace, token, _)| (namespace.clone(), namespace_of(token), token.name_any(), token.uid()));
        let standing = objects.standing_tokens.iter().cloned();
        let standing = standing.map(|token| (token.namespace, token.namespace_name, token.name, token.uid));
        let mut asking = Self::default();
        for (namespace, namespace_name, name, uid) in understood.chain(standing) {
            asking.places.insert((namespace_name, name.clone()), namespace.clone());
            asking.uids.insert((namespace, name), uid);
        }
        asking
    }

    /// Whether the object that a token was made from is gone. Absence says so only where everything was seen; another object
    /// in its place always does.
    fn left(&self, key: &Key, kept: &Kept, complete: bool) -> bool {
        let place = (kept.namespace_name.clone(), key.1.clone());
        if self.places.get(&place).is_some_and(|namespace| *namespace != key.0) {
            return true;
        }
        self.uids.get(key).map_or(complete, |uid| !kept.is_of(uid.as_deref()))
    }
}

fn namespace_of(token: &EnrollmentToken) -> String {
    token.namespace().unwrap_or_else(|| "default".into())
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
    /// Those that could not be handed over.
    failed: HashMap<Key, Failed>,
}

/// One line of `token-objects.json`.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    namespace: NamespaceUid,
    namespace_name: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    handed: Option<Digest>,
}

const FILE: &str = "token-objects.json";

/// Those of earlier starts.
pub fn load(state: &StateDir) -> Result<KeptTokens, StateError> {
    let lines: Vec<Line> = state::read_json(&state.path(FILE))?.unwrap_or_default();
    let kept = |line: Line| {
        (
            (line.namespace, line.name),
            Kept { namespace_name: line.namespace_name, uid: line.uid, spec: None, handed: line.handed },
        )
    };
    Ok(KeptTokens { kept: lines.into_iter().map(kept).collect(), ..KeptTokens::default() })
}

impl KeptTokens {
    fn save(&self, state: &StateDir) -> Result<(), StateError> {
        let line = |((namespace, name), kept): (&Key, &Kept)| Line {
            namespace: namespace.clone(),
            namespace_name: kept.namespace_name.clone(),
            name: name.clone(),
            uid: kept.uid.clone(),
            handed: kept.handed,
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
        let wished = Asking::of(&self.source.objects()).uids.contains_key(&key);
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

    /// Withdraws tokens whose objects are gone, in whatever start they were made, and then makes those that objects ask for:
    /// an object that was made anew, or whose namespace was, does not find the secret of the one before it.
    pub async fn keep_tokens(&self, objects: &Objects) {
        self.withdraw_tokens(&Asking::of(objects), objects.complete).await;
        for (namespace, token, created) in &objects.tokens {
            self.keep_token(namespace, token, *created).await;
        }
    }

    /// Errors are logged and tried again by the next pass.
    async fn keep_token(&self, namespace: &NamespaceUid, token: &EnrollmentToken, created: u64) {
        let (name, namespace_name, uid) = (token.name_any(), namespace_of(token), token.uid());
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
            let before = |(other, kept): (&Key, &Kept)| {
                let place = other.1 == name && kept.namespace_name == namespace_name;
                place && !(*other == key && kept.is_of(uid.as_deref()))
            };
            let known = tokens.kept.get(&key).map(|k| k.is_of(uid.as_deref()) && k.spec.as_ref() == Some(&spec));
            if tokens.failed.get(&key).is_some_and(|failed| failed.waits(Instant::now())) {
                return;
            }
            if known != Some(true) && tokens.kept.iter().any(before) {
                // It could not be withdrawn, which was said: its text is still there.
                return;
            }
            known
        };
        let free = match known {
            Some(true) => return,
            Some(false) => Ok(true),
            None => self.take_name(&key, &namespace_name, uid.clone()).await,
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
                let fresh = {
                    let tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.fresh.contains(&key) || tokens.kept.get(&key).is_some_and(|kept| !kept.is_there(&text))
                };
                if let Err(error) = self.source.hand_over(token, &text, fresh).await {
                    let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    let failed = Failed::again(tokens.failed.get(&key), Instant::now());
                    tokens.failed.insert(key, failed);
                    let seconds = failed.pause().as_secs();
                    return tracing::error!(
                        token = name,
                        error,
                        "an enrolment token could not be handed over; tried again in {seconds} s"
                    );
                }
                tracing::info!(token = name, uses = asked.uses, "enrolment token ready");
                let kept = Kept {
                    namespace_name,
                    uid: uid.clone(),
                    spec: Some(spec),
                    handed: Some(Digest::of(text.as_bytes())),
                };
                let line = (kept.uid.clone(), kept.handed);
                let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                tokens.fresh.remove(&key);
                tokens.failed.remove(&key);
                let before = tokens.kept.insert(key, kept);
                // After a restart it is told from the next object of its name, and from the next text.
                if before.is_none_or(|before| (before.uid, before.handed) != line)
                    && let Err(e) = tokens.save(&self.state)
                {
                    tracing::error!(error = %e, "the list of tokens could not be kept; the next start notes it again");
                }
            }
            Err(e) => tracing::error!(token = name, error = %e, "an enrolment token could not be made; tried again"),
        }
    }

    /// Makes a name an object's, unless somebody made a token of that name without one. Durable before the token is made:
    /// whenever this process dies, an object that goes takes its token along.
    async fn take_name(&self, key: &Key, namespace_name: &str, uid: Option<String>) -> Result<bool, TokenError> {
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
        tokens
            .kept
            .insert(key.clone(), Kept { namespace_name: namespace_name.to_owned(), uid, spec: None, handed: None });
        let saved = tokens.save(&self.state);
        if saved.is_err() {
            tokens.kept.remove(key);
        }
        Ok(saved.map(|()| true)?)
    }

    async fn withdraw_tokens(&self, asking: &Asking, complete: bool) {
        let gone: Vec<_> = {
            let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
            if complete {
                tokens.refused.retain(|key| asking.uids.contains_key(key));
                tokens.fresh.retain(|key| asking.uids.contains_key(key));
            }
            let gone = tokens.kept.iter().filter(|(key, kept)| asking.left(key, kept, complete));
            gone.map(|(key, kept)| (key.clone(), kept.namespace_name.clone())).collect()
        };
        for (key, namespace_name) in gone {
            let name = &key.1;
            match self.tokens.remove(&key.0, &namespace_name, name).await {
                Ok(()) => {
                    tracing::info!(token = name, "enrolment token withdrawn");
                    let mut tokens = self.kept_tokens.lock().unwrap_or_else(PoisonError::into_inner);
                    tokens.kept.remove(&key);
                    tokens.fresh.remove(&key);
                    tokens.failed.remove(&key);
                    if let Err(e) = tokens.save(&self.state) {
                        tracing::error!(error = %e, "the list of tokens could not be kept; the next start withdraws it again");
                    }
                }
                Err(e) => tracing::error!(token = name, error = %e, "a token could not be withdrawn; tried again"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_text_than_the_one_that_was_handed_over_is_not_there() {
        let kept = |handed: Option<&str>| Kept {
            namespace_name: "plant".into(),
            uid: None,
            spec: None,
            handed: handed.map(|text| Digest::of(text.as_bytes())),
        };
        assert!(kept(Some("token")).is_there("token"));
        assert!(!kept(Some("token")).is_there("token of another endpoint"));
        assert!(kept(None).is_there("token"), "nobody noted what was handed over");
    }

    #[test]
    fn pauses_double_up_to_five_minutes() {
        let now = Instant::now();
        let mut failed = Failed::again(None, now);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            pauses.push(failed.pause().as_secs());
            assert!(failed.waits(now) && !failed.waits(now + failed.pause()));
            failed = Failed::again(Some(&failed), now);
        }
        assert_eq!(pauses[..10], [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]);
        assert!(pauses[10..].iter().all(|pause| *pause == 300));
    }
}
