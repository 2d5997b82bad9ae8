//! Bytes a day and requests a minute, kept over restarts, power cuts and wrong clocks.
//!
//! A write for every request would wear out a memory card. So bytes are taken from what is kept in **leases** of a
//! sixteenth of the day's budget: a lease counts as spent on disk before the first byte of it is sent, and what a power cut
//! leaves unused of one is lost. Requests of a minute are not written at all: after a restart the minute that is running
//! counts as used up.

use ballast_bundle::{BudgetLimits, UnixMillis};
use serde::{Deserialize, Serialize};

const MINUTE: u64 = 60_000;
const DAY: u64 = 24 * 60 * MINUTE;
/// So many leases make a day's budget.
const LEASES: u64 = 16;

/// What is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kept {
    /// Days since 1970.
    pub day: u64,
    /// Spent or leased of it.
    pub bytes: u64,
}

/// Why a request is not paid for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Refused {
    /// The day's bytes do not suffice.
    Bytes,
    /// The minute's requests are used up.
    Requests,
}

/// What is left of the limits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Budget {
    day: u64,
    /// Spent or leased, as it must be on disk before anything is sent.
    leased: u64,
    /// What is on disk for certain.
    durable: Kept,
    /// Of it, not spent yet.
    left: u64,
    minute: u64,
    requests: u32,
}

impl Budget {
    /// After a start, with what was kept. Where nothing was, nothing was ever sent.
    pub fn new(kept: Option<Kept>, now: UnixMillis) -> Self {
        let requests = if kept.is_some() { u32::MAX } else { 0 };
        let durable = kept.unwrap_or_default();
        Self { day: durable.day, leased: durable.bytes, durable, left: 0, minute: now.0 / MINUTE, requests }
    }

    /// What must be on disk before anything that was paid for is sent.
    pub const fn kept(&self) -> Kept {
        Kept { day: self.day, bytes: self.leased }
    }

    /// `kept` is on disk.
    pub const fn written(&mut self, kept: Kept) {
        self.durable = kept;
    }

    /// Pays for one request that may take `bytes` both ways. On `Ok(true)` [`Budget::kept`] is not on disk: write it, and if
    /// that fails, send nothing.
    pub fn pay(&mut self, bytes: u64, limits: BudgetLimits, now: UnixMillis) -> Result<bool, Refused> {
        self.turn(now);
        if self.requests >= limits.requests_per_minute {
            return Err(Refused::Requests);
        }
        let missing = bytes.saturating_sub(self.left);
        if missing > 0 {
            // Limits may have become smaller since.
            let free = limits.bytes_per_day.saturating_sub(self.leased);
            if missing > free {
                return Err(Refused::Bytes);
            }
            let lease = missing.max(limits.bytes_per_day / LEASES).min(free);
            self.leased = self.leased.saturating_add(lease);
            self.left = self.left.saturating_add(lease);
        }
        self.left = self.left.saturating_sub(bytes);
        self.requests = self.requests.saturating_add(1);
        Ok(self.kept() != self.durable)
    }

    /// Gives back what a request of `day` was not charged for after all: an answer was shorter than it might have been.
    pub const fn give_back(&mut self, bytes: u64, day: u64) {
        if day == self.day {
            let left = self.left.saturating_add(bytes);
            self.left = if left < self.leased { left } else { self.leased };
        }
    }

    /// Days since 1970, as the budget counts them.
    pub const fn day(&self) -> u64 {
        self.day
    }

