//! The acts: what is applied, what is broken, and what must be seen.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Inject;
use super::documents::{DEPLOYMENT, Deployment};
use super::http::Connection;
use super::load::{Fault, Load};
use super::report::Wish;
use super::stage::Demo;
use super::traffic::{Input, Traffic};

/// How long the operator is dead.
const OPERATOR_DOWN: Duration = Duration::from_secs(10);
/// How long a gateway is cut off once the operator is back.
const CUT_OFF: Duration = Duration::from_secs(8);
/// No answer to a classifier of digits for so long is a lost one; a user's model may be a hundred times as large.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_OWN: Duration = Duration::from_secs(60);
/// Requests per second and gateway to the user's own model: the digits go on beside it.
const RATE_OWN: u32 = 5;

impl Demo {
    pub(super) fn acts(&mut self) -> Result<()> {
        self.first()?;
        match self.options.inject {
            None => {
                self.better()?;
                self.refused()?;
                self.rolled_back()?;
                match self.options.model.clone() {
                    Some(model) => self.own_model(&model),
                    None => Ok(()),
                }
            }
            Some(Inject::DropAnswer) => self.fault(Fault::DropAnswer),
            Some(Inject::FlipOutput) => self.fault(Fault::FlipOutput),
            Some(Inject::ForceBadRelease) => self.forced(),
        }
    }

    fn first(&mut self) -> Result<()> {
        self.view.act("1.0.0: a first network, everywhere");
        self.apply("1.0.0", true, Wish::Everywhere)?;
        self.everywhere()?;
        for gateway in &self.fleet.gateways {
            let answer = Connection::new(gateway.http, PATIENCE).get(&format!("/v2/models/{DEPLOYMENT}/ready"));
            ensure!(answer.is_ok_and(|a| a.status == 200), "{} is not ready though 1.0.0 is Active", gateway.name);
        }
        let targets = self.status().into_iter().flat_map(|s| &s.targets).map(|t| {
            let size = t.size_bytes.map_or(String::new(), |b| format!(" ({} KB)", b.div_ceil(1024)));
            format!("{}{size}", t.name)
        });
        self.view.say(&format!("   built and signed for {}", targets.collect::<Vec<_>>().join(", ")));
        let addresses: Vec<_> = self.fleet.gateways.iter().map(|g| g.http).collect();
        self.load = Some(Load::start(Traffic::digits(DEPLOYMENT)?, &addresses, self.options.rate(), PATIENCE));
        self.view.say(&format!(
            "   live traffic starts: real images, to every gateway, without pause ({} a second each)",
            self.options.rate()
        ));
        self.everywhere()?;
        self.note();
        Ok(())
    }

    fn better(&mut self) -> Result<()> {
        self.view.act("2.0.0: a better network, gateway by gateway, while things break");
        self.apply("2.0.0", true, Wish::Everywhere)?;
        self.until("a gateway to answer with 2.0.0", |demo| {
            demo.still_good()?;
            Ok((demo.reached("2.0.0") > 0).then_some(()))
        })?;
        let before = self.counts();
        self.fleet.kill_operator();
        self.view.say(&format!("   the operator is killed for {} s", OPERATOR_DOWN.as_secs()));
        self.pass(OPERATOR_DOWN)?;
        let after = self.counts();
        let waiting = self.waiting("2.0.0");
        let last = *waiting.last().context("the rollout of 2.0.0 was over before the operator could be killed")?;
        self.view.say(&format!(
            "   in the middle of the rollout: {} of {} gateways still wait for 2.0.0",
            waiting.len(),
            self.fleet.gateways.len()
        ));
        self.view.say(&format!(
            "   {} requests answered without an operator, {} lost; it starts again",
            after.requests - before.requests,
            after.lost - before.lost
        ));
        self.cut_off(last)?;
        self.everywhere()?;
        self.note();
        Ok(())
    }

    /// Gateways that have not answered with a release.
    fn waiting(&self, version: &str) -> Vec<usize> {
        let seen = self.load.as_ref().map(Load::seen).unwrap_or_default();
        (0..seen.len()).filter(|n| !seen[*n].answered.contains_key(version)).collect()
    }

