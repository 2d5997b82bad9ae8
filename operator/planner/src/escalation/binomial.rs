//! The exact binomial test and the bound of Clopper and Pearson (Biometrika 26, 1934) that goes with it.

/// P(at least `agreed` of `labelled` agree) if each does with a probability of `share`. Where `agreed` is not above what one
/// expects anyway, the answer is 1: it is at least one half there, and nothing is ever concluded from that.
///
/// `0 < share < 1`. The sum goes over the terms from `agreed` up, which fall from there on; its relative error is about
/// that of the largest logarithm, 10⁻⁶ for 10⁹ labels.
#[allow(clippy::cast_precision_loss)] // counts are below 2^52
pub(super) fn upper_tail(labelled: u64, agreed: u64, share: f64) -> f64 {
    if agreed > labelled {
        return 0.0;
    }
    let (n, k) = (labelled as f64, agreed as f64);
    if k <= n * share {
        return 1.0;
    }
    let choose = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
    let mut term = libm::exp(choose + k * libm::log(share) + (n - k) * libm::log1p(-share));
    let (odds, mut sum, mut at) = (share / (1.0 - share), term, k);
    while at < n && term > sum * f64::EPSILON {
        term *= (n - at) / (at + 1.0) * odds;
        sum += term;
        at += 1.0;
    }
    sum.min(1.0)
}

/// So many labels that all agree are the fewest from which one concludes, at `level`, that more than `share` agree.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // positive, and bounded by the callers' shares
pub(super) fn fewest(share: f64, level: f64) -> u64 {
    libm::ceil(libm::log(level) / libm::log(share)).max(1.0) as u64
}

/// The lower bound of Clopper and Pearson at `level` in whole ten-thousandths, rounded down: the largest share that the
/// counts refute.
pub(super) fn lower_bound(labelled: u64, agreed: u64, level: f64) -> u16 {
    let (mut refuted, mut open) = (0u16, 10_000u16);
    while open - refuted > 1 {
        let middle = u16::midpoint(refuted, open);
        if upper_tail(labelled, agreed, f64::from(middle) / 10_000.0) <= level {
            refuted = middle;
        } else {
            open = middle;
        }
    }
    refuted
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pascal's way, without a logarithm.
    fn by_hand(n: u64, k: u64, p: f64) -> f64 {
        let mut row = vec![0.0; n as usize + 1];
        row[0] = 1.0;
        for _ in 0..n {
            for i in (0..row.len()).rev() {
                row[i] = row[i] * (1.0 - p) + if i == 0 { 0.0 } else { row[i - 1] * p };
            }
        }
        row[k as usize..].iter().sum()
    }

    #[test]
    fn the_tail_is_what_adding_up_gives() {
        for n in [1, 2, 17, 200] {
            for p in [0.02, 0.5, 0.9, 0.98, 0.9999] {
                for k in 0..=n {
                    let (fast, slow) = (upper_tail(n, k, p), by_hand(n, k, p));
                    if k as f64 > n as f64 * p {
                        assert!((fast - slow).abs() <= 1e-9 * slow + f64::MIN_POSITIVE, "{n} {k} {p}: {fast} {slow}");
                    } else {
                        assert!(fast == 1.0 && slow >= 0.5 - 1e-9, "{n} {k} {p}: {slow}");
                    }
                }
            }
        }
    }

    #[test]
    fn large_counts_agree_with_the_normal_curve() {
        // Three standard deviations above the mean: 1.35e-3, a little less for its skew.
        let (n, p) = (1_000_000_000u64, 0.98f64);
        let deviation = (n as f64 * p * (1.0 - p)).sqrt();
        let tail = upper_tail(n, (n as f64 * p + 3.0 * deviation) as u64, p);
        assert!((1.30e-3..1.38e-3).contains(&tail), "{tail}");
    }

    #[test]
    fn bounds_are_those_of_the_tables() {
        // All of 149 agree: 0.95 = 1 - 0.98^149.06.
        assert_eq!((fewest(0.98, 0.05), fewest(0.99, 0.05), fewest(0.5, 0.5)), (149, 299, 1));
        assert_eq!(lower_bound(149, 149, 0.05), 9_800);
        assert_eq!(lower_bound(148, 148, 0.05), 9_799);
        // 95 of 100, one-sided 95 %: 0.8978.
        assert_eq!(lower_bound(100, 95, 0.05), 8_977);
        assert_eq!((lower_bound(0, 0, 0.05), lower_bound(10, 0, 0.05)), (0, 0));
    }
}
