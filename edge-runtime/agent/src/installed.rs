//! What was brought here and verified, and what a start needs to prove it once more.
//!
//! Slots and `runner.json` are this gateway's own files, yet nothing runs on their word: at every start each statement is
//! read again out of the store and verified under the trust root that it was accepted under.

use ballast_bundle::{
    DeploymentRef, MAX_STATEMENT_BYTES, ReleaseRef, ReleaseStatement, RunnerRef, RunnerStatement, TargetName,
    Unverified, Verified,
};
use serde::{Deserialize, Serialize};

use crate::error::in_full;
use crate::identity::Roots;
use crate::store::Store;

/// What a statement was accepted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Accepted {
    /// The gateway's target at that time.
    pub(crate) target: TargetName,
    /// Version of the trust root that was in force.
    pub(crate) root: u64,
}

/// A release whose statement was verified.
#[derive(Debug, Clone)]
pub(crate) struct InstalledRelease {
    pub(crate) statement: Verified<ReleaseStatement>,
    pub(crate) accepted: Accepted,
}

impl InstalledRelease {
    /// Proves it again, with the statement that was kept.
    pub(crate) fn load(
        store: &Store,
        roots: &Roots,
        release: &ReleaseRef,
        deployment: &DeploymentRef,
        accepted: Accepted,
    ) -> Result<Self, String> {
        let bytes = store.read(&release.statement, MAX_STATEMENT_BYTES).map_err(|e| in_full(&e))?;
        Self::verify(&bytes, roots, release, deployment, accepted)
    }

    /// Proves it again.
    pub(crate) fn verify(
        bytes: &[u8],
        roots: &Roots,
        release: &ReleaseRef,
        deployment: &DeploymentRef,
        accepted: Accepted,
    ) -> Result<Self, String> {
        let root = roots.of_version(accepted.root);
        let statement = Unverified::new(bytes).installed_release(release, deployment, &accepted.target, root);
        Ok(Self { statement: statement.map_err(|e| format!("its statement: {e}"))?, accepted })
    }
}

/// `runner.json` on the runner in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct RunnerRecord {
    pub(crate) reference: RunnerRef,
    pub(crate) accepted: Accepted,
}

/// A runner whose statement was verified.
#[derive(Debug, Clone)]
pub(crate) struct InstalledRunner {
    pub(crate) record: RunnerRecord,
    pub(crate) statement: Verified<RunnerStatement>,
}

impl InstalledRunner {
    /// Proves it again, with the statement that was kept (`bytes`).
    pub(crate) fn verify(bytes: &[u8], roots: &Roots, record: RunnerRecord) -> Result<Self, String> {
        let root = roots.of_version(record.accepted.root);
        let statement = Unverified::new(bytes).installed_runner(&record.reference, &record.accepted.target, root);
        Ok(Self { statement: statement.map_err(|e| format!("its statement: {e}"))?, record })
    }
}
