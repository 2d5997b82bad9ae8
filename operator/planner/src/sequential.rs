//! The sequential test (Wald, Sequential Analysis, 1947): how much more likely the votes are if the release is bad than if
//! it is good; and the group of gateways on which a release must prove itself.

/// Wald's test of two failure rates on votes that come one by one, with a decision that is due after a group of them.
///
/// Its evidence is the log-likelihood ratio of *bad* against *good*. It halts at the upper bound for as long as the
/// rollout lasts: a good release ever gets there with a probability of at most e^−upper (Ville's inequality), however
/// many gateways there are.
///
/// That alone leaves a bad release time: after 100 votes at 10 %, 4 of 100 are not found yet. So the test is truncated,
/// which is Wald's own remedy (§3.8): once a group has voted, as many failures as the limit halt as well, and fewer mean
/// that the release has proved itself. Group and limit are the smallest that keep both kinds of error, counted exactly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SequentialTest {
    /// Evidence of one failure; positive.
    failure: f64,
    /// Evidence of one pass; negative.
    pass: f64,
    group: u64,
    limit: u64,
}

impl SequentialTest {
    /// A good release is halted in so many cases at most.
    pub const FALSE_HALT: f64 = 0.01;
    /// β of Wald's upper bound.
    pub const FALSE_PROOF: f64 = 0.05;
    /// A bad release gets past its group in so many cases at most: half of what β allows, since a rollout is no urn.
    /// A gateway may be given a release, vanish, and be replaced by another.
    pub const ESCAPE: f64 = 0.025;
    /// Close rates would need more (1 and 2 %: some 3,500 votes); a larger group would bound nothing any more. What such
    /// rates leave open after so many votes is left to the upper bound.
    const LARGEST_GROUP: u64 = 1_000;

    /// Rates in per cent, `0 < good < bad < 100`; others are brought into that order, so that the test always exists.
    pub fn new(good: i32, bad: i32) -> Self {
        let good = f64::from(good.clamp(1, 98)) / 100.0;
        let bad = (f64::from(bad.clamp(2, 99)) / 100.0).max(good + 0.01);
        let failure = (bad / good).ln();
        let pass = ((1.0 - bad) / (1.0 - good)).ln();
        let (group, limit) = Truncation { failure, pass, good, bad }.find();
        Self { failure, pass, group, limit }
    }

    /// Evidence against the release, in nats.
    pub fn evidence(&self, passed: u64, failed: u64) -> f64 {
        evidence(self.failure, self.pass, passed, failed)
    }

    /// `ln((1 − β) / α)`, Wald's upper bound.
    pub fn upper() -> f64 {
        ((1.0 - Self::FALSE_PROOF) / Self::FALSE_HALT).ln()
    }

    /// The votes say that the release is bad.
    pub fn is_bad(&self, passed: u64, failed: u64) -> bool {
        self.evidence(passed, failed) >= Self::upper()
    }

    /// No more gateways than these try a release that has not proved itself.
    pub const fn group(&self) -> u64 {
        self.group
    }

    /// `None` while the group has not voted; then whether the release has proved itself. Votes beyond the group are
    /// measured by the same line of evidence.
    pub fn proves(&self, passed: u64, failed: u64) -> Option<bool> {
        let line = self.evidence(self.group - self.limit, self.limit);
        (passed + failed >= self.group).then(|| self.evidence(passed, failed) < line)
    }

    /// So many failures among `votes` still speak for the release: none below 26 votes at 1 and 10 %.
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within [0, votes]
    pub fn tolerated(&self, votes: u64) -> u64 {
        (votes as f64 * -self.pass / (self.failure - self.pass)).floor() as u64
    }
}

#[allow(clippy::cast_precision_loss)] // counts of gateways are far below 2^52
fn evidence(failure: f64, pass: f64, passed: u64, failed: u64) -> f64 {
    failure * failed as f64 + pass * passed as f64
}

/// Finds the group: both kinds of error are sums over the votes' exact distribution.
struct Truncation {
    failure: f64,
    pass: f64,
    good: f64,
    bad: f64,
}

/// Probability, if the release is good and if it is bad.
type Both = (f64, f64);

impl Truncation {
    /// Rows that weigh less are left out.
    const NOTHING: f64 = 1e-15;

