//! Conditions and reasons, and the one table that says which situation shows which.

use ballast_bundle::UnixMillis;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::Phase;

/// Condition types. The first two are normal when True, the others when False (kstatus' abnormal-true).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ConditionType {
    /// The observed generation's release passed its last step.
    Ready,
    /// Its bundles are signed and in the registry.
    BundlesSigned,
    /// Something is under way.
    Reconciling,
    /// Nothing will happen until somebody changes something.
    Stalled,
    /// It serves, but not everywhere as wanted.
    Degraded,
}

macro_rules! words {
    ($t:ident: $($v:ident),* $(,)?) => {
        impl $t {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$v),*];
            /// As objects say it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$v => stringify!($v),)*
                }
            }
        }
        impl std::fmt::Display for $t {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words!(ConditionType: Ready, BundlesSigned, Reconciling, Stalled, Degraded);

/// True, False or Unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // the names are Kubernetes'
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}
words!(ConditionStatus: True, False, Unknown);

// One place for name and meaning: docs, rustdoc and objects read the same words.
macro_rules! reasons {
    ($($v:ident $meaning:literal),* $(,)?) => {
        /// Why a condition is as it is. Closed: what is not here is not said.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason {
            $(#[doc = $meaning] $v,)*
        }
        words!(Reason: $($v),*);
        impl Reason {
            /// One sentence for people.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$v => $meaning,)*
                }
            }
        }
    };
}

reasons!(
    Accepted "The object was seen and nothing is known yet.",
    Compiling "Sources are fetched and compiled.",
    Signed "The bundles of every target are signed.",
    SignedForSome "The release does not fit some targets; their gateways are ineligible. The others' bundles are signed.",
    NoGatewaySelected "The selector matches no enrolled gateway.",
    NoEligibleGateway "Gateways are selected, but the release was built for none of their targets.",
    RollingOut "Gateways take the release step by step.",
    Soaking "Every gateway of the step passed; it is watched for the soak time.",
    WaitingForGateways "Gateways of the step have not fetched the release yet, or wait for memory or disk.",
    Paused "A person stopped the rollout.",
    Halted "The release failed on gateways and waits for a person (onFailure: Pause).",
    RolledBack "The release failed on gateways and was withdrawn.",
    Complete "The release passed its last step.",
    Superseded "A newer release took its place.",
    GatewaysSilent "Gateways have not been heard of for longer than the silence deadline.",
    GatewaysFailed "Gateways went back to another release.",
    InvalidSpec "The object contradicts itself or another one.",
    NameConflict "Another ModelDeployment of the namespace serves the same name.",
    SourceUnavailable "A source could not be fetched; it is tried again.",
    DigestMismatch "A source has another digest than the one that is written.",
    NotOnnx "The model is not an ONNX file, or is truncated.",
    UnsupportedOperators "The model uses operators that Ballast does not know.",
    UnsupportedType "The model uses element types that Ballast does not know.",
    OpenDimensions "The model leaves dimensions open that model.inputs does not fix.",
    MemoryExceeded "The model needs more memory than every target gives.",
    DeadlineExceeded "The predicted time is above the deadline on every target.",
    GoldenMismatch "The golden vectors are not reproduced.",
    ContractChanged "Inputs or outputs differ from the stable release's, and model.allowContractChange is not set.",
    CompilerCrashed "The compiler died twice on this input.",
    DoesNotFit "No variant fits any target.",
    CompilerUnavailable "The compiler could not do its work; it is tried again.",
    ClockBehind "The operator's clock is more than a day behind the last release: nothing is signed until it is set.",
    BundleUnavailable "A bundle could not be stored, or is lost and was not built again with the same digest; it is tried again.",
    NotStalled "Nothing holds it up.",
    NotDegraded "It serves everywhere as wanted.",
);

