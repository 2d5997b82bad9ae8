//! `cargo xtask demo`: the whole loop on this machine, judged from outside.
//!
//! The script starts processes, writes YAML files, pulls plugs, and looks. What it reports comes from two places only:
//! the load generator, which knows nothing of rollouts, and `ballast rollout status -o json`.

pub mod documents;
pub mod fleet;
pub mod http;
mod load;
pub mod prerequisites;
pub mod proxy;
mod report;
pub mod status;
pub mod traffic;
mod view;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::documents::{DEPLOYMENT, Deployment};
use self::fleet::{Binaries, Fleet};
use self::http::Connection;
use self::load::{Counts, Fault, Load};
use self::report::{Release, Report, Wish};
use self::status::ReleaseStatus;
use self::traffic::{Input, Traffic};
use self::view::{Picture, View};
use crate::process::{self, interrupted};
use crate::workspace;

/// How long the operator is dead.
const OPERATOR_DOWN: Duration = Duration::from_secs(10);
/// How long a gateway is cut off at most.
const CUT_OFF: Duration = Duration::from_secs(8);
/// A step that takes longer has failed. Generous: a loaded two-core machine must not fail a good build.
const LIMIT: Duration = Duration::from_secs(150);

/// `cargo xtask demo`.
#[derive(Debug, Args)]
pub struct Options {
    /// Gateways to start; from 32 on, rollouts go by the sequential test instead of one by one.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(2..=200))]
    gateways: u16,
    /// Your own model, rolled out to the same fleet at the end.
    #[arg(long, value_name = "FILE.onnx")]
    model: Option<PathBuf>,
    /// Leave everything running at the end and print commands to try; Ctrl-C ends it.
    #[arg(long)]
    keep: bool,
    /// Write what was found as JSON.
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,
    /// Requests per second and gateway, at most.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Make the demo fail, to prove that it can.
    #[arg(long, hide = true)]
    inject: Option<Inject>,
    /// Use the binaries of this folder instead of building them.
    #[arg(long, hide = true, value_name = "DIR")]
    binaries: Option<PathBuf>,
}

/// Deliberate faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Inject {
    /// One answer never arrives.
    DropAnswer,
    /// One bit of one answer flips.
    FlipOutput,
    /// The bad release goes everywhere because nobody checks its outputs.
    ForceBadRelease,
}

