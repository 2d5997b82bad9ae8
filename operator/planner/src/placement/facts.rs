//! What was measured, and what is wanted.

/// What may leave a gateway; each includes those before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Privacy {
    /// Nothing that was made from an input.
    #[default]
    LocalOnly,
    /// Features that the head of a split model makes.
    Features,
    /// Inputs as they are.
    Any,
}

/// `spec.placement.objectives`, parsed. An objective that is absent excludes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Objectives {
    /// 99 of 100 answers within this, in microseconds.
    pub latency_p99_micros: Option<u64>,
    /// What may leave.
    pub privacy: Privacy,
    /// Over the link, both ways, updates of the model included.
    pub bytes_per_day: Option<u64>,
    /// Of the gateway, for one answer.
    pub nanojoules: Option<u64>,
    /// Share of right answers, in ten-thousandths.
    pub accuracy: Option<u16>,
}

/// What is known of one target. `None`: not measured.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Facts {
    /// The model on the gateway's own chip.
    pub edge: EdgeFacts,
    /// The way to the cloud; `None`: nobody has measured one.
    pub link: Option<LinkFacts>,
    /// The model that answers there; `None`: there is none.
    pub cloud: Option<CloudFacts>,
    /// A cut through the model; `None`: it has none.
    pub split: Option<SplitFacts>,
    /// Answers that clients ask for in a day.
    pub requests_per_day: Option<u64>,
    /// Tensors of one request, in bytes.
    pub input_bytes: u64,
    /// Tensors of one answer, in bytes.
    pub output_bytes: u64,
    /// The gateway runs on a battery.
    pub battery: bool,
}

/// The model on the gateway's own chip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EdgeFacts {
    /// Why it does not run there, in the verdict's words: memory, disk, operators that the target lacks.
    pub does_not_fit: Option<String>,
    /// Of 100 answers 99 took no longer, in microseconds.
    pub p99_micros: Option<u64>,
    /// One answer on the average, in microseconds: what energy is made of.
    pub mean_micros: Option<u64>,
    /// What computing draws beyond rest.
    pub milliwatts: Option<u64>,
    /// One update of the model over the link: the delta where there is one, else the whole bundle, in bytes.
    pub update_bytes: u64,
    /// Releases in a thousand days.
    pub updates_per_thousand_days: u64,
    /// In ten-thousandths.
    pub accuracy: Option<u16>,
}

/// The way to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LinkFacts {
    /// Of 100 round trips 99 took no longer, in microseconds.
    pub round_trip_micros: u64,
    /// Bytes in a second from the gateway; more than 0.
    pub up: u64,
    /// Bytes in a second to the gateway; more than 0.
    pub down: u64,
    /// Share of the time in which the cloud can be reached, in ten-thousandths.
    pub reachable: u16,
    /// Bytes cost money.
    pub metered: bool,
    /// What the radio or the card takes for one byte beyond rest.
    pub nanojoules_per_byte: Option<u64>,
}

/// The model that answers in the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CloudFacts {
    /// Of 100 answers 99 took no longer there, without the link, in microseconds.
    pub p99_micros: Option<u64>,
    /// What goes over the link for one request beside its tensors (headers, JSON), in bytes.
    pub overhead_bytes: u64,
    /// In ten-thousandths.
    pub accuracy: Option<u16>,
    /// Share of answers that joint inference sends on, random share included, in ten-thousandths.
    pub escalated: Option<u16>,
    /// Joint inference takes the edge's own answer after waiting so long for the cloud's, in microseconds.
    pub deadline_micros: u64,
    /// Edge and cloud together, in ten-thousandths.
    pub joint_accuracy: Option<u16>,
}

/// A model cut in two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SplitFacts {
    /// The head on the gateway: 99 of 100 within, in microseconds.
    pub head_p99_micros: Option<u64>,
    /// The head, on the average.
    pub head_mean_micros: Option<u64>,
    /// The tail in the cloud: 99 of 100 within, in microseconds.
    pub tail_p99_micros: Option<u64>,
    /// What crosses for one request, compressed, in bytes.
    pub features_bytes: u64,
    /// One update of the head, in bytes.
    pub update_bytes: u64,
    /// In ten-thousandths.
    pub accuracy: Option<u16>,
}