    fn find(&self) -> (u64, u64) {
        let upper = SequentialTest::upper();
        // Rollouts that go on after n votes, by failures; the first of them has `least`.
        let (mut least, mut alive): (u64, Vec<Both>) = (0, vec![(1.0, 1.0)]);
        let mut halted: Both = (0.0, 0.0);
        let mut found = (1, 1);
        for n in 1..=SequentialTest::LARGEST_GROUP {
            self.vote(&mut alive);
            let evidence = |failed: u64| evidence(self.failure, self.pass, n.saturating_sub(failed), failed);
            let failures = |least: u64, row: usize| least + row as u64;
            while let Some(last) = alive.last().copied()
                && evidence(failures(least, alive.len() - 1)) >= upper
            {
                halted = (halted.0 + last.0, halted.1 + last.1);
                alive.pop();
            }
            while alive.last().is_some_and(|(good, bad)| good + bad < Self::NOTHING) {
                alive.pop();
            }
            let light = alive.iter().take_while(|(good, bad)| good + bad < Self::NOTHING).count();
            alive.drain(..light);
            least += light as u64;
            // From the top: halting one more row costs false halts and catches bad releases. Whatever goes on may still
            // be halted falsely later: in e^(evidence − upper) of the cases at most (Ville).
            let later = |row: usize, good: f64| good * (evidence(failures(least, row)) - upper).exp();
            let mut falsely =
                halted.0 + alive.iter().enumerate().map(|(row, (good, _))| later(row, *good)).sum::<f64>();
            let mut caught = halted.1;
            found = (n, failures(least, alive.len()));
            if caught >= 1.0 - SequentialTest::ESCAPE {
                return found;
            }
            for (row, (good, bad)) in alive.iter().enumerate().rev() {
                falsely += good - later(row, *good);
                caught += bad;
                if falsely > SequentialTest::FALSE_HALT {
                    break;
                }
                found.1 = failures(least, row);
                if caught >= 1.0 - SequentialTest::ESCAPE {
                    return found;
                }
            }
        }
        found
    }

    /// One more vote.
    fn vote(&self, alive: &mut Vec<Both>) {
        alive.push((0.0, 0.0));
        for row in (0..alive.len()).rev() {
            let before = if row == 0 { (0.0, 0.0) } else { alive[row - 1] };
            let same = &mut alive[row];
            same.0 = same.0 * (1.0 - self.good) + before.0 * self.good;
            same.1 = same.1 * (1.0 - self.bad) + before.1 * self.bad;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_and_ten_per_cent_halt_after_two_straight_failures_and_prove_on_a_hundred_gateways() {
        let test = SequentialTest::new(1, 10);
        assert!(!test.is_bad(0, 1));
        assert!(test.is_bad(0, 2));
        assert!(!test.is_bad(20, 2), "two of 22 is not enough to tell");
        assert!(test.is_bad(20, 3));
        assert_eq!((test.group, test.limit), (99, 5));
        assert_eq!(test.proves(94, 4), None);
        assert_eq!(test.proves(95, 4), Some(true));
        assert_eq!(test.proves(94, 5), Some(false));
        assert_eq!(test.proves(9_900, 100), Some(true), "later votes are measured by the rate");
    }

    #[test]
    fn a_window_tolerates_what_speaks_for_the_release() {
        let test = SequentialTest::new(1, 10);
        assert_eq!([1, 25, 26, 50, 51, 256].map(|votes| test.tolerated(votes)), [0, 0, 1, 1, 2, 10]);
        for votes in 1..1000 {
            let most = test.tolerated(votes);
            assert!(test.evidence(votes - most, most) <= 0.0 && test.evidence(votes - most - 1, most + 1) > 0.0);
        }
    }

    /// Every rollout of 1 % and of 10 %, followed by a computation of its own, without the shortcuts of the first.
    #[test]
    fn both_errors_are_what_the_group_was_chosen_for() {
        let test = SequentialTest::new(1, 10);
        let halted_by = |rate: f64, votes: u64, group: u64| {
            let mut alive = std::collections::BTreeMap::from([(0u64, 1.0f64)]);
            let mut halted = 0.0;
            for n in 1..=votes {
                let mut next = std::collections::BTreeMap::new();
                for (failed, weight) in alive {
                    for (failed, weight) in [(failed, weight * (1.0 - rate)), (failed + 1, weight * rate)] {
                        if test.is_bad(n - failed, failed) || n == group && failed >= test.limit {
                            halted += weight;
                        } else {
                            *next.entry(failed).or_insert(0.0) += weight;
                        }
                    }
                }
                alive = next;
            }
            halted
        };
        // After 2,000 votes at 1 % the evidence is −150: what is left weighs nothing.
        let falsely = halted_by(0.01, 2_000, test.group);
        assert!((0.005..SequentialTest::FALSE_HALT).contains(&falsely), "{falsely}");
        let caught = halted_by(0.10, test.group, test.group);
        assert!(caught >= 1.0 - SequentialTest::ESCAPE, "{caught}");
        // Without a group, 4 of 100 bad releases are still there after 99 votes.
        let untruncated = halted_by(0.10, test.group, 0);
        assert!((0.95..0.96).contains(&untruncated), "{untruncated}");
    }

    #[test]
    fn the_test_exists_for_any_two_rates() {
        for (good, bad) in [(1, 1), (10, 5), (98, 99), (0, 0), (-5, 400), (1, 2), (1, 99), (50, 51), (5, 20)] {
            let test = SequentialTest::new(good, bad);
            assert!(test.failure > 0.0 && test.failure.is_finite(), "{good} {bad}");
            assert!(test.pass < 0.0 && test.pass.is_finite(), "{good} {bad}");
            assert!(test.group <= SequentialTest::LARGEST_GROUP && test.limit <= test.group, "{good} {bad}: {test:?}");
            assert_eq!(test.proves(test.group, 0), Some(true), "{good} {bad}: {test:?}");
        }
        let group = |good, bad| SequentialTest::new(good, bad).group;
        assert_eq!((group(1, 99), group(1, 30), group(1, 2)), (1, 21, SequentialTest::LARGEST_GROUP));
    }
}
