//! One model's escalation: for each answer, whether the cloud is asked.

use ballast_bundle::{ClassThresholds, EscalationLimits, Privacy, UnixMillis};

use crate::{Breaker, Budget, Judged, Kept, Refused};

/// What is in force now.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// The release's own, or a policy's.
    pub thresholds: &'a ClassThresholds,
    /// The user's.
    pub limits: EscalationLimits,
    /// What may leave.
    pub privacy: Privacy,
    /// What is sent is an input or features.
    pub sends: Privacy,
}

/// Why the edge's own answer is all there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Keep {
    /// It is sure, and was not chosen by chance.
    Sure,
    /// Nothing may leave.
    Private,
    /// The day's bytes do not suffice.
    OverBytes,
    /// The minute's requests are used up.
    OverRequests,
    /// The cloud did not answer of late, and is left alone for a while.
    Unreachable,
    /// As many as may be are under way.
    Busy,
}

/// What to do with an answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision {
    /// Give it.
    Keep(Keep),
    /// Give it at once, and ask the cloud behind the client's back, to learn whether it agrees.
    Label(Permit),
    /// Ask the cloud first; give it if there is no answer in time.
    Ask(Permit),
}

/// The right to send one request. It must come back by [`Escalator::ended`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a permit that is dropped keeps its place for ever"]
pub struct Permit {
    /// What the cloud says counts as a label.
    pub random: bool,
    /// [`Escalator::kept`] must be on disk before anything is sent; if it cannot be written, end with [`Ended::NotSent`].
    pub keep_first: bool,
    paid: u64,
    day: u64,
}

/// How a request to the cloud ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// With an answer that can be used. So many bytes went over the link, both ways.
    Answered {
        /// Bytes.
        bytes: u64,
    },
    /// With one that cannot, such as one of another model: asking on and on would cost as much and give nothing.
    Useless {
        /// Bytes.
        bytes: u64,
    },
    /// No connection, no answer in time, not let in.
    Failed,
    /// Nobody waited for the end of it: that says nothing of the cloud, and what was sent is not known.
    GivenUp,
    /// Nothing was sent.
    NotSent,
}

/// The state of one model's escalation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Escalator {
    budget: Budget,
    breaker: Breaker,
    under_way: u32,
}

impl Escalator {
    /// After a start.
    pub fn new(kept: Option<Kept>, now: UnixMillis) -> Self {
        Self { budget: Budget::new(kept, now), breaker: Breaker::default(), under_way: 0 }
    }

    /// What must be on disk.
    pub const fn kept(&self) -> Kept {
        self.budget.kept()
    }

    /// `kept` is on disk.
    pub const fn written(&mut self, kept: Kept) {
        self.budget.written(kept);
    }

    /// Whether the cloud is left alone now, for metrics.
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Decides about an answer whose rows are `rows`, of a request that takes at most `bytes` over the link, both ways.
    /// One unsure row sends the request. `coin` is any number from an even distribution over all 64 bits, thrown for every
    /// request; `now` is the wall clock's time, `tick` that of one that never goes back, in milliseconds.
    ///
    /// Whoever is refused is refused alike, by chance or for being unsure: what is missing from the random share depends on
    /// the time and not on the confidence.
    pub fn decide(
        &mut self,
        rows: &[Judged],
        bytes: u64,
        coin: u64,
        settings: Settings<'_>,
        now: UnixMillis,
        tick: u64,
    ) -> Decision {
        let random = coin % 10_000 < u64::from(settings.limits.random_share);
        let unsure = rows.iter().any(|row| settings.thresholds.sends(row.class, row.confidence));
        if !unsure && !random {
            return Decision::Keep(Keep::Sure);
        }
        if settings.privacy < settings.sends || settings.sends == Privacy::LocalOnly {
            return Decision::Keep(Keep::Private);
        }
        if !self.breaker.lets(tick) {
            return Decision::Keep(Keep::Unreachable);
        }
        if self.under_way >= settings.limits.concurrency {
            return Decision::Keep(Keep::Busy);
        }
        let keep_first = match self.budget.pay(bytes, settings.limits.budget, now) {
            Ok(keep_first) => keep_first,
            Err(Refused::Bytes) => return Decision::Keep(Keep::OverBytes),
            Err(Refused::Requests) => return Decision::Keep(Keep::OverRequests),
        };
        self.breaker.enter();
        self.under_way = self.under_way.saturating_add(1);
        let permit = Permit { random, keep_first, paid: bytes, day: self.budget.day() };
        if unsure { Decision::Ask(permit) } else { Decision::Label(permit) }
    }

    /// A request has ended.
    pub fn ended(&mut self, permit: Permit, ended: Ended, tick: u64) {
        self.under_way = self.under_way.saturating_sub(1);
        match ended {
            Ended::Answered { bytes } => {
                self.breaker.answered();
                self.budget.give_back(permit.paid.saturating_sub(bytes), permit.day);
            }
            Ended::Useless { bytes } => {
                self.breaker.failed(tick);
                self.budget.give_back(permit.paid.saturating_sub(bytes), permit.day);
            }
            // Some of it may have gone out; who knows how much pays for all.
            Ended::Failed => self.breaker.failed(tick),
            Ended::GivenUp => self.breaker.given_up(tick),
            Ended::NotSent => {
                self.breaker.given_up(tick);
                self.budget.give_back(permit.paid, permit.day);
            }
        }
    }
}
