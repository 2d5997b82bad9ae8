//! What the operator computes thresholds from: counts by class and bin of confidence.

use std::collections::BTreeMap;

use ballast_bundle::CONFIDENCE_BINS;
use serde::{Deserialize, Serialize};

use crate::Judged;

/// Counts of one bin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cell {
    /// Answers that the edge gave, sent on or not.
    pub seen: u64,
    /// Of those, the ones of the random share that the cloud answered too.
    pub labelled: u64,
    /// Of those, the ones where the cloud said the same.
    pub agreed: u64,
}

/// By class, then by bin; only what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<u32, BTreeMap<u8, Cell>>);

impl Counts {
    /// Classes that are told apart; those above are counted as one, so that no model makes a report large.
    pub const MOST_CLASSES: usize = 1_000;
    /// What the rest is counted as.
    pub const REST: u32 = u32::MAX;

    fn cell(&mut self, judged: Judged) -> &mut Cell {
        let known = self.0.len() < Self::MOST_CLASSES || self.0.contains_key(&judged.class);
        let class = if known { judged.class } else { Self::REST };
        let bin = u8::try_from(judged.confidence.bin()).unwrap_or(u8::MAX);
        self.0.entry(class).or_default().entry(bin).or_default()
    }

    /// The edge gave an answer.
    pub fn saw(&mut self, judged: Judged) {
        let cell = self.cell(judged);
        cell.seen = cell.seen.saturating_add(1);
    }

    /// The cloud gave one to a request of the random share that was seen before.
    pub fn labelled(&mut self, judged: Judged, agrees: bool) {
        let cell = self.cell(judged);
        // A window that was closed in between has forgotten that it was seen.
        if cell.labelled < cell.seen {
            cell.labelled += 1;
            cell.agreed += u64::from(agrees);
        }
    }

    /// Class, bin and counts, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, usize, Cell)> {
        let bins = |(class, bins): (&u32, &BTreeMap<u8, Cell>)| {
            let class = *class;
            bins.iter().map(move |(bin, cell)| (class, usize::from(*bin), *cell)).collect::<Vec<_>>()
        };
        self.0.iter().flat_map(bins)
    }

    /// Closes the window.
    pub fn take(&mut self) -> Self {
        std::mem::take(self)
    }
}

const _: () = assert!(CONFIDENCE_BINS.len() < u8::MAX as usize);

#[cfg(test)]
mod tests {
    use ballast_bundle::Confidence;

    use super::*;

    fn judged(class: u32, share: f64) -> Judged {
        Judged { class, confidence: Confidence::of(share) }
    }

    #[test]
    fn a_label_belongs_to_what_was_seen() {
        let mut counts = Counts::default();
        counts.saw(judged(3, 0.7));
        counts.saw(judged(3, 0.71));
        counts.labelled(judged(3, 0.7), true);
        counts.labelled(judged(3, 0.72), false);
        counts.labelled(judged(3, 0.72), false);
        let bin = Confidence::of(0.7).bin();
        assert_eq!(counts.iter().collect::<Vec<_>>(), [(3, bin, Cell { seen: 2, labelled: 2, agreed: 1 })]);
        assert_eq!(counts.take().iter().count(), 1);
        counts.labelled(judged(3, 0.7), true);
        assert_eq!(counts.iter().map(|(_, _, cell)| cell.labelled).sum::<u64>(), 0);
    }

    #[test]
    fn a_model_with_a_million_classes_makes_no_large_report() {
        let mut counts = Counts::default();
        for class in 0..10_000 {
            counts.saw(judged(class, 0.5));
        }
        assert_eq!(counts.iter().count(), Counts::MOST_CLASSES + 1);
        assert_eq!(counts.iter().last().unwrap().2.seen, 9_000);
        counts.saw(judged(5, 0.5));
        assert_eq!(counts.iter().nth(5).unwrap().2.seen, 2, "a class that is known stays known");
    }
}
