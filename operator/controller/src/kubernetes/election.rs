//! One operator at a time: a Lease, held by whoever wrote it last.
//!
//! Another holder's Lease is waited for until it was seen unchanged for its whole duration on this machine's own clock, so
//! that clocks need not agree. Whoever cannot renew it in time stops before that.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::PostParams;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use super::connection::{Connection, KubernetesError, ask};

/// The Lease's name.
const NAME: &str = "ballast-operator";
/// As Kubernetes' own controllers do: others take over after so long …
const DURATION: Duration = Duration::from_secs(15);
/// … the holder gives up before that …
const GIVE_UP: Duration = Duration::from_secs(10);
/// … and renews so often.
const RENEW: Duration = Duration::from_secs(2);

/// Who asks for it.
pub struct Election {
    api: Api<Lease>,
    identity: String,
}

/// Held; renewed until it is released.
pub struct Leadership {
    lost: watch::Receiver<bool>,
    release: oneshot::Sender<()>,
    renewing: JoinHandle<()>,
}

/// What to do about a Lease that was read.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Take,
    Wait,
}

/// Whether a holder begins or goes on. A term is told from another one of the same name by the time at which it began: a
/// pod that was given up for lost may still run while its successor does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Term {
    New,
    Running,
}

/// Whether two states of the Lease are of one term.
fn is_term(found: &Lease, held: &Lease) -> bool {
    let term = |lease: &Lease| lease.spec.clone().map(|spec| (spec.holder_identity, spec.acquire_time));
    term(found) == term(held)
}

fn step(holder: Option<&str>, me: &str, unchanged: Duration) -> Step {
    match holder {
        None | Some("") => Step::Take,
        // This very pod before its restart.
        Some(holder) if holder == me => Step::Take,
        Some(_) if unchanged > DURATION => Step::Take,
        Some(_) => Step::Wait,
    }
}

impl Election {
    /// `identity` is the pod's stable name: its restart takes over at once.
    pub fn new(connection: &Connection, identity: String) -> Self {
        Self { api: Api::namespaced(connection.client.clone(), &connection.namespace), identity }
    }

    /// Waits until the Lease is ours. An API server that refuses (no permission) is an error at once.
    pub async fn win(self) -> Result<Leadership, KubernetesError> {
        let mut seen: Option<(Option<String>, Instant)> = None;
        let mut told = None;
        loop {
            let doing = "reading the Lease ballast-operator";
            let lease = match ask(doing, self.api.get_opt(NAME)).await {
                Err(error) if error.code().is_some() => return Err(error),
                Err(error) => {
                    tracing::warn!("{error}; tried again");
                    tokio::time::sleep(RENEW).await;
                    continue;
                }
                Ok(lease) => lease,
            };
            let version = lease.as_ref().and_then(|lease| lease.metadata.resource_version.clone());
            let since = match &seen {
                Some((known, since)) if *known == version => *since,
                _ => seen.insert((version, Instant::now())).1,
            };
            let holder = lease.as_ref().and_then(|l| l.spec.as_ref()?.holder_identity.clone());
            match step(holder.as_deref(), &self.identity, since.elapsed()) {
                Step::Take => match self.write(lease, &self.identity, Term::New).await {
                    Ok(held) => return Ok(self.hold(held)),
                    // Somebody was faster.
                    Err(error) if error.is_conflict() => {}
                    Err(error) if error.code().is_some() => return Err(error),
                    Err(error) => {
                        tracing::warn!("{error}; tried again");
                        tokio::time::sleep(RENEW).await;
                    }
                },
                Step::Wait => {
                    if told != holder {
                        tracing::info!(
                            "the Lease {NAME} is held by {}; waiting",
                            holder.as_deref().unwrap_or_default()
                        );
                        told = holder;
                    }
                    tokio::time::sleep(RENEW).await;
                }
            }
        }
    }

