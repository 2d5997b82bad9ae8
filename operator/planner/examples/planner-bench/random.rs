//! Random numbers that a seed replays: SplitMix64 (Steele, Lea, Flood, OOPSLA 2014).

/// A stream of them.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of one rollout: seeds that differ in one bit have nothing in common.
    pub fn new(seed: u64, rollout: u64) -> Self {
        let mut random = Self(seed);
        Self(random.next() ^ rollout.wrapping_mul(0xd134_2543_de82_ef95))
    }

    /// Any 64 bits.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// At least `from`, less than `to`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        let span = u128::from(to - from);
        from + u64::try_from((u128::from(self.next()) * span) >> 64).unwrap_or(0)
    }

    /// In `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// True in so many cases.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }
}
