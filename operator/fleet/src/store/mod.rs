//! The gateway store: one row per gateway, its newest report per release, tokens, and aggregates by release.
//!
//! [`GatewayStore`] is what other stores (PostgreSQL) will implement; [`RedbStore`] is the embedded one. Every row
//! carries the revision of its last change, revisions grow over the whole store, and the change feed is the rows in
//! their order: whoever follows it pays for what changed, never for the size of the fleet.

mod redb;
mod rows;

use ballast_bundle::protocol::{Facts, ReleaseReport};
use ballast_bundle::{Digest, GatewayId, NamespaceUid, UnixMillis};

pub use self::redb::RedbStore;
pub use rows::{GatewayRow, GatewayState, IssuedPointer, ReleaseKey, StoredReport, Tally, Vote};

use crate::BoxFuture;
use crate::labels::Labels;
use crate::token::TokenRecord;

/// Newest reports kept per gateway; older releases' are dropped first.
pub const MAX_REPORTS: usize = 64;

/// What can go wrong in a store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer was faster: read again and decide again.
    #[error("gateway {0} was changed meanwhile; try again")]
    Conflict(GatewayId),
    /// No such row.
    #[error("there is no gateway {0}")]
    NoGateway(GatewayId),
    /// The secret is unknown.
    #[error("this token is not known here; ask the administrator for a new one")]
    TokenUnknown,
    /// Too late.
    #[error("token {0} has expired; ask the administrator for a new one")]
    TokenExpired(String),
    /// Used up.
    #[error("token {0} has been used as often as it may be; ask the administrator for a new one")]
    TokenUsedUp(String),
    /// The key belongs to a gateway that may not come back.
    #[error("gateway {0} was taken out of the fleet by the administrator")]
    NotEnrolled(GatewayId),
    /// For ever.
    #[error("gateway {0} was revoked, and stays so: its key may be in other hands; enrol it again with a new token")]
    Revoked(GatewayId),
    /// Disk or file format. Retry later; the operator's log has the cause.
    #[error("the gateway store failed: {0}")]
    Backend(String),
}

/// Enrolment as one transaction: the use is counted and the row made, or neither.
#[derive(Debug, Clone)]
pub struct Enroll {
    /// [`crate::token::hash`] of the secret.
    pub token: Digest,
    /// Of the request's public key.
    pub key: Digest,
    /// Used for a new row; a known key keeps its id.
    pub id: GatewayId,
    /// A hint for people.
    pub display_name: Option<String>,
    /// First facts.
    pub facts: Facts,
    /// Time of the request.
    pub now: UnixMillis,
}

/// What one sync changes, as one transaction.
#[derive(Debug, Clone)]
pub struct Sync {
    /// Whose.
    pub gateway: GatewayId,
    /// Time of the request.
    pub now: UnixMillis,
    /// As the gateway computed it.
    pub facts_digest: Digest,
    /// When they came along.
    pub facts: Option<Facts>,
    /// Newest root that the gateway has.
    pub root_version: u64,
    /// The assignment in force there.
    pub assignment: Option<Digest>,
    /// Bounded and filtered by the caller.
    pub reports: Vec<ReleaseReport>,
}

/// A page of [`GatewayStore::list`].
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// By id, ascending.
    pub rows: Vec<GatewayRow>,
    /// Pass as `after` for the next page; `None` at the end.
    pub next: Option<GatewayId>,
}

/// The gateway store. All writes are durable when their future ends; concurrent writes share one commit.
pub trait GatewayStore: Send + std::marker::Sync + 'static {
    /// When this store was first made: a store younger than its installation was lost.
    fn born(&self) -> UnixMillis;
    /// One row.
    fn gateway(&self, id: GatewayId) -> BoxFuture<'_, Result<Option<GatewayRow>, StoreError>>;
    /// Compare-and-set: writes `row` if the stored revision is `row.revision`; returns the new revision.
    fn put(&self, row: GatewayRow) -> BoxFuture<'_, Result<u64, StoreError>>;
    /// See [`Enroll`]. Idempotent by the key: it gives the same gateway and counts no second use.
    fn enroll(&self, enroll: Enroll) -> BoxFuture<'_, Result<GatewayRow, StoreError>>;
    /// Makes a row again from a certificate after the store was lost; an existing row is returned unchanged.
    fn adopt(&self, row: GatewayRow) -> BoxFuture<'_, Result<GatewayRow, StoreError>>;
    /// See [`Sync`]; returns the row after it and all reports kept for it.
    fn sync(&self, sync: Sync) -> BoxFuture<'_, Result<(GatewayRow, Vec<StoredReport>), StoreError>>;
    /// Rows of one namespace, or of all, after an id; at most `limit`.
    fn list(
        &self,
        namespace: Option<NamespaceUid>,
        after: Option<GatewayId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Page, StoreError>>;
    /// Rows with a revision above `since`, in the order of their revisions; at most `limit`.
    fn changes(&self, since: u64, limit: usize) -> BoxFuture<'_, Result<Vec<GatewayRow>, StoreError>>;
    /// All reports kept for a gateway.
    fn reports(&self, id: GatewayId) -> BoxFuture<'_, Result<Vec<StoredReport>, StoreError>>;
    /// Counts over the enrolled gateways that reported on a release.
    fn tally(&self, key: ReleaseKey) -> BoxFuture<'_, Result<Tally, StoreError>>;
    /// Adds a token, or replaces the one with the same namespace and name. Uses that were counted under the same secret
    /// stay counted, whatever `used` says.
    fn put_token(&self, token: TokenRecord) -> BoxFuture<'_, Result<(), StoreError>>;
    /// Removes a token by namespace and name.
    fn remove_token(&self, namespace: NamespaceUid, name: String) -> BoxFuture<'_, Result<(), StoreError>>;
    /// All tokens of all namespaces.
    fn tokens(&self) -> BoxFuture<'_, Result<Vec<TokenRecord>, StoreError>>;
    /// Sets a gateway's state and labels as an administrator wishes; `None` labels stay as they are.
    fn wish(
        &self,
        id: GatewayId,
        state: GatewayState,
        labels: Option<Labels>,
    ) -> BoxFuture<'_, Result<GatewayRow, StoreError>>;
}
