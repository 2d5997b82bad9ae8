//! What the acts are played with: the fleet, the traffic, what Ballast says of the current release, and the end.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Options;
use super::documents::{self, DEPLOYMENT, Deployment};
use super::fleet::{Binaries, Fleet};
use super::load::{Counts, Load};
use super::report::{Release, Report, Wish};
use super::status::ReleaseStatus;
use super::view::{Picture, View};
use crate::process::interrupted;
use crate::workspace;

/// A step that takes longer has failed. Generous: a loaded two-core machine must not fail a good build.
const LIMIT: Duration = Duration::from_secs(150);
/// And so much more per gateway.
const LIMIT_PER_GATEWAY: Duration = Duration::from_secs(10);

pub(super) struct Demo {
    pub(super) options: Options,
    pub(super) view: View,
    // Before the fleet: traffic must end first, or the end itself would lose requests.
    pub(super) load: Option<Load>,
    pub(super) own: Option<(String, Load)>,
    pub(super) fleet: Fleet,
    pub(super) golden: String,
    /// Per gateway, for people.
    pub(super) remarks: Vec<String>,
    /// What became of the earlier releases.
    releases: Vec<Release>,
    /// The one applied last, until it is noted.
    current: Option<Release>,
    /// Deployment and version that are asked for.
    asking: (String, String),
    asked: Instant,
    status: Option<ReleaseStatus>,
}

impl Demo {
    pub(super) fn start(options: Options, mut view: View, root: &Path, binaries: Binaries) -> Result<Self> {
        let count = usize::from(options.gateways);
        view.act(&format!("an operator and {count} gateways, one held back to older CPU features"));
        view.say("   sync 1 s, soak 1 s, trial 2 s: short for the demo; the defaults are 60 s, 10 min and 1 min");
        let mut fleet = Fleet::start(root, binaries, count)?;
        for n in 0..count {
            ensure!(!interrupted(), "interrupted");
            fleet.add_gateway(n + 1 == count)?;
        }
        let golden = fleet.add_file(&workspace::digits().join("golden.safetensors"), "golden.safetensors")?;
        view.say(&format!("   {count} gateways enrolled over TLS with a token"));
        let remarks = fleet.gateways.iter().map(|g| if g.held_back { "held back" } else { "" }.to_owned()).collect();
        Ok(Self {
            options,
            view,
            load: None,
            own: None,
            fleet,
            golden,
            remarks,
            releases: Vec::new(),
            current: None,
            asking: (DEPLOYMENT.to_owned(), String::new()),
            asked: Instant::now(),
            status: None,
        })
    }

    /// The acts and the end; true if everything was as promised. An act that fails ends the play, never the report.
    pub(super) fn play(mut self) -> Result<bool> {
        let acted = self.acts();
        ensure!(!interrupted(), "interrupted");
        self.end(acted.err().map(|error| format!("{error:#}")))
    }

    /// Writes a release of the digits.
    pub(super) fn apply(&mut self, version: &str, finite_outputs: bool, wish: Wish) -> Result<()> {
        let source = format!("digits-{version}.onnx");
        let digest = self.fleet.add_file(&workspace::digits().join("models").join(&source), &source)?;
        let golden = self.golden.clone();
        let deployment = Deployment {
            version,
            golden: Some(&golden),
            finite_outputs,
            min_requests: self.options.min_requests(),
            ..Deployment::new(DEPLOYMENT, &source, &digest)
        };
        self.put(&deployment, version, wish)
    }

    /// Writes a deployment; from now on it is the one that is asked for. `shown` is its name in the report.
    pub(super) fn put(&mut self, deployment: &Deployment<'_>, shown: &str, wish: Wish) -> Result<()> {
        self.note();
        self.asking = (deployment.name.to_owned(), deployment.version.to_owned());
        self.status = None;
        self.current = Some(Release::applied(shown, wish));
        documents::put(&self.fleet.directory(), &format!("{}.yaml", deployment.name), deployment.yaml().as_bytes())
    }

    /// Remembers what Ballast says of the current release, as of now: later releases make other things of it.
    pub(super) fn note(&mut self) {
        let Some(mut release) = self.current.take() else { return };
        if let Some(status) = self.fleet.cli.release(&self.asking.0, &self.asking.1).or(self.status.take()) {
            release.phase = status.phase;
            release.reason = status.reason.unwrap_or_default();
            release.rollback_millis = status.rollback_millis;
            release.targets = status.targets.into_iter().filter(|t| t.digest.is_some()).map(|t| t.name).collect();
        }
        self.releases.push(release);
    }

    /// Waits until the current release is decided, one way or the other; says what Ballast says.
    pub(super) fn decided(&mut self) -> Result<()> {
        let version = self.asking.1.clone();
        self.until(&format!("{version} to be decided"), |demo| Ok(demo.is_decided().then_some(())))
    }

    /// Waits until the current release, a good one, is Active and every gateway answers with it.
    pub(super) fn everywhere(&mut self) -> Result<()> {
        self.decided()?;
        self.still_good()?;
        if self.load.is_none() {
            return Ok(());
        }
        let (all, name) = (self.fleet.gateways.len(), self.shown());
        self.until(&format!("every gateway to answer with {name}"), |demo| {
            demo.still_good()?;
            Ok((demo.reached(&name) == all).then_some(()))
        })
    }

    /// An error if the current release, a good one, ended otherwise than everywhere.
    pub(super) fn still_good(&self) -> Result<()> {
        let Some(status) = self.status.as_ref().filter(|_| self.is_decided() && !self.phase_is("Active")) else {
            return Ok(());
        };
        bail!(
            "{} should have gone everywhere; it is {} {}: {}",
            self.shown(),
            status.phase,
            status.reason.as_deref().unwrap_or_default(),
            status.message.as_deref().unwrap_or_default()
        )
    }