    /// Before the operator is back, one gateway that still waits is cut off from it: certainly in the middle of the
    /// rollout. It hears of nothing for a while, and nobody else notices.
    fn cut_off(&mut self, gateway: usize) -> Result<()> {
        let name = self.fleet.gateways[gateway].name.clone();
        let before = self.load.as_ref().map(Load::seen).unwrap_or_default();
        let remark = std::mem::replace(&mut self.remarks[gateway], "cut off".to_owned());
        self.fleet.gateways[gateway].cable.cut();
        self.fleet.start_operator()?;
        self.view.say(&format!("   {name} is cut off from the operator, the rollout goes on without it"));
        self.pass(CUT_OFF)?;
        ensure!(self.waiting("2.0.0").contains(&gateway), "{name} was cut off, and got 2.0.0 all the same");
        let after = self.load.as_ref().map(Load::seen).unwrap_or_default();
        let answered = after[gateway].counts.requests - before[gateway].counts.requests;
        let lost = after[gateway].counts.lost - before[gateway].counts.lost;
        self.fleet.gateways[gateway].cable.mend();
        self.remarks[gateway] = remark;
        self.view.say(&format!("   {name} answered {answered} requests meanwhile, {lost} lost; it is connected again"));
        Ok(())
    }

    fn refused(&mut self) -> Result<()> {
        self.view.act("3.0.0: trained on other pixels; the golden vectors refuse it before anything is signed");
        self.apply("3.0.0", true, Wish::Refused)?;
        self.decided()?;
        self.say_message();
        self.pass(Duration::from_secs(2))?;
        self.note();
        Ok(())
    }

    fn rolled_back(&mut self) -> Result<()> {
        self.view.act("4.0.0: passes the golden vectors, answers NaN to blank images");
        self.apply("4.0.0", true, Wish::RolledBack)?;
        self.decided()?;
        self.say_message();
        // Long enough for another gateway to take it, if the halt did not hold.
        self.pass(Duration::from_secs(4))?;
        let by_fallback: u64 = self.load.iter().flat_map(Load::seen).map(|s| s.by_fallback).sum();
        self.view.say(&format!("   {by_fallback} requests that failed on 4.0.0 were answered by the fallback"));
        self.note();
        Ok(())
    }

    fn forced(&mut self) -> Result<()> {
        self.view.act("4.0.0, forced: nobody checks its outputs");
        self.apply("4.0.0", false, Wish::RolledBack)?;
        self.decided()?;
        self.pass(Duration::from_secs(3))?;
        self.note();
        Ok(())
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
        let name = format!("own-{}", name.trim_matches('-')).trim_end_matches('-').to_owned();
        self.view.act(&format!("your model {} as {name}", path.display()));
        let source = format!("{name}.onnx");
        let digest = self.fleet.add_file(path, &source)?;
        let shapes = self.options.shapes.clone();
        let deployment = Deployment { shapes: &shapes, deadline: 30, ..Deployment::new(&name, &source, &digest) };
        self.put(&deployment, &name, Wish::Everywhere)?;
        self.decided()?;
        self.say_message();
        self.still_good()?;
        let load = self.own_traffic(&name)?;
        self.own = Some((name, load));
        self.everywhere()?;
        self.view.say("   its answers are checked for being finite only: nobody computed the right ones beforehand");
        self.note();
        Ok(())
    }

    fn own_traffic(&self, name: &str) -> Result<Load> {
        #[derive(serde::Deserialize)]
        struct Metadata {
            inputs: Vec<Input>,
            outputs: Vec<Input>,
        }
        let first = self.fleet.gateways.first().context("no gateway")?;
        let answer = Connection::new(first.http, PATIENCE).get(&format!("/v2/models/{name}"))?;
        let metadata: Metadata = serde_json::from_slice(&answer.body).context("the model's metadata")?;
        let output = metadata.outputs.into_iter().next().context("the model has no output")?;
        let addresses: Vec<_> = self.fleet.gateways.iter().map(|g| g.http).collect();
        let traffic = Traffic::seeded(name, metadata.inputs, output.name)?;
        Ok(Load::start(traffic, &addresses, RATE_OWN.min(self.options.rate()), PATIENCE_OWN))
    }
}
