//! Walks down the thresholds of each class for as long as the promise is shown to hold.

use ballast_bundle::{CONFIDENCE_BINS, ClassThresholds, Confidence, Threshold};

use super::binomial::{fewest, lower_bound, upper_tail};
use super::window::{BINS, Cell};
use super::{EscalationTarget, Window};

/// What the labels say of a group of classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The promise holds from here up.
    Holds {
        /// Of the lowest bin with requests in which it is shown to hold; what is less sure is sent on, also where nothing
        /// was seen yet.
        below: Threshold,
        /// Labels at or above it.
        labelled: u64,
        /// Of those, the ones that agreed.
        agreed: u64,
        /// So many agree at least, in ten-thousandths.
        at_least: u16,
    },
    /// There are labels enough, and they show it nowhere: everything of these classes should be sent on.
    Nowhere {
        /// All labels.
        labelled: u64,
        /// Of those, the ones that agreed.
        agreed: u64,
    },
    /// Whatever the labels said, there are too few for the promise: keep the threshold that is in force.
    TooFewLabels {
        /// All labels.
        labelled: u64,
        /// With fewer than these nothing can be shown.
        needed: u64,
    },
}

impl Verdict {
    /// What to publish; `None`: nothing is known, keep what is in force.
    pub const fn threshold(&self) -> Option<Threshold> {
        match self {
            Self::Holds { below, .. } => Some(*below),
            Self::Nowhere { .. } => Some(Threshold::EVERYTHING),
            Self::TooFewLabels { .. } => None,
        }
    }
}

/// Classes with one threshold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassGroup {
    /// Sorted. One, or all that are too rare to stand alone.
    pub classes: Vec<u32>,
    /// Their requests.
    pub seen: u64,
    /// Of those, the ones that would have been sent on; with too few labels, unknown.
    pub escalated: Option<u64>,
    /// What their labels say.
    pub verdict: Verdict,
}

/// Thresholds for every class of a window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Thresholds {
    /// Classes that stand alone, sorted.
    pub alone: Vec<ClassGroup>,
    /// All others, also those that were not seen yet.
    pub others: Option<ClassGroup>,
}

impl Thresholds {
    /// What to do with an answer of this class; `None`: keep what is in force.
    pub fn of(&self, class: u32) -> Option<Threshold> {
        let alone = self.alone.iter().find(|group| group.classes == [class]);
        alone.or(self.others.as_ref())?.verdict.threshold()
    }

    /// What to publish where `in_force` is in force: what the labels show, and what is in force where they show nothing.
    pub fn over(&self, in_force: &ClassThresholds) -> ClassThresholds {
        let others = self.others.as_ref().and_then(|group| group.verdict.threshold()).unwrap_or(in_force.others);
        let seen =
            self.groups().flat_map(|group| group.classes.iter().map(|class| (*class, group.verdict.threshold())));
        let mut classes = in_force.classes.clone();
        for (class, shown) in seen {
            classes.insert(class, shown.unwrap_or_else(|| in_force.of(class)));
        }
        classes.retain(|_, threshold| *threshold != others);
        ClassThresholds { classes, others }
    }

    /// Every group.
    pub fn groups(&self) -> impl Iterator<Item = &ClassGroup> {
        self.alone.iter().chain(&self.others)
    }
}

/// A class stands alone with so many times the labels that all have to agree: with fewer, one disagreement more or less would
/// decide for a whole class.
const ALONE: u64 = 4;
/// The first walk starts where so many times the fewest labels are expected; that many fall there by chance.
const FIRST_START: u64 = 2;
/// Each further walk starts where so many times more labels are expected …
const NEXT_START: u64 = 4;
/// … and there are this many of them at most. A walk that starts with few labels reaches what only the surest answers
/// keep; one that starts with many is not ended by one disagreement. Each costs a share of the error that is allowed.
const MOST_WALKS: usize = 4;