    /// Writes the Lease for `holder`; `known` is its precondition.
    async fn write(&self, known: Option<Lease>, holder: &str, term: Term) -> Result<Lease, KubernetesError> {
        let now = MicroTime(Timestamp::now());
        let before = known.as_ref().and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let same = term == Term::Running;
        let transitions = before.lease_transitions.unwrap_or(0);
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: if same { before.acquire_time } else { Some(now.clone()) },
            renew_time: Some(now),
            lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
            ..LeaseSpec::default()
        };
        let doing = "writing the Lease ballast-operator";
        match known {
            None => {
                let metadata = ObjectMeta { name: Some(NAME.into()), ..ObjectMeta::default() };
                let lease = Lease { metadata, spec: Some(spec) };
                ask(doing, self.api.create(&PostParams::default(), &lease)).await
            }
            Some(mut lease) => {
                lease.spec = Some(spec);
                ask(doing, self.api.replace(NAME, &PostParams::default(), &lease)).await
            }
        }
    }

    /// `None`: somebody else wrote it, and it is not ours any more, whoever is right.
    async fn renew(&self, held: &Lease) -> Result<Option<Lease>, KubernetesError> {
        match self.write(Some(held.clone()), &self.identity, Term::Running).await {
            Ok(lease) => Ok(Some(lease)),
            Err(error) if error.is_gone() => Ok(None),
            Err(error) if error.is_conflict() => {
                // An earlier write of ours may have arrived although nobody said so.
                let Some(found) = ask("reading the Lease ballast-operator", self.api.get_opt(NAME)).await? else {
                    return Ok(None);
                };
                if !is_term(&found, held) {
                    return Ok(None);
                }
                self.write(Some(found), &self.identity, Term::Running).await.map(Some)
            }
            Err(error) => Err(error),
        }
    }

    fn hold(self, held: Lease) -> Leadership {
        tracing::info!("holding the Lease {NAME} as {}", self.identity);
        let (losing, lost) = watch::channel(false);
        let (release, mut released) = oneshot::channel();
        let renewing = tokio::spawn(async move {
            let (mut held, mut renewed) = (held, Instant::now());
            loop {
                tokio::select! {
                    _ = &mut released => break,
                    () = tokio::time::sleep(RENEW) => {}
                }
                let left = GIVE_UP.saturating_sub(renewed.elapsed());
                let began = Instant::now();
                match tokio::time::timeout(left, self.renew(&held)).await {
                    Ok(Ok(Some(lease))) => (held, renewed) = (lease, began),
                    Ok(Ok(None)) => {
                        tracing::error!("the Lease {NAME} was taken away");
                        losing.send_replace(true);
                        return;
                    }
                    Ok(Err(error)) => tracing::warn!("{error}; tried again"),
                    Err(_) => {}
                }
                if renewed.elapsed() >= GIVE_UP {
                    tracing::error!("the Lease {NAME} could not be renewed for {} s", GIVE_UP.as_secs());
                    losing.send_replace(true);
                    return;
                }
            }
            match self.write(Some(held), "", Term::Running).await {
                Ok(_) => tracing::info!("released the Lease {NAME}"),
                Err(error) => tracing::warn!("{error}; others wait until it has expired"),
            }
        });
        Leadership { lost, release, renewing }
    }
}

impl Leadership {
    /// Ends when it is lost: who waits for this must stop acting at once.
    pub fn lost(&self) -> impl Future<Output = ()> + use<> {
        let mut lost = self.lost.clone();
        async move {
            // Nobody renews it any more: lost as well.
            drop(lost.wait_for(|lost| *lost).await);
        }
    }

    /// Lets the next one take over at once.
    pub async fn release(self) {
        // Nobody listens any more where it was lost.
        let _ = self.release.send(());
        drop(self.renewing.await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_is_taken_from_nobody_who_renews_it() {
        let long = DURATION + Duration::from_secs(1);
        assert_eq!(step(None, "a", Duration::ZERO), Step::Take);
        assert_eq!(step(Some(""), "a", Duration::ZERO), Step::Take);
        assert_eq!(step(Some("a"), "a", Duration::ZERO), Step::Take);
        assert_eq!(step(Some("b"), "a", Duration::ZERO), Step::Wait);
        assert_eq!(step(Some("b"), "a", DURATION), Step::Wait);
        assert_eq!(step(Some("b"), "a", long), Step::Take);
    }

    #[test]
    fn a_term_of_the_same_name_is_another_one() {
        let lease = |holder: &str, second| Lease {
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.into()),
                acquire_time: Some(MicroTime(Timestamp::from_second(second).unwrap())),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
            ..Lease::default()
        };
        assert!(is_term(&lease("a", 1), &lease("a", 1)));
        assert!(!is_term(&lease("a", 2), &lease("a", 1)));
        assert!(!is_term(&lease("b", 1), &lease("a", 1)));
        assert!(!is_term(&Lease::default(), &lease("a", 1)));
    }

    #[test]
    fn a_holder_gives_up_before_others_may_take() {
        assert!(GIVE_UP + RENEW < DURATION);
    }
}