macro_rules! some_reasons {
    ($(#[$doc:meta])* $t:ident: $($v:ident),* $(,)?) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $t {
            $(#[doc = concat!("[`Reason::", stringify!($v), "`]")] $v,)*
        }
        impl $t {
            /// Every one.
            pub const ALL: &[Self] = &[$(Self::$v),*];
            /// As a condition says it.
            pub const fn reason(self) -> Reason {
                match self {
                    $(Self::$v => Reason::$v,)*
                }
            }
            const fn of(reason: Reason) -> Option<Self> {
                match reason {
                    $(Reason::$v => Some(Self::$v),)*
                    _ => None,
                }
            }
        }
    };
}

some_reasons!(
    /// Why nothing is signed until somebody changes something.
    Refusal: InvalidSpec, NameConflict, DigestMismatch, NotOnnx, UnsupportedOperators, UnsupportedType, OpenDimensions,
    MemoryExceeded, DeadlineExceeded, GoldenMismatch, ContractChanged, CompilerCrashed, DoesNotFit,
);
some_reasons!(
    /// What holds a release up and may pass by itself.
    Obstacle: SourceUnavailable, CompilerUnavailable, BundleUnavailable, ClockBehind,
);

/// What is going on with the release of the observed generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Situation {
    /// Seen for the first time.
    FirstSight,
    /// Being fetched and compiled.
    Compiling,
    /// Held up before it was signed; tried again.
    Retrying(Obstacle),
    /// Nothing was signed, for this reason.
    Refused(Refusal),
    /// The selector matches nothing; nothing is built.
    NoGatewaySelected,
    /// The selector matches nothing any more; bundles are there.
    NoGatewayLeft,
    /// Gateways are selected, none is of a hardware target that the release may be built for; nothing is built.
    NoTargetSelected,
    /// Gateways are selected, none is eligible; bundles are there.
    NoEligibleGateway,
    /// In a step.
    RollingOut,
    /// In a step whose gateways do not come.
    WaitingForGateways,
    /// Step passed, soaking.
    Soaking,
    /// Stopped by a person.
    Paused,
    /// Failed, `onFailure: Pause`.
    Halted,
    /// Failed and withdrawn.
    RolledBack,
    /// Passed its last step.
    Complete,
    /// Passed its last step; some gateways are silent.
    CompleteSomeSilent,
    /// Passed its last step; some gateways went back.
    CompleteSomeFailed,
}

impl Situation {
    /// Every one, in the order of the table.
    pub fn all() -> Vec<Self> {
        let retrying = Obstacle::ALL.iter().copied().map(Self::Retrying);
        let refused = Refusal::ALL.iter().copied().map(Self::Refused);
        let rest = [
            Self::NoGatewaySelected,
            Self::NoGatewayLeft,
            Self::NoTargetSelected,
            Self::NoEligibleGateway,
            Self::RollingOut,
            Self::WaitingForGateways,
            Self::Soaking,
            Self::Paused,
            Self::Halted,
            Self::RolledBack,
            Self::Complete,
            Self::CompleteSomeSilent,
            Self::CompleteSomeFailed,
        ];
        [Self::FirstSight, Self::Compiling].into_iter().chain(retrying).chain(refused).chain(rest).collect()
    }

    /// Before anything is signed: refused or tried again for this reason; for any other, it is simply at work.
    pub const fn unsigned(reason: Reason) -> Self {
        match (Refusal::of(reason), Obstacle::of(reason)) {
            (Some(why), _) => Self::Refused(why),
            (None, Some(why)) => Self::Retrying(why),
            (None, None) => Self::Compiling,
        }
    }
}

/// One cell: status and reason.
pub type Cell = (ConditionStatus, Reason);

/// One row of the truth table: Ready, BundlesSigned, Reconciling, Stalled, Degraded, in the order of
/// [`ConditionType::ALL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// For people.
    pub phase: Phase,
    /// In the order of [`ConditionType::ALL`].
    pub cells: [Cell; 5],
}

