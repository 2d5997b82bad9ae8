//! The table: each mode, its figures, and why it cannot be.

use std::fmt;

use super::change::{Change, changes};
use super::facts::{Facts, Objectives, Privacy};
use super::figures::{Figures, Latency};

/// Where answers come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    /// All on the gateway.
    Edge,
    /// The edge's where it is sure, the cloud's for the rest.
    Joint,
    /// The head of the model on the gateway, the tail in the cloud.
    Split,
    /// All from the cloud.
    Cloud,
}

impl Mode {
    /// In the order of the table: the more of it happens on the gateway, the earlier.
    pub const ALL: [Self; 4] = [Self::Edge, Self::Joint, Self::Split, Self::Cloud];

    /// What leaves the gateway in this mode.
    pub const fn sends(self) -> Privacy {
        match self {
            Self::Edge => Privacy::LocalOnly,
            Self::Split => Privacy::Features,
            Self::Joint | Self::Cloud => Privacy::Any,
        }
    }

    pub(super) const fn runs_model(self) -> bool {
        matches!(self, Self::Edge | Self::Joint)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// Why a mode cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The gateway cannot run the model.
    #[error("the model does not fit the gateway: {0}")]
    DoesNotFit(String),
    /// Nobody answers there.
    #[error("there is no model in the cloud to ask")]
    NoCloud,
    /// Nobody knows the way.
    #[error("no link to the cloud was measured yet")]
    NoLink,
    /// The model is whole.
    #[error("the model has no cut that it could be split at")]
    NoSplit,
    /// It would tell too much.
    #[error("{sends:?} would leave the gateway, and privacy allows {allows:?}")]
    Leaves {
        /// What would leave.
        sends: Privacy,
        /// What may.
        allows: Privacy,
    },
    /// Too slow.
    #[error("99 of 100 answers take up to {is} µs, wanted are {most} µs")]
    TooSlow {
        /// Microseconds.
        is: u64,
        /// Microseconds.
        most: u64,
    },
    /// Often away.
    #[error("every answer needs the cloud, and it is reachable for {}.{:02} % of the time only", .reachable / 100, .reachable % 100)]
    Unreachable {
        /// Ten-thousandths of the time.
        reachable: u16,
    },
    /// Too much to send.
    #[error("{is} bytes a day go over the link, wanted are {most}")]
    TooManyBytes {
        /// Bytes.
        is: u64,
        /// Bytes.
        most: u64,
    },
    /// Too much for a battery.
    #[error("one answer takes {is} nJ, wanted are {most} nJ")]
    TooMuchEnergy {
        /// Nanojoules.
        is: u64,
        /// Nanojoules.
        most: u64,
    },
    /// Too often wrong.
    #[error("{}.{:02} % of the answers are right, wanted are {}.{:02} %", .is / 100, .is % 100, .least / 100, .least % 100)]
    NotAccurate {
        /// Ten-thousandths.
        is: u16,
        /// Ten-thousandths.
        least: u16,
    },
    /// An objective cannot be held against anything.
    #[error("{0} is an objective and was not measured for this mode")]
    Unmeasured(&'static str),
}

/// One mode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub mode: Mode,
    /// What it comes to.
    pub figures: Figures,
    /// Why it cannot be; none: it keeps every objective.
    pub excluded: Vec<Reason>,
    /// For each reason that one figure alone would remove, that figure.
    pub changes: Vec<Change>,
}

impl Row {
    /// It keeps every objective.
    pub const fn fits(&self) -> bool {
        self.excluded.is_empty()
    }
}

/// All modes, in the order of [`Mode::ALL`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table(pub [Row; 4]);

impl Table {
    /// The row of a mode.
    pub fn row(&self, mode: Mode) -> &Row {
        let [edge, joint, split, cloud] = &self.0;
        match mode {
            Mode::Edge => edge,
            Mode::Joint => joint,
            Mode::Split => split,
            Mode::Cloud => cloud,
        }
    }
}

/// Every mode against the objectives.
pub fn table(facts: &Facts, objectives: &Objectives) -> Table {
    Table(Mode::ALL.map(|mode| {
        let figures = Figures::of(mode, facts);
        let excluded = reasons(mode, facts, objectives, &figures);
        let changes = excluded.iter().flat_map(|reason| changes(mode, reason, facts)).collect();
        Row { mode, figures, excluded, changes }
    }))
}

fn reasons(mode: Mode, facts: &Facts, wanted: &Objectives, figures: &Figures) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if mode.runs_model() {
        reasons.extend(facts.edge.does_not_fit.clone().map(Reason::DoesNotFit));
    }
    if mode != Mode::Edge {
        reasons.extend(facts.cloud.is_none().then_some(Reason::NoCloud));
        reasons.extend(facts.link.is_none().then_some(Reason::NoLink));
    }
    if mode == Mode::Split {
        reasons.extend(facts.split.is_none().then_some(Reason::NoSplit));
    }
    let (sends, allows) = (mode.sends(), wanted.privacy);
    reasons.extend((sends > allows).then_some(Reason::Leaves { sends, allows }));
    // A mode that does not exist has no figures to hold against anything.
    if reasons.iter().any(|reason| !matches!(reason, Reason::Leaves { .. })) {
        return reasons;
    }
    let reachable = facts.link.map_or(0, |link| link.reachable);
    match (figures.latency_p99, wanted.latency_p99_micros) {
        (Some(Latency::Unbounded), _) => reasons.push(Reason::Unreachable { reachable }),
        (Some(Latency::Micros(is)), Some(most)) if is > most => reasons.push(Reason::TooSlow { is, most }),
        (None, Some(_)) => reasons.push(Reason::Unmeasured("latencyP99")),
        (Some(Latency::Micros(_)) | None, _) => {}
    }
    match (figures.bytes_per_day, wanted.bytes_per_day) {
        (Some(is), Some(most)) if is > most => reasons.push(Reason::TooManyBytes { is, most }),
        (None, Some(_)) => reasons.push(Reason::Unmeasured("bytesPerDay")),
        (Some(_) | None, _) => {}
    }
    match (figures.nanojoules, wanted.nanojoules) {
        (Some(is), Some(most)) if is > most => reasons.push(Reason::TooMuchEnergy { is, most }),
        (None, Some(_)) => reasons.push(Reason::Unmeasured("millijoules")),
        (Some(_) | None, _) => {}
    }
    match (figures.accuracy, wanted.accuracy) {
        (Some(is), Some(least)) if is < least => reasons.push(Reason::NotAccurate { is, least }),
        (None, Some(_)) => reasons.push(Reason::Unmeasured("accuracy")),
        (Some(_) | None, _) => {}
    }
    reasons
}
