//! What the fleet asks the controller.

use std::time::Duration;

use ballast_bundle::protocol::ReleaseReport;
use ballast_bundle::{Assignment, Envelope, GatewayId, NamespaceUid, Pointer, TargetName, UnixMillis};

use crate::BoxFuture;
use crate::labels::Labels;
use crate::store::{GatewayRow, GatewayState, StoredReport};

/// The decision for one gateway at one sync.
#[derive(Debug, Clone)]
pub struct Dispatched {
    /// The HardwareTarget that it matches; `None` = none does.
    pub target: Option<TargetName>,
    /// What it runs; `None` = nothing can be said yet, and what it runs stays.
    pub assignment: Option<Assignment>,
    /// Until its next sync, before jitter.
    pub wait: Duration,
}

/// An administrator's wish for a gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Enrolled unless said otherwise.
    pub state: GatewayState,
    /// Instead of the token's labels.
    pub labels: Option<Labels>,
}

/// Decides. Implemented by the controller with the planner.
pub trait Dispatch: Send + Sync + 'static {
    /// What this gateway runs now, after its newest reports were stored.
    fn dispatch<'a>(
        &'a self,
        gateway: &'a GatewayRow,
        reports: &'a [StoredReport],
        now: UnixMillis,
    ) -> BoxFuture<'a, Dispatched>;
    /// Whether a report speaks of a release that exists; others are dropped, so that no gateway can fill the store.
    fn accepts(&self, gateway: &GatewayRow, report: &ReleaseReport) -> bool;
    /// What an administrator says of a gateway, if anything.
    fn wish(&self, namespace: &NamespaceUid, gateway: &GatewayId) -> Option<Wish>;
}

/// Signs pointers and knows the trust roots. Implemented by whoever holds the assignment key.
pub trait PointerSigner: Send + Sync + 'static {
    /// Deterministic: the same pointer gives the same envelope.
    fn sign(&self, pointer: &Pointer) -> Envelope;
    /// Epoch of the newest root.
    fn epoch(&self) -> u32;
    /// Version of the newest root.
    fn root_version(&self) -> u64;
    /// A root by its version.
    fn root(&self, version: u64) -> Option<Envelope>;
}