    fn shown(&self) -> String {
        self.current.as_ref().map_or_else(|| self.asking.1.clone(), |r| r.version.clone())
    }

    fn phase_is(&self, phase: &str) -> bool {
        self.status.as_ref().is_some_and(|s| s.phase == phase)
    }

    fn is_decided(&self) -> bool {
        ["Active", "RolledBack", "Refused", "Paused"].iter().any(|p| self.phase_is(p))
    }

    pub(super) fn say_message(&self) {
        if let Some(status) = &self.status {
            let (reason, message) = (status.reason.as_deref().unwrap_or(""), status.message.as_deref().unwrap_or(""));
            self.view.say(&format!("   {} {reason}: {message}", status.phase));
        }
    }

    pub(super) fn status(&self) -> Option<&ReleaseStatus> {
        self.status.as_ref()
    }

    /// Gateways that answered with a release: a version of the digits, or the name of the user's own deployment.
    pub(super) fn reached(&self, release: &str) -> usize {
        match &self.own {
            Some((name, load)) if name == release => load.reached("1"),
            _ => self.load.as_ref().map_or(0, |l| l.reached(release)),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        let own = self.own.as_ref().map(|(_, load)| load.counts()).unwrap_or_default();
        let digits = self.load.as_ref().map(Load::counts).unwrap_or_default();
        digits + own
    }

    /// Lets time pass, watching.
    pub(super) fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.until("time to pass", |_| Ok((Instant::now() >= end).then_some(())))
    }

    pub(super) fn until(&mut self, what: &str, mut ask: impl FnMut(&mut Self) -> Result<Option<()>>) -> Result<()> {
        let limit = LIMIT + LIMIT_PER_GATEWAY * u32::from(self.options.gateways);
        let deadline = Instant::now() + limit;
        loop {
            ensure!(!interrupted(), "interrupted");
            self.fleet.check()?;
            if self.asked.elapsed() >= Duration::from_millis(400) {
                // While the operator is down the last known status stays.
                self.status = self.fleet.cli.release(&self.asking.0, &self.asking.1).or(self.status.take());
                self.asked = Instant::now();
            }
            self.view.show(&self.picture());
            if ask(self)?.is_some() {
                return Ok(());
            }
            if Instant::now() >= deadline {
                let known = self.status.as_ref().map_or("nothing is known of it".to_owned(), |s| {
                    format!("{} {} {}", s.phase, s.reason.as_deref().unwrap_or(""), s.message.as_deref().unwrap_or(""))
                });
                bail!("waited {} s for {what}; {known}", limit.as_secs());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn picture(&self) -> Picture {
        let rollout = self.status.as_ref().map_or(self.asking.1.clone(), |s| {
            format!("{} {} {}/{} updated", s.version, s.phase, s.gateways.updated, s.gateways.eligible)
        });
        let mut seen = self.load.as_ref().map(Load::seen).unwrap_or_default();
        seen.resize_with(self.fleet.gateways.len(), Default::default);
        let gateways = self.fleet.gateways.iter().zip(seen).zip(&self.remarks);
        let gateways = gateways.map(|((g, seen), remark)| (g.name.clone(), seen, remark.clone())).collect();
        Picture { rollout, gateways, counts: self.counts() }
    }

    /// Counts, table, report, verdict. `trouble` is why an act did not end well.
    fn end(mut self, trouble: Option<String>) -> Result<bool> {
        self.view.act("the end: counts");
        self.note();
        self.load.iter_mut().for_each(Load::stop);
        self.own.iter_mut().for_each(|(_, load)| load.stop());
        // What a release did after it was noted counts too: a rolled back one that went on spreading, say.
        let mut releases = std::mem::take(&mut self.releases);
        for release in &mut releases {
            release.gateways_reached = self.reached(&release.version);
        }
        let report = Report::new(self.fleet.gateways.len(), self.fleet.kinds(), self.counts(), releases);
        self.view.close();
        let mut failures = report.failures();
        failures.extend(trouble);
        println!("\n{}", report.text());
        let loads = || self.load.iter().chain(self.own.iter().map(|(_, load)| load));
        loads().flat_map(Load::problems).for_each(|problem| println!("  {problem}"));
        if let Some(path) = &self.options.report {
            std::fs::write(path, serde_json::to_string_pretty(&report)? + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        match failures.is_empty() {
            true => println!("everything as promised"),
            false => failures.iter().for_each(|f| println!("FAILED: {f}")),
        }
        if self.options.keep && !interrupted() {
            self.keep();
        }
        Ok(failures.is_empty())
    }

    /// Leaves the fleet running until Ctrl-C.
    fn keep(&mut self) {
        let ballast = format!("{} --socket {}", self.fleet.cli.binary.display(), self.fleet.cli.socket.display());
        println!("\nThe fleet keeps running until Ctrl-C. Try:");
        for command in
            [format!("rollout status {DEPLOYMENT}"), format!("rollout watch {DEPLOYMENT}"), "gateways list".to_owned()]
        {
            println!("  {ballast} {command}");
        }
        if let Some(first) = self.fleet.gateways.first() {
            let name = self.own.as_ref().map_or(DEPLOYMENT, |(name, _)| name);
            println!("  curl http://{}/v2/models/{name}", first.http);
            println!("  curl http://{}/metrics", first.http);
        }
        println!("  edit {}", self.fleet.directory().join(format!("{DEPLOYMENT}.yaml")).display());
        while !interrupted() {
            if let Err(error) = self.fleet.check() {
                println!("{error:#}");
                return;
            }
            std::thread::sleep(Duration::from_millis(200));
        }
    }
}
