//! What the demo found: the table, the three counts, the file, and whether that is a success.

use serde::Serialize;

use super::load::Counts;

/// How a release should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Active on every gateway.
    Everywhere,
    /// Refused before it is signed.
    Refused,
    /// Rolled back and halted before it is everywhere.
    RolledBack,
}

/// What became of one release.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Release {
    /// `spec.model.version`.
    pub version: String,
    /// The outcome it reached, from `ballast rollout status`: `Active`, `RolledBack`, `Refused`, or where it stopped.
    pub phase: String,
    /// From `ballast rollout status`.
    pub reason: String,
    /// Gateways that answered at least one live request with it, from the load generator.
    pub gateways_reached: usize,
    /// Detection to first fallback answer, the maximum over gateways, from `ballast rollout status`.
    pub rollback_millis: Option<f64>,
    /// Targets it was built for.
    #[serde(skip)]
    pub targets: Vec<String>,
    /// How it should have ended; only the verdict reads it.
    #[serde(skip)]
    pub wish: Wish,
}

/// The file that `--report` writes.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// How many took part.
    pub gateways: usize,
    /// From the load generator, as are the three counts.
    pub requests: u64,
    /// No answer or 5xx.
    pub lost: u64,
    /// 429 or 4xx.
    pub refused: u64,
    /// Not the right answer of the release that answered.
    pub wrong: u64,
    /// In the order they were applied.
    pub releases: Vec<Release>,
    /// Kinds of gateways, each of which needs a build of its own.
    #[serde(skip)]
    pub kinds: usize,
}

impl Release {
    /// Nothing is known of it yet.
    pub fn applied(version: &str, wish: Wish) -> Self {
        Self {
            version: version.to_owned(),
            phase: "Unknown".to_owned(),
            reason: String::new(),
            gateways_reached: 0,
            rollback_millis: None,
            targets: Vec::new(),
            wish,
        }
    }
}

impl Report {
    /// All of it.
    pub fn new(gateways: usize, kinds: usize, counts: Counts, releases: Vec<Release>) -> Self {
        let Counts { requests, lost, refused, wrong } = counts;
        Self { gateways, requests, lost, refused, wrong, releases, kinds }
    }

    /// Why this is not a success; empty if it is one.
    pub fn failures(&self) -> Vec<String> {
        let mut out = Vec::new();
        if self.requests == 0 {
            out.push("the load generator sent nothing".to_owned());
        }
        for (count, what) in [(self.lost, "lost"), (self.refused, "refused"), (self.wrong, "wrong")] {
            if count > 0 {
                out.push(format!("{count} of {} requests {what}", self.requests));
            }
        }
        for r in &self.releases {
            let (version, reached, all) = (&r.version, r.gateways_reached, self.gateways);
            match r.wish {
                Wish::Everywhere => {
                    if r.phase != "Active" || reached != all {
                        out.push(format!(
                            "{version} is good and should be everywhere: it is {}, on {reached} of {all} gateways",
                            r.phase
                        ));
                    } else if r.targets.len() < self.kinds {
                        out.push(format!(
                            "{version} was built for {:?} only: {} kinds of gateways need a build each",
                            r.targets, self.kinds
                        ));
                    }
                }
                Wish::Refused => {
                    if r.phase != "Refused" || reached > 0 {
                        out.push(format!(
                            "{version} is bad and should be refused: it is {}, on {reached} of {all} gateways",
                            r.phase
                        ));
                    }
                }
                Wish::RolledBack => {
                    if r.phase != "RolledBack" || reached >= all {
                        out.push(format!(
                            "{version} is bad and should be rolled back: it is {}, on {reached} of {all} gateways",
                            r.phase
                        ));
                    }
                    if r.phase == "RolledBack" && r.rollback_millis.is_none() {
                        out.push(format!("{version} was rolled back, but nobody says how fast"));
                    }
                }
            }
        }
        out
    }

    /// The table and the counts.
    pub fn text(&self) -> String {
        let heads = ["RELEASE", "PHASE", "REACHED", "TARGETS", "ROLLBACK", "REASON"].map(str::to_owned);
        let rows: Vec<[String; 6]> = std::iter::once(heads)
            .chain(self.releases.iter().map(|r| {
                [
                    r.version.clone(),
                    r.phase.clone(),
                    format!("{}/{}", r.gateways_reached, self.gateways),
                    if r.targets.is_empty() { "-".to_owned() } else { r.targets.join(", ") },
                    r.rollback_millis.map_or("-".to_owned(), |ms| format!("{ms:.1} ms")),
                    r.reason.clone(),
                ]
            }))
            .collect();
        let widths: Vec<usize> = (0..6).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
        let mut out = String::new();
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out.push_str(&format!(
            "\n{} requests: {} lost, {} refused, {} wrong\n",
            self.requests, self.lost, self.refused, self.wrong
        ));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn release(version: &str, phase: &str, reached: usize, wish: Wish) -> Release {
        Release {
            version: version.to_owned(),
            phase: phase.to_owned(),
            reason: String::new(),
            gateways_reached: reached,
            rollback_millis: (phase == "RolledBack").then_some(1.5),
            targets: vec!["x86-64-v3".to_owned(), "x86-64".to_owned()],
            wish,
        }
    }

    fn good() -> Report {
        let counts = Counts { requests: 10, ..Counts::default() };
        let releases = vec![
            release("1", "Active", 5, Wish::Everywhere),
            release("3", "Refused", 0, Wish::Refused),
            release("4", "RolledBack", 1, Wish::RolledBack),
        ];
        Report::new(5, 2, counts, releases)
    }

    #[test]
    fn all_well_is_a_success() {
        assert_eq!(good().failures(), Vec::<String>::new());
    }

    #[test]
    fn each_thing_that_goes_wrong_is_a_failure() {
        let spoil: [fn(&mut Report); 13] = [
            |r| r.requests = 0,
            |r| r.lost = 1,
            |r| r.refused = 1,
            |r| r.wrong = 1,
            |r| r.releases[0].gateways_reached = 4,
            |r| r.releases[0].phase = "RollingOut".to_owned(),
            |r| r.releases[0].phase = "Unknown".to_owned(),
            |r| r.releases[0].targets.truncate(1),
            |r| r.releases[1].phase = "Active".to_owned(),
            |r| r.releases[1].gateways_reached = 1,
            |r| r.releases[2].phase = "Active".to_owned(),
            |r| r.releases[2].gateways_reached = 5,
            |r| r.releases[2].rollback_millis = None,
        ];
        for (n, spoil) in spoil.iter().enumerate() {
            let mut report = good();
            spoil(&mut report);
            assert_eq!(report.failures().len(), 1, "{n}: {:?}", report.failures());
        }
    }

    #[test]
    fn the_file_has_the_promised_fields() {
        let json = serde_json::to_value(good()).unwrap();
        let keys = |v: &serde_json::Value| v.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        assert_eq!(keys(&json), ["gateways", "lost", "refused", "releases", "requests", "wrong"]);
        assert_eq!(keys(&json["releases"][0]), ["gatewaysReached", "phase", "reason", "rollbackMillis", "version"]);
    }
}
