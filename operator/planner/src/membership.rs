//! Who is a member of a wave: `hash(release, gateway)` under a threshold that only grows. Joiners need no reshuffle, and
//! every release draws its own order, so that no gateway is always the first to be tried on.

use ballast_bundle::{Digest, GatewayId};
use serde::{Deserialize, Serialize};

/// A gateway's place in the order of one release; uniform over all 64-bit numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Score(pub u64);

impl Score {
    /// The first eight bytes of SHA-256 over the release's digest and the gateway's id.
    pub fn of(release: &Digest, gateway: &GatewayId) -> Self {
        let mut text = Vec::with_capacity(32 + gateway.as_str().len());
        text.extend_from_slice(release.as_bytes());
        text.extend_from_slice(gateway.as_str().as_bytes());
        let hash = Digest::of(&text);
        let mut first = [0; 8];
        first.copy_from_slice(&hash.as_bytes()[..8]);
        Self(u64::from_be_bytes(first))
    }
}

/// Scores below it are members. Starts at zero: nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Threshold(u64);

impl Threshold {
    /// Everybody.
    pub const ALL: Self = Self(u64::MAX);

    /// Whether a gateway with this score is a member. The one score that is `u64::MAX` is a member of [`Self::ALL`].
    pub const fn admits(self, score: Score) -> bool {
        score.0 < self.0 || self.0 == u64::MAX
    }

    /// Just enough for `score`.
    pub fn including(self, score: Score) -> Self {
        Self(self.0.max(score.0.saturating_add(1)))
    }

    /// Takes in about `wanted` of the `outside` gateways that are above it, by their even spread.
    pub fn grown(self, wanted: u64, outside: u64) -> Self {
        if wanted >= outside {
            return Self::ALL;
        }
        let rest = u128::from(u64::MAX - self.0);
        // Never zero, so that repeated growing ends.
        let more = (rest * u128::from(wanted) / u128::from(outside)).max(1);
        Self(u64::try_from(u128::from(self.0) + more).unwrap_or(u64::MAX))
    }
}

/// Whether a gateway is a member of a release's wave.
pub fn is_member(release: &Digest, gateway: &GatewayId, threshold: Threshold) -> bool {
    threshold.admits(Score::of(release, gateway))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gateway(i: usize) -> GatewayId {
        format!("gw-{i}").parse().unwrap()
    }

    #[test]
    fn members_stay_members_while_the_threshold_grows() {
        let release = Digest::of(b"r");
        let mut threshold = Threshold::default();
        let mut members = 0;
        for _ in 0..20 {
            let next = threshold.grown(100, 1000);
            assert!(next > threshold);
            let now = (0..1000).filter(|&i| is_member(&release, &gateway(i), next)).count();
            assert!(
                (0..1000)
                    .all(|i| !is_member(&release, &gateway(i), threshold) || is_member(&release, &gateway(i), next))
            );
            assert!(now >= members);
            (threshold, members) = (next, now);
        }
        assert_eq!((0..1000).filter(|&i| is_member(&release, &gateway(i), Threshold::ALL)).count(), 1000);
        assert_eq!((0..1000).filter(|&i| is_member(&release, &gateway(i), Threshold::default())).count(), 0);
    }

    #[test]
    fn a_tenth_of_the_line_holds_about_a_tenth_of_the_gateways() {
        let release = Digest::of(b"r");
        let threshold = Threshold::default().grown(1, 10);
        let members = (0..10_000).filter(|&i| is_member(&release, &gateway(i), threshold)).count();
        // Binomial(10,000, 0.1): standard deviation 30; six of them.
        assert!((820..1180).contains(&members), "{members}");
    }

    #[test]
    fn every_release_has_its_own_order() {
        let first = |release: &[u8]| (0..50).min_by_key(|&i| Score::of(&Digest::of(release), &gateway(i)));
        let firsts: std::collections::BTreeSet<_> = (0..20u8).map(|r| first(&[r])).collect();
        assert!(firsts.len() > 10, "{firsts:?}");
    }

    #[test]
    fn the_score_is_pinned() {
        // Another hash would reshuffle every rollout that is under way.
        assert_eq!(Score::of(&Digest::of(b"r"), &gateway(1)).0, SCORE);
    }
    // Computed apart from this code: hashlib.sha256(hashlib.sha256(b"r").digest() + b"gw-1"), first eight bytes.
    const SCORE: u64 = 10_219_999_682_217_506_575;
}