    /// A clock that goes back brings nothing: what was spent stays spent until a day or a minute begins that is new by the
    /// clock as it is now.
    fn turn(&mut self, now: UnixMillis) {
        let (day, minute) = (now.0 / DAY, now.0 / MINUTE);
        if day > self.day {
            (self.leased, self.left) = (0, 0);
        }
        self.day = day;
        if minute > self.minute {
            self.requests = 0;
        }
        self.minute = minute;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: BudgetLimits = BudgetLimits { bytes_per_day: 1_600, requests_per_minute: 3 };
    const NOON: u64 = 20_000 * DAY + DAY / 2;

    fn at(minute: u64) -> UnixMillis {
        UnixMillis(NOON + minute * MINUTE)
    }

    #[test]
    fn a_day_has_its_bytes_and_a_minute_its_requests() {
        let mut budget = Budget::new(Some(Kept::default()), at(0));
        assert_eq!(budget.pay(1, LIMITS, at(0)), Err(Refused::Requests), "the minute in which it starts is used up");
        assert_eq!(budget.pay(60, LIMITS, at(1)), Ok(true));
        assert_eq!(budget.kept().bytes, 100, "a sixteenth of the day's");
        assert_eq!(budget.pay(10, LIMITS, at(1)), Ok(true), "the lease is not on disk yet, whoever took it");
        budget.written(budget.kept());
        budget = Budget::new(Some(Kept::default()), at(0));
        assert_eq!(budget.pay(60, LIMITS, at(1)), Ok(true));
        budget.written(budget.kept());
        assert_eq!(budget.pay(40, LIMITS, at(1)), Ok(false));
        assert_eq!(budget.pay(500, LIMITS, at(1)), Ok(true));
        assert_eq!((budget.kept().bytes, budget.pay(1, LIMITS, at(1))), (600, Err(Refused::Requests)));
        assert_eq!(budget.pay(1_001, LIMITS, at(2)), Err(Refused::Bytes));
        assert_eq!(budget.pay(1_000, LIMITS, at(2)), Ok(true));
        assert_eq!(budget.pay(1, LIMITS, at(2)), Err(Refused::Bytes));
        budget.written(budget.kept());
        assert_eq!(budget.pay(0, LIMITS, at(2)), Ok(false));
        assert_eq!(budget.pay(1_600, LIMITS, at(24 * 60)), Ok(true), "the next day");
    }

    #[test]
    fn nothing_is_sent_on_a_budget_of_nothing() {
        let mut budget = Budget::new(Some(Kept::default()), at(0));
        for limits in [BudgetLimits { bytes_per_day: 0, ..LIMITS }, BudgetLimits { requests_per_minute: 0, ..LIMITS }] {
            for minute in 1..5_000 {
                assert!(budget.pay(1, limits, at(minute)).is_err());
            }
        }
        assert_eq!(budget.kept().bytes, 0);
    }

    #[test]
    fn a_restart_brings_nothing_back() {
        let mut budget = Budget::new(Some(Kept::default()), at(0));
        let mut spent = 0;
        // Cut off after every request.
        for minute in 1..600 {
            if budget.pay(7, LIMITS, at(minute)).is_ok() {
                spent += 7;
            }
            budget = Budget::new(Some(budget.kept()), at(minute));
            assert_eq!(budget.pay(7, LIMITS, at(minute)), Err(Refused::Requests));
        }
        assert_eq!(spent, 16 * 7, "a lease each");
        assert_eq!(budget.pay(7, LIMITS, at(600)), Err(Refused::Bytes));
    }

    #[test]
    fn neither_does_a_clock_that_goes_back() {
        let mut budget = Budget::new(Some(Kept::default()), at(0));
        assert!(budget.pay(1_600, LIMITS, at(1)).is_ok());
        assert_eq!(budget.pay(1, LIMITS, UnixMillis(5 * MINUTE)), Err(Refused::Bytes));
        assert_eq!(budget.pay(1, LIMITS, UnixMillis(6 * MINUTE)), Err(Refused::Bytes));
        // It is not lost for ever either: the next day by that clock is a new one.
        assert_eq!(budget.pay(1, LIMITS, UnixMillis(DAY)), Ok(true));
    }

    #[test]
    fn what_was_not_used_comes_back_on_the_same_day_only() {
        let mut budget = Budget::new(Some(Kept::default()), at(0));
        assert!(budget.pay(1_600, LIMITS, at(1)).is_ok());
        let day = budget.day();
        budget.written(budget.kept());
        budget.give_back(600, day);
        assert_eq!(budget.pay(601, LIMITS, at(2)), Err(Refused::Bytes));
        assert_eq!(budget.pay(600, LIMITS, at(2)), Ok(false));
        budget.give_back(u64::MAX, day - 1);
        assert_eq!(budget.pay(1, LIMITS, at(2)), Err(Refused::Bytes));
        budget.give_back(u64::MAX, day);
        assert_eq!(budget.pay(1_601, LIMITS, at(3)), Err(Refused::Bytes), "never more than a day's");
    }
}
