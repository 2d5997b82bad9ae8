//! What no release needs any more goes from the registry: last of all, when nobody is told of it and the records that name
//! the rest are durable.
//!
//! What goes is worked out from records and registry as they are, never from what was dropped just now: so a start after a
//! crash between any two steps finishes what was begun.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::PoisonError;

use ballast_bundle::{DeploymentRef, Digest};
use ballast_fleet::registry::{RegistryError, Repository};

use crate::controller::Controller;
use crate::records::Record;

/// What was tidied in this process, so that a pass in which nothing changed costs nothing.
pub struct Tidied {
    /// What each deployment's records named when its repository was looked at last.
    named: HashMap<DeploymentRef, HashSet<Digest>>,
    /// There may be repositories of deployments that are gone.
    repositories: bool,
    /// There may be content that no repository has.
    content: bool,
}

impl Default for Tidied {
    fn default() -> Self {
        Self { named: HashMap::new(), repositories: true, content: true }
    }
}

impl Tidied {
    /// A deployment is gone.
    pub const fn withdrawn(&mut self) {
        self.repositories = true;
    }
}

/// What the durable record of each deployment names.
pub type Named = BTreeMap<DeploymentRef, HashSet<Digest>>;

/// Of the deployments for which `durable` holds. Others are left alone.
pub fn named(records: &BTreeMap<DeploymentRef, Record>, durable: impl Fn(&DeploymentRef) -> bool) -> Named {
    records.values().filter(|r| durable(&r.deployment)).map(|r| (r.deployment.clone(), r.named())).collect()
}

impl Controller {
    /// *Client.* `named`: of every deployment whose record is durable. `all`: those that there are, when that is known for
    /// certain.
    pub(crate) fn tidy(&self, named: Named, all: Option<&HashSet<DeploymentRef>>) {
        let mut tidied = self.tidied.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(all) = all.filter(|_| tidied.repositories) {
            match self.remove_repositories(all) {
                Ok(removed) => {
                    tidied.repositories = false;
                    tidied.content |= removed;
                    tidied.named.retain(|deployment, _| all.contains(deployment));
                }
                Err(error) => tracing::error!(%error, "bundles of a withdrawn deployment stay; tried again"),
            }
        }
        for (deployment, named) in named {
            if tidied.named.get(&deployment) == Some(&named) {
                continue;
            }
            let retained = Repository::bundles(&deployment)
                .map_err(|e| e.to_string())
                .and_then(|repository| self.registry.retain(&repository, &named).map_err(|e| e.to_string()));
            match retained {
                Ok(removed) => tidied.content |= removed,
                // Once: what cannot be read now is not read four times a second.
                Err(error) => tracing::error!(
                    %deployment, error, "old bundles stay in the registry; tried again with the next release or start"
                ),
            }
            tidied.named.insert(deployment, named);
        }
        // Runners are published beside the passes; they are begun by this thread, so none begins meanwhile.
        let quiet = self.preparing.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        if tidied.content && quiet {
            match self.registry.collect_garbage() {
                Ok(freed) => {
                    tidied.content = false;
                    if freed > 0 {
                        tracing::info!(freed, "old bundles removed");
                    }
                }
                Err(error) => tracing::error!(%error, "old bundles are not removed; tried again"),
            }
        }
    }

    /// Of deployments that are not among `all`. Those of runners have one component more, and stay.
    fn remove_repositories(&self, all: &HashSet<DeploymentRef>) -> Result<bool, RegistryError> {
        let mut removed = false;
        for repository in self.registry.repositories()? {
            let Some(name) = repository.as_str().split_once('/').map(|(_, name)| name.to_owned()) else { continue };
            let deployment = DeploymentRef { namespace: repository.namespace().clone(), name };
            if !deployment.name.contains('/') && !all.contains(&deployment) {
                self.registry.remove(&repository)?;
                tracing::info!(%deployment, "bundles of a withdrawn deployment removed");
                removed = true;
            }
        }
        Ok(removed)
    }
}
