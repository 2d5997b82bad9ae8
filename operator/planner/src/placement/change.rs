//! What would have to change, one figure at a time.

use super::facts::{Facts, Privacy};
use super::figures::{ALL, DAYS, SECOND, TAIL, ratio, request_bytes, split_bytes, transfer, updates};
use super::table::{Mode, Reason};

/// One figure that, alone, removes one reason. Bounds are exact: the figure itself is enough, the next worse one is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Change {
    /// On the gateway.
    #[error("an answer of the gateway within {0} µs")]
    EdgeWithin(u64),
    /// Of the head of a split model.
    #[error("a head that is done within {0} µs")]
    HeadWithin(u64),
    /// Of the cloud alone.
    #[error("an answer of the cloud itself within {0} µs")]
    CloudWithin(u64),
    /// Of the link.
    #[error("a round trip of at most {0} µs")]
    RoundTripWithin(u64),
    /// Of the link.
    #[error("at least {0} bytes a second from the gateway")]
    UploadAtLeast(u64),
    /// Of the link, in ten-thousandths of the time.
    #[error("a cloud that is reachable for {}.{:02} % of the time", .0 / 100, .0 % 100)]
    ReachableAtLeast(u16),
    /// Of clients.
    #[error("at most {0} requests a day")]
    RequestsAtMost(u64),
    /// In ten-thousandths.
    #[error("at most {}.{:02} % of the answers sent on", .0 / 100, .0 % 100)]
    EscalatedAtMost(u16),
    /// Of one release.
    #[error("updates of at most {0} bytes")]
    UpdateAtMost(u64),
    /// Of the chip.
    #[error("at most {0} mW while it computes")]
    MilliwattsAtMost(u64),
    /// Of the radio.
    #[error("at most {0} nJ for a byte over the link")]
    NanojoulesPerByteAtMost(u64),
    /// In ten-thousandths.
    #[error("{}.{:02} % right answers", .0 / 100, .0 % 100)]
    AccuracyAtLeast(u16),
    /// Of the objectives.
    #[error("privacy: {0:?}")]
    Privacy(Privacy),
}

/// Figures that remove `reason` from `mode`'s row. Where none stands here, no single one does.
pub(super) fn changes(mode: Mode, reason: &Reason, facts: &Facts) -> Vec<Change> {
    let found = match *reason {
        Reason::TooSlow { is, most } => return faster(mode, is - most, facts),
        Reason::TooManyBytes { most, .. } => return lighter(mode, most, facts),
        Reason::TooMuchEnergy { most, .. } => return thriftier(mode, most, facts),
        Reason::Leaves { sends, .. } => Change::Privacy(sends),
        #[allow(clippy::cast_possible_truncation)] // 9,900
        Reason::Unreachable { .. } => Change::ReachableAtLeast((ALL - TAIL) as u16),
        Reason::NotAccurate { least, .. } => Change::AccuracyAtLeast(least),
        Reason::DoesNotFit(_) | Reason::NoCloud | Reason::NoLink | Reason::NoSplit | Reason::Unmeasured(_) => {
            return Vec::new();
        }
    };
    vec![found]
}

/// Something that must become less by `excess`; nothing is faster than in no time.
fn less(now: Option<u64>, excess: u64, change: fn(u64) -> Change) -> Option<Change> {
    now?.checked_sub(excess).filter(|rest| *rest > 0).map(change)
}

