//! What each mode comes to.

use super::facts::{CloudFacts, Facts, LinkFacts, SplitFacts};
use super::table::Mode;

/// 99 of 100 answers within …
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Latency {
    /// … microseconds.
    Micros(u64),
    /// … no time at all: the cloud is away for more than one per cent of it, and this mode has no answer of its own.
    Unbounded,
}

/// Figures of one mode; `None`: something that it is made of was not measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// The sum of each part's own 99th percentile, which is at least that of the whole where parts are slow together.
    pub latency_p99: Option<Latency>,
    /// Over the link, both ways, updates included.
    pub bytes_per_day: Option<u64>,
    /// Of the gateway, for one answer on the average.
    pub nanojoules: Option<u64>,
    /// In ten-thousandths.
    pub accuracy: Option<u16>,
}

/// All of something that is counted in ten-thousandths.
pub(super) const ALL: u64 = 10_000;
/// Whoever is away for more than this share of the time bounds nothing for 99 of 100.
pub(super) const TAIL: u64 = ALL / 100;
pub(super) const DAYS: u64 = 1_000;
pub(super) const SECOND: u64 = 1_000_000;

/// `a · b ÷ c`, rounded up, saturating; a divisor of 0 counts as 1.
pub(super) fn ratio(a: u64, b: u64, c: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    u64::try_from(product.div_ceil(u128::from(c.max(1)))).unwrap_or(u64::MAX)
}

pub(super) const fn reachable(link: &LinkFacts) -> bool {
    link.reachable as u64 >= ALL - TAIL
}

/// From the gateway's first byte to its last of the answer, without what the cloud computes.
pub(super) fn transfer(link: &LinkFacts, up: u64, down: u64) -> u64 {
    link.round_trip_micros.saturating_add(ratio(up, SECOND, link.up)).saturating_add(ratio(down, SECOND, link.down))
}

pub(super) const fn escalation_counts(escalated: u16) -> bool {
    escalated as u64 > TAIL
}

impl Figures {
    /// Of `mode`, without asking whether it is possible.
    pub(super) fn of(mode: Mode, facts: &Facts) -> Self {
        match mode {
            Mode::Edge => edge(facts),
            Mode::Cloud => cloud(facts),
            Mode::Joint => joint(facts),
            Mode::Split => split(facts),
        }
    }
}

fn edge(facts: &Facts) -> Figures {
    Figures {
        latency_p99: facts.edge.p99_micros.map(Latency::Micros),
        bytes_per_day: Some(updates(facts, facts.edge.update_bytes)),
        nanojoules: computing(facts, facts.edge.mean_micros),
        accuracy: facts.edge.accuracy,
    }
}

fn cloud(facts: &Facts) -> Figures {
    let (Some(link), Some(cloud)) = (&facts.link, &facts.cloud) else { return Figures::default() };
    let bytes = request_bytes(facts, cloud);
    Figures {
        latency_p99: if reachable(link) { remote(facts, link, cloud) } else { Some(Latency::Unbounded) },
        bytes_per_day: facts.requests_per_day.map(|requests| requests.saturating_mul(bytes)),
        nanojoules: link.nanojoules_per_byte.map(|each| each.saturating_mul(bytes)),
        accuracy: cloud.accuracy,
    }
}

fn joint(facts: &Facts) -> Figures {
    let (Some(link), Some(cloud)) = (&facts.link, &facts.cloud) else { return Figures::default() };
    let latency = || {
        let own = facts.edge.p99_micros?;
        if !escalation_counts(cloud.escalated?) {
            return Some(Latency::Micros(own));
        }
        // Whatever the cloud does, the edge's own answer stands after the deadline.
        let waits = match (reachable(link), remote(facts, link, cloud)) {
            (true, Some(Latency::Micros(micros))) => micros.min(cloud.deadline_micros),
            _ => cloud.deadline_micros,
        };
        Some(Latency::Micros(own.saturating_add(waits)))
    };
    let sent = |each: u64| cloud.escalated.map(|escalated| ratio(each, u64::from(escalated), ALL));
    let bytes = request_bytes(facts, cloud);
    let bytes_per_day = || {
        let escalated = sent(facts.requests_per_day?)?;
        Some(updates(facts, facts.edge.update_bytes).saturating_add(escalated.saturating_mul(bytes)))
    };
    let nanojoules = || {
        let sending = sent(link.nanojoules_per_byte?.saturating_mul(bytes))?;
        Some(computing(facts, facts.edge.mean_micros)?.saturating_add(sending))
    };
    Figures {
        latency_p99: latency(),
        bytes_per_day: bytes_per_day(),
        nanojoules: nanojoules(),
        accuracy: cloud.joint_accuracy,
    }
}

fn split(facts: &Facts) -> Figures {
    let (Some(link), Some(cloud), Some(split)) = (&facts.link, &facts.cloud, &facts.split) else {
        return Figures::default();
    };
    let latency = || {
        if !reachable(link) {
            return Some(Latency::Unbounded);
        }
        let computed = split.head_p99_micros?.saturating_add(split.tail_p99_micros?);
        let up = split.features_bytes.saturating_add(cloud.overhead_bytes);
        Some(Latency::Micros(computed.saturating_add(transfer(link, up, facts.output_bytes))))
    };
    let bytes = split_bytes(facts, cloud, split);
    let bytes_per_day = || {
        let answers = facts.requests_per_day?.saturating_mul(bytes);
        Some(updates(facts, split.update_bytes).saturating_add(answers))
    };
    let nanojoules = || {
        let sending = link.nanojoules_per_byte?.saturating_mul(bytes);
        Some(computing(facts, split.head_mean_micros)?.saturating_add(sending))
    };
    Figures {
        latency_p99: latency(),
        bytes_per_day: bytes_per_day(),
        nanojoules: nanojoules(),
        accuracy: split.accuracy,
    }
}

/// The cloud's answer, link included.
fn remote(facts: &Facts, link: &LinkFacts, cloud: &CloudFacts) -> Option<Latency> {
    let up = facts.input_bytes.saturating_add(cloud.overhead_bytes);
    Some(Latency::Micros(cloud.p99_micros?.saturating_add(transfer(link, up, facts.output_bytes))))
}

/// Over the link for one request that the cloud answers.
pub(super) const fn request_bytes(facts: &Facts, cloud: &CloudFacts) -> u64 {
    facts.input_bytes.saturating_add(facts.output_bytes).saturating_add(cloud.overhead_bytes)
}

/// Over the link for one request of a split model.
pub(super) const fn split_bytes(facts: &Facts, cloud: &CloudFacts, split: &SplitFacts) -> u64 {
    split.features_bytes.saturating_add(facts.output_bytes).saturating_add(cloud.overhead_bytes)
}

/// In a day, on the average.
pub(super) fn updates(facts: &Facts, bytes: u64) -> u64 {
    ratio(bytes, facts.edge.updates_per_thousand_days, DAYS)
}

/// A milliwatt for a microsecond is a nanojoule.
fn computing(facts: &Facts, micros: Option<u64>) -> Option<u64> {
    Some(micros?.saturating_mul(facts.edge.milliwatts?))
}
