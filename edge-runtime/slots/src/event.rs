//! What happens to a deployment on a gateway, and what is to be done about it.

use ballast_bundle::ReleaseRef;
use ballast_bundle::protocol::FailureReason;

use crate::{ReleaseId, Wish};

/// Something happened. Events about a release that is no longer in the slot they speak of change nothing.
#[expect(clippy::large_enum_variant, reason = "one event at a time is ever held")]
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    /// The process started with the state it found on disk.
    Booted,
    /// A write failed and [`unwritten`](crate::unwritten) was done instead; the disk may take it now. Whatever the state
    /// waits for is asked for once more.
    Resumed,
    /// The bytes of a candidate are gone from the store or damaged there: nobody's fault; they are brought again.
    Damaged(ReleaseId),
    /// A verified assignment that has not expired says this.
    Assigned(Wish),
    /// A verified assignment no longer names the deployment.
    Withdrawn,
    /// Every byte of the candidate is in the store and verified.
    Fetched(ReleaseId),
    /// The statement of a release whose bytes already serve under a lower number was verified.
    Relabelled(ReleaseId),
    /// It fits beside what runs, and no other release is on trial.
    Admitted(ReleaseId),
    /// It does not fit now; not its fault.
    Deferred {
        /// Which one.
        of: ReleaseId,
        /// A reason that is no failure.
        reason: FailureReason,
        /// One sentence for people.
        message: String,
    },
    /// The candidate reproduced its golden vectors here.
    ProbePassed(ReleaseId),
    /// Anything that rejects a release at once: it did not verify, could not be loaded, failed its probe, was too slow.
    Rejected {
        /// Which one.
        of: ReleaseId,
        /// Why.
        reason: FailureReason,
        /// One sentence for people.
        message: String,
    },
    /// So many more requests (or golden replays) were answered well.
    Answered {
        /// By which one.
        by: ReleaseId,
        /// How many since the last event.
        requests: u64,
    },
    /// A request (or golden replay) failed on a release.
    RequestFailed {
        /// On which one.
        on: ReleaseId,
        /// Why.
        reason: FailureReason,
        /// One sentence for people.
        message: String,
    },
    /// Time has passed.
    Tick,
}

/// What to do, in order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Write the state durably. Nothing after it happens before it is on disk.
    Persist,
    /// Download and verify whatever of the release is not in the store; answer [`Event::Fetched`],
    /// [`Event::Deferred`] or [`Event::Rejected`]. A network that fails is no answer: try again.
    Fetch(ReleaseRef),
    /// Fetch and verify only the statement; answer [`Event::Relabelled`] or [`Event::Rejected`].
    Relabel(ReleaseRef),
    /// See whether it may be tried now; answer [`Event::Admitted`] or [`Event::Deferred`], or wait for the next one.
    Admit(ReleaseRef),
    /// Load it and replay its golden vectors; answer [`Event::ProbePassed`] or [`Event::Rejected`].
    Probe(ReleaseRef),
    /// Bring what is served in line with [`State::serving`](crate::State::serving).
    Switch,
    /// Tell the operator soon.
    Report,
    /// Blobs that no slot names may be deleted.
    Collect,
}