fn faster(mode: Mode, excess: u64, facts: &Facts) -> Vec<Change> {
    let (edge, cloud, link) = (facts.edge.p99_micros, facts.cloud, facts.link);
    let round_trip = || less(link.map(|link| link.round_trip_micros), excess, Change::RoundTripWithin);
    let upload = |bytes: u64| {
        let link = link?;
        let took = ratio(bytes, SECOND, link.up);
        let may = took.checked_sub(excess).filter(|may| *may > 0)?;
        Some(Change::UploadAtLeast(ratio(bytes, SECOND, may)))
    };
    let overhead = cloud.map_or(0, |cloud| cloud.overhead_bytes);
    let input = facts.input_bytes.saturating_add(overhead);
    let mut all = Vec::new();
    match mode {
        Mode::Edge => all.push(less(edge, excess, Change::EdgeWithin)),
        Mode::Cloud => {
            all.push(round_trip());
            all.push(upload(input));
            all.push(less(cloud.and_then(|cloud| cloud.p99_micros), excess, Change::CloudWithin));
        }
        Mode::Joint => {
            all.push(less(edge, excess, Change::EdgeWithin));
            let own = edge.zip(cloud).zip(link);
            // With so little sent on, 99 of 100 answers are the edge's own.
            #[allow(clippy::cast_possible_truncation)] // 100
            let rarely = Change::EscalatedAtMost(TAIL as u16);
            let waits =
                own.is_some_and(|((_, cloud), _)| cloud.escalated.is_some_and(super::figures::escalation_counts));
            // Waiting is the excess's cause only if the edge's own answers are in time.
            let waited = own.map_or(0, |((_, cloud), link)| {
                let remote = transfer(&link, input, facts.output_bytes);
                cloud
                    .p99_micros
                    .map_or(cloud.deadline_micros, |own| remote.saturating_add(own).min(cloud.deadline_micros))
            });
            all.push((waits && waited >= excess).then_some(rarely));
        }
        Mode::Split => {
            let split = facts.split;
            all.push(less(split.and_then(|split| split.head_p99_micros), excess, Change::HeadWithin));
            all.push(round_trip());
            all.push(upload(split.map_or(0, |split| split.features_bytes).saturating_add(overhead)));
        }
    }
    all.into_iter().flatten().collect()
}

fn lighter(mode: Mode, most: u64, facts: &Facts) -> Vec<Change> {
    let update = |bytes: u64| most.checked_sub(updates(facts, bytes));
    // Rounded up where it is used, so down here.
    let update_size = |rest: u64| {
        let size = u128::from(rest) * u128::from(DAYS) / u128::from(facts.edge.updates_per_thousand_days.max(1));
        Change::UpdateAtMost(u64::try_from(size).unwrap_or(u64::MAX))
    };
    let cloud = facts.cloud.unwrap_or_default();
    let each = request_bytes(facts, &cloud).max(1);
    match mode {
        Mode::Edge => vec![update_size(most)],
        Mode::Cloud => vec![Change::RequestsAtMost(most / each)],
        Mode::Joint => {
            let Some((rest, requests)) = update(facts.edge.update_bytes).zip(facts.requests_per_day) else {
                return Vec::new();
            };
            // `ceil(requests · share ÷ ALL) ≤ rest ÷ each`
            let share = u128::from(rest / each) * u128::from(ALL) / u128::from(requests.max(1));
            let share = u16::try_from(share).unwrap_or(u16::MAX).min(cloud.escalated.unwrap_or(0));
            vec![Change::EscalatedAtMost(share)]
        }
        Mode::Split => {
            let Some((rest, split)) = facts.split.and_then(|split| Some((update(split.update_bytes)?, split))) else {
                return Vec::new();
            };
            vec![Change::RequestsAtMost(rest / split_bytes(facts, &cloud, &split).max(1))]
        }
    }
}

fn thriftier(mode: Mode, most: u64, facts: &Facts) -> Vec<Change> {
    let cloud = facts.cloud.unwrap_or_default();
    let radio = |bytes: u64| Change::NanojoulesPerByteAtMost(most / bytes.max(1));
    match mode {
        Mode::Edge => {
            facts.edge.mean_micros.map(|micros| Change::MilliwattsAtMost(most / micros.max(1))).into_iter().collect()
        }
        Mode::Cloud => vec![radio(request_bytes(facts, &cloud))],
        // Two parts, and either may be at fault.
        Mode::Joint | Mode::Split => Vec::new(),
    }
}