/// The thresholds that keep the promise with the fewest escalations, as far as the labels show it.
pub fn thresholds(window: &Window, target: EscalationTarget) -> Thresholds {
    let share = target.agreement();
    let sampling = Sampling { seen: window.seen(), labelled: window.labelled() };
    let mut classes: Vec<(u32, u64)> = window.classes().iter().map(|(class, cells)| (*class, seen(cells))).collect();
    classes.sort_by_key(|(class, seen)| (std::cmp::Reverse(*seen), *class));
    // The most classes that can stand alone, when the error allowed is shared by so many groups.
    let alone = (0..=classes.len()).rev().find(|alone| {
        let groups = alone + usize::from(*alone < classes.len());
        let needed = fewest(share, target.error_level() / count(groups)).saturating_mul(ALONE);
        *alone == 0 || classes.get(alone - 1).is_some_and(|(_, seen)| sampling.expects(*seen, needed))
    });
    let rare = classes.split_off(alone.unwrap_or(0));
    let level = target.error_level() / count(classes.len() + usize::from(!rare.is_empty()));
    let group = |members: &[(u32, u64)]| {
        let mut classes: Vec<u32> = members.iter().map(|(class, _)| *class).collect();
        classes.sort_unstable();
        let mut cells = [Cell::default(); BINS];
        for class in classes.iter().filter_map(|class| window.classes().get(class)) {
            for (sum, cell) in cells.iter_mut().zip(class) {
                sum.seen += cell.seen;
                sum.labelled += cell.labelled;
                sum.agreed += cell.agreed;
            }
        }
        let verdict = Walks { cells: &cells, sampling, share, level }.verdict();
        let escalated = verdict.threshold().map(|below| {
            CONFIDENCE_BINS
                .iter()
                .zip(&cells)
                .filter(|(least, _)| **least < below.get())
                .map(|(_, cell)| cell.seen)
                .sum()
        });
        ClassGroup { classes, seen: seen(&cells), escalated, verdict }
    };
    classes.sort_unstable();
    Thresholds {
        alone: classes.iter().map(|class| group(std::slice::from_ref(class))).collect(),
        others: (!rare.is_empty()).then(|| group(&rare)),
    }
}

fn seen(cells: &[Cell; BINS]) -> u64 {
    cells.iter().map(|cell| cell.seen).sum()
}

#[allow(clippy::cast_precision_loss)] // groups and walks
fn count(n: usize) -> f64 {
    n.max(1) as f64
}

/// How densely the window is labelled.
#[derive(Clone, Copy)]
struct Sampling {
    seen: u64,
    labelled: u64,
}

impl Sampling {
    /// Whether `seen` requests have so many labels to be expected.
    const fn expects(self, seen: u64, labels: u64) -> bool {
        seen as u128 * self.labelled as u128 >= labels as u128 * self.seen as u128
    }
}

/// The walks of one group.
struct Walks<'a> {
    cells: &'a [Cell; BINS],
    sampling: Sampling,
    share: f64,
    level: f64,
}

impl Walks<'_> {
    fn verdict(&self) -> Verdict {
        let all = self.from(0);
        let needed = fewest(self.share, self.level);
        if all.labelled < needed {
            return Verdict::TooFewLabels { labelled: all.labelled, needed };
        }
        let starts = self.starts();
        let level = self.level / count(starts.len());
        let lowest = starts.iter().filter_map(|start| self.walk(*start, level)).min();
        let Some((bin, least)) = lowest.and_then(|bin| Some((bin, *CONFIDENCE_BINS.get(bin)?))) else {
            return Verdict::Nowhere { labelled: all.labelled, agreed: all.agreed };
        };
        let kept = self.from(bin);
        Verdict::Holds {
            below: Confidence::try_from(least).map_or(Threshold::EVERYTHING, Threshold::from),
            labelled: kept.labelled,
            agreed: kept.agreed,
            at_least: lower_bound(kept.labelled, kept.agreed, level),
        }
    }

    /// Counts at or above a bin.
    fn from(&self, bin: usize) -> Cell {
        self.cells.iter().skip(bin).fold(Cell::default(), |sum, cell| Cell {
            seen: sum.seen + cell.seen,
            labelled: sum.labelled + cell.labelled,
            agreed: sum.agreed + cell.agreed,
        })
    }

    /// Bins where walks start: as many as there are different ones whose labels can show anything at their share of the
    /// level.
    fn starts(&self) -> Vec<usize> {
        let all = self.from(0).seen;
        for walks in (2..=MOST_WALKS).rev() {
            let mut labels = fewest(self.share, self.level / count(walks)).saturating_mul(FIRST_START);
            let mut starts = Vec::new();
            while starts.len() < walks && self.sampling.expects(all, labels) {
                let start = (0..BINS).rev().find(|bin| self.sampling.expects(self.from(*bin).seen, labels));
                starts.extend(start.filter(|start| !starts.contains(start)));
                labels = labels.saturating_mul(NEXT_START);
            }
            if starts.len() == walks {
                return starts;
            }
        }
        // One walk: from where labels suffice, or, where they hardly do, of everything at once.
        let labels = fewest(self.share, self.level).saturating_mul(FIRST_START);
        let start = (0..BINS).rev().find(|bin| self.sampling.expects(self.from(*bin).seen, labels));
        start.or_else(|| self.cells.iter().position(|cell| cell.seen > 0)).into_iter().collect()
    }

    /// The last bin before the first in which the promise is not shown.
    fn walk(&self, start: usize, level: f64) -> Option<usize> {
        let candidates = (0..=start).rev().filter(|bin| self.cells.get(*bin).is_some_and(|cell| cell.seen > 0));
        let shown = |bin: &usize| {
            let Cell { labelled, agreed, .. } = self.from(*bin);
            upper_tail(labelled, agreed, self.share) <= level
        };
        candidates.take_while(shown).last()
    }
}