/// Runs the demo; the exit code says whether everything was as promised.
pub fn run(options: Options) -> Result<ExitCode> {
    process::watch_for_interruption()?;
    let mut view = View::new();
    view.act("prerequisites");
    prerequisites::check(options.model.as_deref())?;
    let binaries = match &options.binaries {
        Some(folder) => Binaries::of(folder),
        None => {
            view.act("build (ballast-operator, ballast-edge, ballast; development profile)");
            build()?
        }
    };
    let root = workspace::target_dir()?.join("demo").join(format!("run-{}", std::process::id()));
    let outcome = Demo::start(options, view, &root, binaries).and_then(Demo::play);
    match outcome {
        Ok(true) => {
            let _ = std::fs::remove_dir_all(&root);
            Ok(ExitCode::SUCCESS)
        }
        Ok(false) => {
            println!("logs: {}", root.join("logs").display());
            Ok(ExitCode::FAILURE)
        }
        Err(_) if interrupted() => {
            println!("interrupted; every child has ended");
            let _ = std::fs::remove_dir_all(&root);
            Ok(ExitCode::from(130))
        }
        Err(error) => {
            println!("the demo failed: {error:#}\nlogs: {}", root.join("logs").display());
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Builds all binaries and says where they are. The whole workspace, as the tests do: another choice of packages would
/// unify features differently and compile the large dependencies a second time.
pub fn build() -> Result<Binaries> {
    process::run(workspace::cargo().args(["build", "--workspace", "--bins"]))?;
    Ok(Binaries::of(&workspace::target_dir()?.join("debug")))
}

struct Demo {
    options: Options,
    view: View,
    // Before the fleet: traffic must end first, or the end itself would lose requests.
    load: Option<Load>,
    own: Option<(String, Load)>,
    fleet: Fleet,
    golden: String,
    releases: Vec<Release>,
    current: (String, String),
    remarks: Vec<String>,
    asked: Instant,
    status: Option<ReleaseStatus>,
}

impl Demo {
    fn start(options: Options, mut view: View, root: &Path, binaries: Binaries) -> Result<Self> {
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
            releases: Vec::new(),
            current: (DEPLOYMENT.to_owned(), String::new()),
            remarks,
            asked: Instant::now(),
            status: None,
        })
    }

    /// The acts; true if everything was as promised.
    fn play(mut self) -> Result<bool> {
        self.first()?;
        match self.options.inject {
            None => {
                self.better()?;
                self.refused()?;
                self.rolled_back()?;
                if let Some(model) = self.options.model.clone() {
                    self.own_model(&model)?;
                }
            }
            Some(Inject::DropAnswer) => self.fault(Fault::DropAnswer)?,
            Some(Inject::FlipOutput) => self.fault(Fault::FlipOutput)?,
            Some(Inject::ForceBadRelease) => self.forced()?,
        }
        self.end()
    }

    fn first(&mut self) -> Result<()> {
        self.view.act("1.0.0: a first network, everywhere");
        self.apply("1.0.0", true)?;
        self.until("1.0.0 to be Active", LIMIT, |demo| Ok(demo.phase_is("Active").then_some(())))?;
        for gateway in &self.fleet.gateways {
            let answer =
                Connection::new(gateway.http, Duration::from_secs(5)).get(&format!("/v2/models/{DEPLOYMENT}/ready"));
            ensure!(answer.is_ok_and(|a| a.status == 200), "{} is not ready though 1.0.0 is Active", gateway.name);
        }
        let targets = self.status.iter().flat_map(|s| &s.targets).map(|t| {
            let size = t.size_bytes.map_or(String::new(), |b| format!(" ({} KB)", b.div_ceil(1024)));
            format!("{}{size}", t.name)
        });
        self.view.say(&format!("   built and signed for {}", targets.collect::<Vec<_>>().join(", ")));
        let addresses: Vec<_> = self.fleet.gateways.iter().map(|g| g.http).collect();
        self.load = Some(Load::start(Traffic::digits(DEPLOYMENT)?, &addresses, self.options.rate));
        self.view.say("   live traffic starts: real images, to every gateway, without pause");
        self.everywhere("1.0.0")?;
        self.note("1.0.0", Wish::Everywhere)
    }

    fn better(&mut self) -> Result<()> {
        self.view.act("2.0.0: a better network, gateway by gateway, while things break");
        self.apply("2.0.0", true)?;
        self.until("a gateway to answer with 2.0.0", LIMIT, |demo| Ok((demo.reached("2.0.0") > 0).then_some(())))?;

        let before = self.counts();
        self.fleet.kill_operator();
        self.view.say(&format!(
            "   the operator is killed, in the middle of the rollout, for {} s",
            OPERATOR_DOWN.as_secs()
        ));
        self.pass(OPERATOR_DOWN)?;
        let after = self.counts();
        self.view.say(&format!(
            "   {} requests answered without an operator, {} lost; it starts again",
            after.requests - before.requests,
            after.lost - before.lost
        ));
        self.fleet.start_operator()?;

        let version = "2.0.0";
        let seen = self.load.as_ref().map(Load::seen).unwrap_or_default();
        let waiting = seen.iter().rposition(|s| !s.answered.contains_key(version)).unwrap_or(0);
        self.cut_off(waiting)?;
        self.until("2.0.0 to be Active", LIMIT, |demo| Ok(demo.phase_is("Active").then_some(())))?;
        self.everywhere("2.0.0")?;
        self.note("2.0.0", Wish::Everywhere)
    }

    /// One gateway loses the operator for a while, and nobody else notices.
    fn cut_off(&mut self, gateway: usize) -> Result<()> {
        let before = self.load.as_ref().map(Load::seen).unwrap_or_default();
        let name = self.fleet.gateways[gateway].name.clone();
        let remark = std::mem::replace(&mut self.remarks[gateway], "cut off".to_owned());
        self.fleet.gateways[gateway].cable.cut();
        self.view.say(&format!("   {name} is cut off from the operator, in the middle of the rollout"));
        self.pass(CUT_OFF)?;
        self.fleet.gateways[gateway].cable.mend();
        self.remarks[gateway] = remark;
        let after = self.load.as_ref().map(Load::seen).unwrap_or_default();
        let answered = after[gateway].counts.requests - before[gateway].counts.requests;
        let lost = after[gateway].counts.lost - before[gateway].counts.lost;
        self.view.say(&format!("   {name} answered {answered} requests meanwhile, {lost} lost; it is connected again"));
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        self.view.act("3.0.0: trained on other pixels; the golden vectors refuse it before anything is signed");
        self.apply("3.0.0", true)?;
        self.until("3.0.0 to be decided", LIMIT, |demo| Ok(demo.decided().then_some(())))?;
        self.say_message();
        self.pass(Duration::from_secs(2))?;
        self.note("3.0.0", Wish::Refused)
    }

    fn rolled_back(&mut self) -> Result<()> {
        self.view.act("4.0.0: passes the golden vectors, answers NaN to blank images");
        self.apply("4.0.0", true)?;
        self.until("4.0.0 to be decided", LIMIT, |demo| Ok(demo.decided().then_some(())))?;
        self.say_message();
        // Long enough for another gateway to take it, if the halt did not hold.
        self.pass(Duration::from_secs(4))?;
        let by_fallback: u64 = self.load.iter().flat_map(Load::seen).map(|s| s.by_fallback).sum();
        self.view.say(&format!("   {by_fallback} requests that failed on 4.0.0 were answered by the fallback"));
        self.note("4.0.0", Wish::RolledBack)
    }

    fn forced(&mut self) -> Result<()> {
        self.view.act("4.0.0, forced: nobody checks its outputs");
        self.apply("4.0.0", false)?;
        self.until("4.0.0 to be decided", LIMIT, |demo| Ok(demo.decided().then_some(())))?;
        self.pass(Duration::from_secs(3))?;
        self.note("4.0.0", Wish::RolledBack)
    }

    fn fault(&mut self, fault: Fault) -> Result<()> {
        self.view.act("a fault on purpose");
        if let Some(load) = &self.load {
            load.inject(fault);
        }
        self.pass(Duration::from_secs(2))
    }

    fn own_model(&mut self, path: &Path) -> Result<()> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let name: String =
            stem.to_lowercase().chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(40).collect();
        let name = format!("own-{}", name.trim_matches('-'));
        self.view.act(&format!("your model {} as {name}", path.display()));
        let source = format!("{name}.onnx");
        let digest = self.fleet.add_file(path, &source)?;
        let deployment = Deployment {
            name: &name,
            version: "1",
            source: &source,
            digest: &digest,
            golden: None,
            finite_outputs: true,
        };
        documents::put(&self.fleet.directory(), &format!("{name}.yaml"), deployment.yaml().as_bytes())?;
        self.current = (name.clone(), "1".to_owned());
        self.status = None;
        self.until("your model to be decided", LIMIT, |demo| Ok(demo.decided().then_some(())))?;
        self.say_message();
        if self.phase_is("Active") {
            let load = self.own_traffic(&name)?;
            self.own = Some((name, load));
            self.everywhere("1")?;
            self.view
                .say("   its answers are checked for being finite only: nobody computed the right ones beforehand");
        }
        self.note("1", Wish::Everywhere)
    }

    fn own_traffic(&self, name: &str) -> Result<Load> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            inputs: Vec<Input>,
            outputs: Vec<Input>,
        }
        let first = self.fleet.gateways.first().context("no gateway")?;
        let answer = Connection::new(first.http, Duration::from_secs(5)).get(&format!("/v2/models/{name}"))?;
        let metadata: Metadata = serde_json::from_slice(&answer.body).context("the model's metadata")?;
        let output = metadata.outputs.into_iter().next().context("the model has no output")?;
        let addresses: Vec<_> = self.fleet.gateways.iter().map(|g| g.http).collect();
        // Slowly: it may be a large model, and the digits go on beside it.
        Ok(Load::start(Traffic::seeded(name, metadata.inputs, output.name), &addresses, 5))
    }

    fn end(mut self) -> Result<bool> {
        self.view.act("the end: counts");
        if let Some(load) = &mut self.load {
            load.stop();
        }
        if let Some((_, load)) = &mut self.own {
            load.stop();
        }
        // What a release did after it was noted counts too: a rolled back one that went on spreading, say.
        let mut releases = std::mem::take(&mut self.releases);
        for release in &mut releases {
            release.gateways_reached = self.reached(&release.version);
        }
        let report = Report::new(self.fleet.gateways.len(), self.counts(), releases);
        self.view.close();
        let failures = report.failures();
        println!("\n{}", report.text());
        for problem in self.load.iter().flat_map(Load::problems).chain(self.own.iter().flat_map(|(_, l)| l.problems()))
        {
            println!("  {problem}");
        }
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
            println!("  curl http://{}/v2/models/{DEPLOYMENT}", first.http);
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

    fn apply(&mut self, version: &str, finite_outputs: bool) -> Result<()> {
        let source = format!("digits-{version}.onnx");
        let digest = self.fleet.add_file(&workspace::digits().join("models").join(&source), &source)?;
        let golden = self.golden.clone();
        let deployment = Deployment {
            name: DEPLOYMENT,
            version,
            source: &source,
            digest: &digest,
            golden: Some(&golden),
            finite_outputs,
        };
        documents::put(&self.fleet.directory(), &format!("{DEPLOYMENT}.yaml"), deployment.yaml().as_bytes())?;
        self.current = (DEPLOYMENT.to_owned(), version.to_owned());
        self.status = None;
        Ok(())
    }

    /// Remembers what Ballast says of the current release, as of now.
    fn note(&mut self, version: &str, wish: Wish) -> Result<()> {
        let (deployment, _) = self.current.clone();
        let status =
            self.fleet.cli.release(&deployment, version).with_context(|| format!("nothing is known of {version}"))?;
        self.releases.push(Release {
            version: if deployment == DEPLOYMENT { version.to_owned() } else { deployment },
            phase: status.phase,
            reason: status.reason.unwrap_or_default(),
            gateways_reached: 0,
            rollback_millis: status.rollback_millis,
            targets: status.targets.into_iter().filter(|t| t.digest.is_some()).map(|t| t.name).collect(),
            wish,
        });
        Ok(())
    }

    fn everywhere(&mut self, version: &str) -> Result<()> {
        let all = self.fleet.gateways.len();
        let what = format!("every gateway to answer with {version}");
        let name = if self.own.is_some() { self.current.0.clone() } else { version.to_owned() };
        self.until(&what, LIMIT, |demo| Ok((demo.reached(&name) == all).then_some(())))
    }

    fn phase_is(&self, phase: &str) -> bool {
        self.status.as_ref().is_some_and(|s| s.phase == phase)
    }

    fn decided(&self) -> bool {
        ["Active", "RolledBack", "Refused", "Paused"].iter().any(|p| self.phase_is(p))
    }

    fn say_message(&self) {
        if let Some(status) = &self.status {
            let (reason, message) = (status.reason.as_deref().unwrap_or(""), status.message.as_deref().unwrap_or(""));
            self.view.say(&format!("   {} {reason}: {message}", status.phase));
        }
    }

    /// `release` is a version of the digits, or the name of the user's own deployment.
    fn reached(&self, release: &str) -> usize {
        match &self.own {
            Some((name, load)) if name == release => load.reached("1"),
            _ => self.load.as_ref().map_or(0, |l| l.reached(release)),
        }
    }

    fn counts(&self) -> Counts {
        let own = self.own.as_ref().map(|(_, load)| load.counts()).unwrap_or_default();
        let digits = self.load.as_ref().map(Load::counts).unwrap_or_default();
        digits + own
    }

    fn pass(&mut self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        self.until("time to pass", time + LIMIT, |_| Ok((Instant::now() >= end).then_some(())))
    }

    fn until<T>(
        &mut self,
        what: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> Result<Option<T>>,
    ) -> Result<T> {
        let deadline = Instant::now() + limit;
        loop {
            ensure!(!interrupted(), "interrupted");
            self.fleet.check()?;
            if self.asked.elapsed() >= Duration::from_millis(400) {
                // While the operator is down the last known status stays.
                self.status = self.fleet.cli.release(&self.current.0, &self.current.1).or(self.status.take());
                self.asked = Instant::now();
            }
            self.view.show(&self.picture());
            if let Some(found) = ask(self)? {
                return Ok(found);
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
        let rollout = self.status.as_ref().map_or(self.current.1.clone(), |s| {
            format!("{} {} {}/{} updated", s.version, s.phase, s.gateways.updated, s.gateways.eligible)
        });
        let mut seen = self.load.as_ref().map(Load::seen).unwrap_or_default();
        seen.resize_with(self.fleet.gateways.len(), Default::default);
        let gateways = self.fleet.gateways.iter().zip(seen).zip(&self.remarks);
        let gateways = gateways.map(|((g, seen), remark)| (g.name.clone(), seen, remark.clone())).collect();
        Picture { rollout, gateways, counts: self.counts() }
    }
}
