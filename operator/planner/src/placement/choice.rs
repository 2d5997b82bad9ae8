//! `Auto`: the choice, and what keeps it from wavering.

use std::cmp::Reverse;

use ballast_bundle::UnixMillis;
use serde::{Deserialize, Serialize};

use super::facts::{Facts, Objectives};
use super::figures::Latency;
use super::table::{Mode, Row, Table, table};

/// What the planner remembers of a target between two looks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PlacementState {
    current: Option<Mode>,
    /// What was wanted when `current` was chosen.
    wanted: Objectives,
    /// A better one, and since when without a break.
    better: Option<(Mode, UnixMillis)>,
    /// When facts last changed the choice, and how often they have of late.
    changed: Option<UnixMillis>,
    changes: u32,
}

impl PlacementState {
    /// What was chosen last.
    pub const fn current(&self) -> Option<Mode> {
        self.current
    }
}

/// Why it is this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Why {
    /// No other keeps every objective.
    OnlyOne,
    /// The gateway runs on a battery: the least energy.
    LeastEnergy,
    /// Bytes cost money: the fewest.
    FewestBytes,
    /// Neither energy nor bytes are scarce: the fastest.
    Fastest,
    /// Another one is better by less than a fifth, or not for long enough.
    Kept,
    /// None keeps every objective: what is, stays; to begin with, what leaves the least.
    NoneFits,
}

/// The choice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Every mode.
    pub table: Table,
    /// The one to take.
    pub mode: Mode,
    /// Why.
    pub why: Why,
    /// The one that will be taken if it stays better until then.
    pub next: Option<(Mode, UnixMillis)>,
}

/// Another mode must be better for so long, without a break: longer than a link takes to come and go, and than gateways need
/// for three syncs.
const HOLD: u64 = 600_000;
/// Twice as long after each change that facts have forced, up to …
const MOST_DOUBLINGS: u32 = 7;
/// … and as at first again after a day without one.
const CALM: u64 = 24 * 3_600_000;
/// Better by less than a fifth is not worth a change: measured figures waver by more.
const MARGIN: (u64, u64) = (4, 5);

/// Looks at a target. A user's new objectives act at once. So does a fact that excludes the mode in force where another one
/// needs the cloud less: a link that went away is no reason to wait. Every other way must stay the better one for a
/// while, so that a link that comes and goes costs one change and not one for each time.
pub fn choose(
    facts: &Facts,
    objectives: &Objectives,
    state: &PlacementState,
    now: UnixMillis,
) -> (Choice, PlacementState) {
    let table = table(facts, objectives);
    let mut state = state.clone();
    let (best, why) = best(&table, facts);
    let current = state.current.filter(|_| state.wanted == *objectives);
    let (mode, why, next) = match (current, best) {
        (None, Some(best)) => {
            state = PlacementState {
                current: Some(best),
                wanted: *objectives,
                changed: Some(now),
                ..PlacementState::default()
            };
            (best, why, None)
        }
        // Not remembered as a choice: the first one that fits is taken at once.
        (None, None) => (state.current.unwrap_or(Mode::Edge), Why::NoneFits, None),
        (Some(current), None) => {
            state.better = None;
            (current, Why::NoneFits, None)
        }
        (Some(current), Some(best)) if current == best => {
            state.better = None;
            (current, why, None)
        }
        (Some(current), Some(best)) => {
            let excluded = !table.row(current).fits();
            let at_once = excluded && best < current;
            let worth = excluded || much_better(table.row(best), table.row(current), facts);
            let since = match state.better {
                Some((mode, since)) if mode == best && since <= now => since,
                Some(_) | None => now,
            };
            let calm = state.changed.is_none_or(|changed| now.0.saturating_sub(changed.0) >= CALM);
            let changes = if calm { 0 } else { state.changes };
            let due = UnixMillis(since.0.saturating_add(HOLD << changes.min(MOST_DOUBLINGS)));
            if at_once || worth && due <= now {
                let changes = changes.saturating_add(1);
                state = PlacementState {
                    current: Some(best),
                    wanted: *objectives,
                    better: None,
                    changed: Some(now),
                    changes,
                };
                (best, why, None)
            } else {
                state.better = worth.then_some((best, since));
                (current, Why::Kept, worth.then_some((best, due)))
            }
        }
    };
    (Choice { table, mode, why, next }, state)
}

/// Lower is better; what was not measured comes last.
type Rank = [u64; 3];

fn rank(row: &Row, facts: &Facts) -> (Rank, Why) {
    let unknown = u64::MAX;
    let latency = match row.figures.latency_p99 {
        Some(Latency::Micros(micros)) => micros,
        Some(Latency::Unbounded) | None => unknown,
    };
    let bytes = row.figures.bytes_per_day.unwrap_or(unknown);
    let energy = row.figures.nanojoules.unwrap_or(unknown);
    match (facts.battery, facts.link.is_some_and(|link| link.metered)) {
        (true, true) => ([energy, bytes, latency], Why::LeastEnergy),
        (true, false) => ([energy, latency, bytes], Why::LeastEnergy),
        (false, true) => ([bytes, latency, energy], Why::FewestBytes),
        (false, false) => ([latency, energy, bytes], Why::Fastest),
    }
}

fn best(table: &Table, facts: &Facts) -> (Option<Mode>, Why) {
    let fitting: Vec<&Row> = table.0.iter().filter(|row| row.fits()).collect();
    let best = fitting.iter().min_by_key(|row| (rank(row, facts).0, Reverse(row.figures.accuracy), row.mode));
    match (best, fitting.len()) {
        (None, _) => (None, Why::NoneFits),
        (Some(row), 1) => (Some(row.mode), Why::OnlyOne),
        (Some(row), _) => (Some(row.mode), rank(row, facts).1),
    }
}

/// By a fifth at least in the first figure in which they differ.
fn much_better(best: &Row, current: &Row, facts: &Facts) -> bool {
    let pairs = rank(best, facts).0.into_iter().zip(rank(current, facts).0);
    let first = pairs.into_iter().find(|(best, current)| best != current);
    first.is_some_and(|(best, current)| {
        u128::from(best) * u128::from(MARGIN.1) <= u128::from(current) * u128::from(MARGIN.0)
    })
}
