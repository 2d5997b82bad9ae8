//! One pass over everything: targets, deployments, removals, runners, and what gateways are told from now on.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError};

use ballast_bundle::{DeploymentRef, NamespaceUid, TargetName, UnixMillis};
use ballast_crds::conditions::Reason;

use crate::controller::Controller;
use crate::events;
use crate::objects::Objects;
use crate::records::Record;
use crate::serving::{Hurry, Published, Serving};
use crate::status::{self, Trouble};
use crate::targets::Targets;
use crate::tidy;
use crate::wanted::Wanted;

/// Between two writes of a status whose phase and conditions are the same.
const STATUS_MILLIS: u64 = 2_000;

impl Controller {
    /// Blocking. Returns whether something is under way, so that the next pass should come soon.
    pub fn pass(self: &Arc<Self>, objects: &Objects, now: UnixMillis) -> bool {
        self.hearing.pass(now);
        *self.targets.write().unwrap_or_else(PoisonError::into_inner) = Targets::new(&objects.targets);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let mut published = Published { complete: true, namespaces: HashMap::new() };
        let mut wishes: Vec<(usize, Arc<Wanted>)> = Vec::new();
        let mut durable = HashSet::<DeploymentRef>::new();
        let mut busy = false;
        let sync = u64::try_from(self.settings.sync.as_millis()).unwrap_or(u64::MAX);
        for (index, object) in objects.deployments.iter().enumerate() {
            match Wanted::read(&object.object, &object.namespace, sync) {
                Ok(wanted) => wishes.push((index, Arc::new(wanted))),
                Err(e) => {
                    // What ran goes on: the last record still says what to serve.
                    let trouble = Trouble { reason: Reason::InvalidSpec, message: e.to_string() };
                    let deployment = object.deployment();
                    self.keep(records.get(&deployment), &deployment, &mut published);
                    self.tell(object, records.get(&deployment), None, Some(&trouble), now);
                }
            }
        }
        for deployment in &objects.standing {
            self.keep(records.get(deployment), deployment, &mut published);
        }
        let conflicts = self.conflicts(objects, &wishes);
        for (index, wanted) in &wishes {
            let object = &objects.deployments[*index];
            if let Some(message) = conflicts.get(&wanted.deployment) {
                // What ran goes on, but on gateways that are the other's.
                self.keep(records.get(&wanted.deployment), &wanted.deployment, &mut published);
                let trouble = Trouble { reason: Reason::NameConflict, message: message.clone() };
                self.tell(object, records.get(&wanted.deployment), Some(wanted), Some(&trouble), now);
                continue;
            }
            let record = records
                .entry(wanted.deployment.clone())
                .or_insert_with(|| Record::new(wanted.deployment.clone(), wanted.namespace_name.clone()));
            match self.reconcile(wanted, record, now) {
                Ok(serving) => {
                    durable.insert(wanted.deployment.clone());
                    busy |= serving.hurry != Hurry::Nobody;
                    published.namespaces.entry(wanted.deployment.namespace.clone()).or_default().push(serving);
                    self.tell(object, Some(record), Some(wanted), None, now);
                }
                Err(e) => {
                    tracing::error!(deployment = %wanted.deployment, error = %e, "the state directory failed");
                    busy = true;
                    self.keep(Some(record), &wanted.deployment, &mut published);
                    let trouble = Trouble { reason: Reason::BundleUnavailable, message: e.to_string() };
                    self.tell(object, Some(record), Some(wanted), Some(&trouble), now);
                }
            }
        }
        let known: HashMap<_, _> = records
            .values()
            .map(|r| (r.deployment.clone(), r.releases.iter().filter_map(|x| x.number).collect::<HashSet<_>>()))
            .collect();
        self.rations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(deployment, number), _| known.get(deployment).is_some_and(|numbers| numbers.contains(number)));
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(published);
        // Only after nobody is told of them any more.
        if objects.complete {
            self.remove_withdrawn(objects, &mut records);
            self.source.settled(&|deployment| records.contains_key(deployment));
        }
        let named = tidy::named(&records, |deployment| durable.contains(deployment));
        let all = objects.complete.then(|| records.keys().cloned().collect());
        drop(records);
        self.tidy(named, all.as_ref());
        self.prepare_runners(now) || busy
    }

    /// Deployments that want the name of an earlier one on a gateway that both select.
    fn conflicts(&self, objects: &Objects, wishes: &[(usize, Arc<Wanted>)]) -> BTreeMap<DeploymentRef, String> {
        let mut by_name = BTreeMap::<(&NamespaceUid, &str), Vec<&(usize, Arc<Wanted>)>>::new();
        for wish in wishes {
            by_name.entry((&wish.1.deployment.namespace, &wish.1.model)).or_default().push(wish);
        }
        let mut conflicts = BTreeMap::new();
        for ((namespace, model), mut rivals) in by_name {
            rivals.sort_by_key(|(index, wanted)| (objects.deployments[*index].created, wanted.deployment.name.clone()));
            let mut taken: Vec<&Arc<Wanted>> = Vec::new();
            for (_, wanted) in rivals {
                let shared = taken.iter().find_map(|first| {
                    let both = |row: &ballast_fleet::store::GatewayRow| {
                        first.selector.matches(&row.labels) && wanted.selector.matches(&row.labels)
                    };
                    let gateways = self.roster.select(namespace, both);
                    gateways.first().map(|g| (first.deployment.name.clone(), g.row.id.clone(), gateways.len()))
                });
                match shared {
                    None => taken.push(wanted),
                    Some((first, gateway, count)) => {
                        let message = format!(
                            "ModelDeployment {first} already serves the name {model} on {count} of the selected gateways ({gateway}); change model.name or one of the selectors"
                        );
                        conflicts.insert(wanted.deployment.clone(), message);
                    }
                }
            }
        }
        conflicts
    }

    /// Deployments whose objects are gone: nobody is told of them any more (done), their records go, then their bundles
    /// ([`Controller::tidy`]).
    fn remove_withdrawn(&self, objects: &Objects, records: &mut BTreeMap<DeploymentRef, Record>) {
        let mut wanted: HashSet<DeploymentRef> = objects.deployments.iter().map(|o| o.deployment()).collect();
        wanted.extend(objects.standing.iter().cloned());
        let gone: Vec<DeploymentRef> = records.keys().filter(|d| !wanted.contains(*d)).cloned().collect();
        for deployment in gone {
            self.jobs.forget(&deployment);
            match self.forget(&deployment) {
                Ok(()) => {
                    tracing::info!(%deployment, "deployment withdrawn");
                    records.remove(&deployment);
                    self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&deployment);
                    self.tidied.lock().unwrap_or_else(PoisonError::into_inner).withdrawn();
                }
                Err(error) => {
                    tracing::error!(%deployment, %error, "a withdrawn deployment could not be removed; tried again")
                }
            }
        }
    }

    /// Starts what is missing; returns whether something is.
    fn prepare_runners(self: &Arc<Self>, now: UnixMillis) -> bool {
        let mut missing = BTreeSet::<(NamespaceUid, TargetName)>::new();
        for (namespace, target) in self.roster.pairs() {
            if self.runners.get(&namespace, &target).is_none() {
                missing.insert((namespace, target));
            }
        }
        let mut preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        for pair in &missing {
            let Some(target) = self.target(&pair.1) else { continue };
            if !preparing.insert(pair.clone()) {
                continue;
            }
            let (this, pair) = (Arc::clone(self), pair.clone());
            tokio::task::spawn_blocking(move || {
                if let Err(e) = this.runners.prepare(&pair.0, &target, now) {
                    tracing::error!(error = %e, "a runner could not be prepared; tried again");
                    std::thread::sleep(std::time::Duration::from_secs(5));
                }
                this.preparing.lock().unwrap_or_else(PoisonError::into_inner).remove(&pair);
                this.roster.wake();
            });
        }
        !missing.is_empty()
    }

    fn tell(
        &self,
        object: &crate::objects::Deployment,
        record: Option<&Record>,
        wanted: Option<&Arc<Wanted>>,
        trouble: Option<&Trouble>,
        now: UnixMillis,
    ) {
        let status = status::of(&object.object, record, wanted.map(AsRef::as_ref), trouble, now);
        let deployment = object.deployment();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let last = told.get(&deployment);
        let recent = last.is_some_and(|(last, _)| now >= *last && now.0 - last.0 < STATUS_MILLIS);
        if recent && !status::turned(object.object.status.as_ref(), &status) {
            return;
        }
        // Of what was written last, not of what was read: a source may be a look behind.
        let before = last.map(|(_, status)| status).or(object.object.status.as_ref());
        let events = events::between(object, before, &status, now);
        told.insert(deployment, (now, status.clone()));
        drop(told);
        self.source.put_status(object, status);
        for event in events {
            self.source.put_event(object, event);
        }
    }

    /// What gateways were told of a deployment until now is what they are told from now on; nobody is given more.
    fn keep(&self, record: Option<&Record>, deployment: &DeploymentRef, published: &mut Published) {
        let standing = record.and_then(|record| self.standing(record));
        let Some(mut serving) = previous(&self.published(), deployment).or(standing) else { return };
        (serving.yields, serving.hurry) = (true, Hurry::Nobody);
        if let Some((_, admission)) = &serving.update {
            admission.ration.allow(admission.ration.given(), 0);
        }
        published.namespaces.entry(deployment.namespace.clone()).or_default().push(serving);
    }
}

fn previous(published: &Published, deployment: &DeploymentRef) -> Option<Serving> {
    published.namespaces.get(&deployment.namespace)?.iter().find(|s| s.deployment == *deployment).cloned()
}
