//! The gateways as the controller sees them: newest row and reports of each, in memory, filled once from the store and
//! then by every sync. Nothing here is durable and nothing here decides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use ballast_bundle::protocol::ReleaseState;
use ballast_bundle::{Assignment, DeploymentRef, Digest, GatewayId, NamespaceUid, ReleaseNumber, TargetName};
use ballast_fleet::Documents;
use ballast_fleet::store::{GatewayRow, GatewayState, GatewayStore, StoreError, StoredReport};
use tokio::sync::Notify;

/// Rows read at once while the roster is filled.
const PAGE: usize = 500;

/// One gateway.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its row at the last sync, or as stored.
    pub row: Arc<GatewayRow>,
    /// All its reports.
    pub reports: Arc<Vec<StoredReport>>,
    /// The HardwareTarget it matches.
    pub target: Option<TargetName>,
    /// What its newest assignment lets it run.
    pub given: Arc<Vec<(DeploymentRef, ReleaseNumber)>>,
}

/// All enrolled gateways by namespace.
#[derive(Default)]
pub struct Roster {
    members: RwLock<HashMap<NamespaceUid, BTreeMap<GatewayId, Member>>>,
    changed: Notify,
}

impl Roster {
    /// Reads everything that is stored, page by page. Assignments say what gateways were given before the restart.
    pub async fn fill(&self, store: &dyn GatewayStore, documents: &Documents) -> Result<usize, StoreError> {
        let (mut after, mut count) = (None, 0);
        let mut known = HashMap::<(NamespaceUid, Digest), Vec<(DeploymentRef, ReleaseNumber)>>::new();
        loop {
            let page = store.list(None, after, PAGE).await?;
            for row in page.rows {
                let reports = store.reports(row.id.clone()).await?;
                count += 1;
                let target = row.target.clone();
                let (namespace, id) = (row.namespace.clone(), row.id.clone());
                let pointed = row.pointer.as_ref().map(|p| p.assignment.digest);
                self.update(row, reports, target);
                let Some(digest) = pointed else { continue };
                let given = known.entry((namespace.clone(), digest)).or_insert_with(|| {
                    let bytes = documents.get(&namespace, &digest).ok().flatten().unwrap_or_default();
                    serde_json::from_slice(&bytes).map(|a| wanted_by(&a)).unwrap_or_default()
                });
                self.set_given(&namespace, &id, given.clone());
            }
            after = page.next;
            if after.is_none() {
                return Ok(count);
            }
        }
    }

    /// Takes in the newest word of, or on, a gateway; wakes the reconciler when it could matter to it.
    pub fn update(&self, row: GatewayRow, reports: Vec<StoredReport>, target: Option<TargetName>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        let namespace = members.entry(row.namespace.clone()).or_default();
        let matters = if row.state == GatewayState::Enrolled {
            let matters = namespace.get(&row.id).is_none_or(|known| {
                known.target != target
                    || known.row.labels != row.labels
                    || known.reports.len() != reports.len()
                    || known.reports.iter().zip(&reports).any(|(a, b)| {
                        a.report.state != b.report.state || a.vote != b.vote || a.report.number != b.report.number
                    })
            });
            let given = namespace.get(&row.id).map(|m| Arc::clone(&m.given)).unwrap_or_default();
            let member = Member { row: Arc::new(row), reports: Arc::new(reports), target, given };
            namespace.insert(member.row.id.clone(), member);
            matters
        } else {
            namespace.remove(&row.id).is_some()
        };
        drop(members);
        if matters {
            self.changed.notify_one();
        }
    }

    /// Remembers what a gateway's newest assignment lets it run.
    pub fn set_given(&self, namespace: &NamespaceUid, id: &GatewayId, given: Vec<(DeploymentRef, ReleaseNumber)>) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get_mut(namespace).and_then(|m| m.get_mut(id))
            && *member.given != given
        {
            member.given = Arc::new(given);
        }
    }

    /// Adds one release to what a gateway was given.
    pub fn give(&self, namespace: &NamespaceUid, id: &GatewayId, deployment: &DeploymentRef, number: ReleaseNumber) {
        let mut members = self.members.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(member) = members.get_mut(namespace).and_then(|m| m.get_mut(id)) {
            Arc::make_mut(&mut member.given).push((deployment.clone(), number));
        }
    }

    /// Makes the reconciler look again.
    pub fn wake(&self) {
        self.changed.notify_one();
    }

    /// Every (namespace, target) that has a gateway.
    pub fn pairs(&self) -> BTreeSet<(NamespaceUid, TargetName)> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        let pair = |(n, m): (&NamespaceUid, &Member)| Some((n.clone(), m.target.clone()?));
        members.iter().flat_map(|(n, all)| all.values().map(move |m| (n, m))).filter_map(pair).collect()
    }

    /// Ends when something changed since the last time.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The gateways of a namespace for which `selected` holds, by id.
    pub fn select(&self, namespace: &NamespaceUid, selected: impl Fn(&GatewayRow) -> bool) -> Vec<Member> {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.get(namespace).into_iter().flat_map(BTreeMap::values).filter(|m| selected(&m.row)).cloned().collect()
    }

    /// Whether `holds` is true of any gateway of a namespace.
    pub fn any(&self, namespace: &NamespaceUid, holds: impl Fn(&Member) -> bool) -> bool {
        let members = self.members.read().unwrap_or_else(PoisonError::into_inner);
        members.get(namespace).into_iter().flat_map(BTreeMap::values).any(holds)
    }

    /// One gateway.
    pub fn get(&self, namespace: &NamespaceUid, id: &GatewayId) -> Option<Member> {
        self.members.read().unwrap_or_else(PoisonError::into_inner).get(namespace)?.get(id).cloned()
    }
}

/// The releases that an assignment lets a gateway run.
pub fn wanted_by(assignment: &Assignment) -> Vec<(DeploymentRef, ReleaseNumber)> {
    assignment.deployments.iter().filter_map(|d| Some((d.deployment.clone(), d.want.as_ref()?.number))).collect()
}

impl Member {
    /// Whether it was given a release, or says so.
    pub fn was_given(&self, deployment: &DeploymentRef, number: ReleaseNumber) -> bool {
        self.given.iter().any(|(d, n)| d == deployment && *n == number) || self.report(deployment, number).is_some()
    }

    /// Whether it had a release in a slot when it was heard last, or was told to take it.
    pub fn holds(&self, deployment: &DeploymentRef, number: ReleaseNumber) -> bool {
        let given = self.given.iter().any(|(d, n)| d == deployment && *n == number);
        given
            || self.report(deployment, number).is_some_and(|stored| {
                // It says every time what is in its slots: what it said only earlier is gone from there.
                self.row.last_seen.is_some_and(|seen| stored.received >= seen)
                    && stored.report.state != ReleaseState::RolledBack
            })
    }

    /// Its report on a release of a deployment.
    pub fn report(&self, deployment: &DeploymentRef, number: ReleaseNumber) -> Option<&StoredReport> {
        self.reports.iter().find(|r| r.report.number == number && r.report.deployment == *deployment)
    }
}
