//! What the reconciler publishes and every sync reads: who runs what. Building an assignment from it is pure.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ballast_bundle::{
    AssignedDeployment, Assignment, DeploymentRef, Escalation, NamespaceUid, ReleaseNumber, ReleaseRef, RunnerRef,
    TargetName, TrialPolicy,
};
use ballast_planner::is_member;

use crate::records::Release;
use crate::rollout::Admission;
use crate::roster::Member;
use crate::wanted::Selector;

/// One release as gateways are given it.
#[derive(Debug, Clone)]
pub struct Offer {
    /// Its number.
    pub number: ReleaseNumber,
    /// Its bundles.
    pub targets: Arc<BTreeMap<TargetName, ReleaseRef>>,
}

impl Offer {
    /// Of a release that is signed.
    pub fn of(release: &Release) -> Option<Self> {
        let targets = release.targets.iter().filter_map(|(t, b)| Some((t.clone(), b.release.clone()?))).collect();
        Some(Self { number: release.number?, targets: Arc::new(targets) })
    }

    fn for_target(&self, target: &TargetName) -> Option<ReleaseRef> {
        self.targets.get(target).cloned()
    }
}

/// One deployment.
#[derive(Debug, Clone)]
pub struct Serving {
    /// Whose.
    pub deployment: DeploymentRef,
    /// The name it is served under.
    pub model: String,
    /// Which gateways.
    pub selector: Selector,
    /// The release that is rolled out, and to whom.
    pub update: Option<(Offer, Admission)>,
    /// The last one that finished its steps.
    pub stable: Option<Offer>,
    /// For gateways that try the update.
    pub trial: TrialPolicy,
    /// Which answers the cloud is asked for.
    pub escalation: Option<Escalation>,
    /// Whose word a rollout waits for.
    pub hurry: Hurry,
    /// Its object cannot be acted on: where another deployment serves the same name it steps back.
    pub yields: bool,
}

/// Who syncs at rollout's pace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hurry {
    /// Nothing is under way.
    Nobody,
    /// Gateways that hold the release, or may be given it.
    Members,
    /// Every selected gateway.
    Everybody,
}

/// All deployments by namespace.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// False until everything was looked at once after the start: nobody is told anything before.
    pub complete: bool,
    /// Sorted by deployment.
    pub namespaces: HashMap<NamespaceUid, Vec<Serving>>,
}

impl Published {
    /// The assignment for a gateway on its target, and whether it should come back soon. `give` decides on a member that
    /// was not given the update yet, and remembers it.
    pub fn assign(
        &self,
        member: &Member,
        target: &TargetName,
        runner: RunnerRef,
        give: impl Fn(&DeploymentRef, ReleaseNumber, &Admission) -> bool,
    ) -> (Assignment, bool) {
        let gateway = &member.row;
        let mut hurry = false;
        let mut deployments = Vec::<AssignedDeployment>::new();
        let all = self.namespaces.get(&gateway.namespace).into_iter().flatten();
        let mut all: Vec<&Serving> = all.filter(|serving| serving.selector.matches(&gateway.labels)).collect();
        all.sort_by_key(|serving| serving.yields);
        for serving in all {
            if serving.yields && deployments.iter().any(|other| other.model == serving.model) {
                continue;
            }
            hurry |= match serving.hurry {
                Hurry::Nobody => false,
                Hurry::Everybody => true,
                Hurry::Members => serving.update.as_ref().is_some_and(|(offer, admission)| {
                    member.was_given(&serving.deployment, offer.number)
                        || is_member(&admission.identity, &gateway.id, admission.threshold)
                }),
            };
            let stable = serving.stable.as_ref().and_then(|o| o.for_target(target));
            let update = serving
                .update
                .as_ref()
                .filter(|(offer, _)| offer.targets.contains_key(target))
                .filter(|(offer, admission)| {
                    member.was_given(&serving.deployment, offer.number)
                        || (is_member(&admission.identity, &gateway.id, admission.threshold)
                            && give(&serving.deployment, offer.number, admission))
                })
                .and_then(|(offer, _)| offer.for_target(target));
            let want = update.or_else(|| stable.clone());
            deployments.push(AssignedDeployment {
                deployment: serving.deployment.clone(),
                model: serving.model.clone(),
                want,
                stable,
                trial: serving.trial.clone(),
                escalation: serving.escalation.clone(),
            });
        }
        deployments.sort_by(|a, b| a.deployment.cmp(&b.deployment));
        let assignment = Assignment {
            format: 1,
            namespace: gateway.namespace.clone(),
            target: target.clone(),
            runner: Some(runner),
            deployments,
        };
        (assignment, hurry)
    }
}