/// The truth table. `some_unsupported`: the release does not fit some of the targets found among the gateways.
pub const fn row(situation: Situation, some_unsupported: bool) -> Row {
    use ConditionStatus::{False, True, Unknown};
    const QUIET: Cell = (False, Reason::NotStalled);
    const WELL: Cell = (False, Reason::NotDegraded);
    let signed = (True, if some_unsupported { Reason::SignedForSome } else { Reason::Signed });
    const fn cells(ready: Cell, signed: Cell, reconciling: Cell, stalled: Cell, degraded: Cell) -> [Cell; 5] {
        [ready, signed, reconciling, stalled, degraded]
    }
    match situation {
        Situation::FirstSight => {
            let new = Reason::Accepted;
            Row { phase: Phase::Compiling, cells: cells((Unknown, new), (Unknown, new), (True, new), QUIET, WELL) }
        }
        Situation::Compiling => {
            let busy = Reason::Compiling;
            Row { phase: Phase::Compiling, cells: cells((False, busy), (False, busy), (True, busy), QUIET, WELL) }
        }
        Situation::Retrying(why) => {
            let why = why.reason();
            Row { phase: Phase::Compiling, cells: cells((False, why), (False, why), (True, why), QUIET, WELL) }
        }
        Situation::Refused(why) => {
            let why = why.reason();
            Row { phase: Phase::Refused, cells: cells((False, why), (False, why), (False, why), (True, why), WELL) }
        }
        Situation::NoGatewaySelected => {
            let why = Reason::NoGatewaySelected;
            Row { phase: Phase::Waiting, cells: cells((False, why), (False, why), (False, why), (True, why), WELL) }
        }
        Situation::NoGatewayLeft => {
            let why = Reason::NoGatewaySelected;
            Row { phase: Phase::Waiting, cells: cells((False, why), signed, (False, why), (True, why), WELL) }
        }
        Situation::NoTargetSelected => {
            let why = Reason::NoEligibleGateway;
            Row { phase: Phase::Waiting, cells: cells((False, why), (False, why), (False, why), (True, why), WELL) }
        }
        Situation::NoEligibleGateway => {
            let why = Reason::NoEligibleGateway;
            Row { phase: Phase::Waiting, cells: cells((False, why), signed, (False, why), (True, why), WELL) }
        }
        Situation::RollingOut => {
            let why = Reason::RollingOut;
            Row { phase: Phase::RollingOut, cells: cells((False, why), signed, (True, why), QUIET, WELL) }
        }
        Situation::WaitingForGateways => {
            let why = Reason::WaitingForGateways;
            Row { phase: Phase::RollingOut, cells: cells((False, why), signed, (True, why), QUIET, WELL) }
        }
        Situation::Soaking => {
            let why = Reason::Soaking;
            Row { phase: Phase::RollingOut, cells: cells((False, why), signed, (True, why), QUIET, WELL) }
        }
        // A person's own wish is not a fault: nothing is stalled, nothing is under way.
        Situation::Paused => {
            let why = Reason::Paused;
            Row { phase: Phase::Paused, cells: cells((False, why), signed, (False, why), QUIET, WELL) }
        }
        Situation::Halted => {
            let why = Reason::Halted;
            Row { phase: Phase::Paused, cells: cells((False, why), signed, (False, why), (True, why), (True, why)) }
        }
        // Every gateway serves the stable release, as wanted: stalled, not degraded.
        Situation::RolledBack => {
            let why = Reason::RolledBack;
            Row { phase: Phase::RolledBack, cells: cells((False, why), signed, (False, why), (True, why), WELL) }
        }
        Situation::Complete => {
            let why = Reason::Complete;
            Row { phase: Phase::Active, cells: cells((True, why), signed, (False, why), QUIET, WELL) }
        }
        Situation::CompleteSomeSilent => {
            let why = Reason::Complete;
            let silent = (True, Reason::GatewaysSilent);
            Row { phase: Phase::Active, cells: cells((True, why), signed, (False, why), QUIET, silent) }
        }
        Situation::CompleteSomeFailed => {
            let why = Reason::Complete;
            let failed = (True, Reason::GatewaysFailed);
            Row { phase: Phase::Active, cells: cells((True, why), signed, (False, why), QUIET, failed) }
        }
    }
}

/// RFC 3339 in UTC, with milliseconds only where there are some.
pub fn rfc3339(at: UnixMillis) -> String {
    timestamp(at).to_string()
}

fn timestamp(at: UnixMillis) -> Timestamp {
    i64::try_from(at.0).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX)
}

/// The five conditions of a row. `lastTransitionTime` is kept from `previous` where the status did not change.
pub fn conditions(
    previous: &[Condition],
    row: &Row,
    message: &str,
    generation: i64,
    now: UnixMillis,
) -> Vec<Condition> {
    ConditionType::ALL
        .iter()
        .zip(row.cells)
        .map(|(kind, (status, reason))| {
            let before = previous.iter().find(|c| c.type_ == kind.as_str() && c.status == status.as_str());
            // A quiet condition says only that it is quiet; the others say what goes on.
            let quiet = matches!(reason, Reason::NotStalled | Reason::NotDegraded);
            Condition {
                type_: kind.to_string(),
                status: status.to_string(),
                reason: reason.to_string(),
                message: if quiet || message.is_empty() { reason.meaning().to_owned() } else { message.to_owned() },
                last_transition_time: before.map_or_else(|| Time(timestamp(now)), |c| c.last_transition_time.clone()),
                observed_generation: Some(generation),
            }
        })
        .collect()
}
