//! What gateways counted while one set of thresholds was in force.

use std::collections::BTreeMap;

use ballast_bundle::CONFIDENCE_BINS;

/// How many bins a histogram has.
pub const BINS: usize = CONFIDENCE_BINS.len();

/// Counts of one bin. `agreed ≤ labelled ≤ seen`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cell {
    /// Answers that the edge gave, escalated or not.
    pub seen: u64,
    /// Of those, the ones that the gateway's coin chose for the random share and that the cloud answered too. The coin is
    /// thrown for every request, with one and the same chance, whatever the confidence: an answer that was escalated and
    /// not chosen counts as seen alone, or low confidences would weigh more than they do.
    pub labelled: u64,
    /// Of those, the ones where the cloud said the same.
    pub agreed: u64,
}

/// Why counts cannot be what a gateway counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// More agreed than were labelled, or more were labelled than seen.
    #[error(
        "bin {bin} of class {class} counts {agreed} agreed of {labelled} labelled of {seen} seen: each must be at most the next"
    )]
    Contradiction {
        /// The edge's class.
        class: u32,
        /// From 0.
        bin: usize,
        /// As counted.
        agreed: u64,
        /// As counted.
        labelled: u64,
        /// As counted.
        seen: u64,
    },
    /// No such bin.
    #[error("there is no bin {bin} of class {class}: there are {BINS}, from 0")]
    NoBin {
        /// The edge's class.
        class: u32,
        /// As counted.
        bin: usize,
    },
    /// Beyond what is computed with.
    #[error("more than {} requests: close the window earlier", Window::MAX_SEEN)]
    TooMany,
    /// A model with so many classes gets one threshold for all: count them as one.
    #[error("more than {} classes: count the rest as one class", Window::MAX_CLASSES)]
    TooManyClasses,
}

/// Counts of all gateways over one stretch of time, by the class that the edge named and its confidence. A window is used
/// once: looking at the same counts again and again until they please would undo the promise.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Window {
    classes: BTreeMap<u32, [Cell; BINS]>,
    seen: u64,
    labelled: u64,
}

impl Window {
    /// Requests of one window; the arithmetic is good to six digits up to here.
    pub const MAX_SEEN: u64 = 1_000_000_000;
    /// Classes of one window: 100 MiB of counts.
    pub const MAX_CLASSES: usize = 100_000;

    /// Adds what a gateway counted. Counts that cannot be true are refused, and change nothing.
    pub fn add(&mut self, class: u32, bin: usize, cell: Cell) -> Result<(), WindowError> {
        let Cell { seen, labelled, agreed } = cell;
        if agreed > labelled || labelled > seen {
            return Err(WindowError::Contradiction { class, bin, agreed, labelled, seen });
        }
        if bin >= BINS {
            return Err(WindowError::NoBin { class, bin });
        }
        let all = self.seen.checked_add(seen).filter(|all| *all <= Self::MAX_SEEN).ok_or(WindowError::TooMany)?;
        if self.classes.len() >= Self::MAX_CLASSES && !self.classes.contains_key(&class) {
            return Err(WindowError::TooManyClasses);
        }
        // No sum exceeds `all`.
        let own = &mut self.classes.entry(class).or_insert([Cell::default(); BINS])[bin];
        own.seen += seen;
        own.labelled += labelled;
        own.agreed += agreed;
        self.seen = all;
        self.labelled += labelled;
        Ok(())
    }

    /// All requests.
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Those of the random share that the cloud answered.
    pub const fn labelled(&self) -> u64 {
        self.labelled
    }

    pub(super) const fn classes(&self) -> &BTreeMap<u32, [Cell; BINS]> {
        &self.classes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_contradict_themselves_change_nothing() {
        let mut window = Window::default();
        let cell = |seen, labelled, agreed| Cell { seen, labelled, agreed };
        window.add(3, 7, cell(10, 2, 1)).unwrap();
        window.add(3, 7, cell(1, 1, 1)).unwrap();
        let before = window.clone();
        assert_eq!(before.classes[&3][7], cell(11, 3, 2));
        for (bin, cell, says) in [
            (7, cell(1, 2, 2), "class 3 counts 2 agreed of 2 labelled of 1 seen"),
            (7, cell(5, 1, 2), "2 agreed of 1 labelled"),
            (BINS, cell(1, 1, 1), "there is no bin 32"),
            (0, cell(Window::MAX_SEEN, 0, 0), "close the window earlier"),
            (0, cell(u64::MAX, u64::MAX, u64::MAX), "close the window earlier"),
        ] {
            let error = window.add(3, bin, cell).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
            assert_eq!(window, before);
        }
    }
}
