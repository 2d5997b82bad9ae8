//! What the demo shows: on a terminal a live picture under the lines, elsewhere plain lines.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::load::{Counts, Seen};

/// Plain output repeats the counts so often.
const PLAIN_EVERY: Duration = Duration::from_secs(5);
/// More gateways than these are counted, not listed.
const LISTED: usize = 12;

/// A moment of the demo.
#[derive(Debug, Clone, Default)]
pub struct Picture {
    /// `1.0.0 RollingOut, 2 of 5 updated`, ….
    pub rollout: String,
    /// Name, what the load generator saw, a remark.
    pub gateways: Vec<(String, Seen, String)>,
    /// Of all gateways.
    pub counts: Counts,
}

/// Where lines and pictures go.
#[derive(Debug)]
pub struct View {
    started: Instant,
    act: Option<(String, Instant)>,
    bars: Option<Bars>,
    rate: (Instant, u64, f64),
    plain: Instant,
}

#[derive(Debug)]
struct Bars {
    multi: MultiProgress,
    gateways: Vec<ProgressBar>,
    bottom: ProgressBar,
}

impl View {
    /// Live if standard output is a terminal.
    pub fn new() -> Self {
        let bars = std::io::stdout().is_terminal().then(|| {
            let multi = MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::stdout_with_hz(10));
            let bottom = multi.add(ProgressBar::new_spinner());
            bottom.set_style(
                ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            Bars { multi, gateways: Vec::new(), bottom }
        });
        let now = Instant::now();
        Self { started: now, act: None, bars, rate: (now, 0, 0.0), plain: now }
    }

    /// One line that stays.
    pub fn say(&self, text: &str) {
        let line = format!("[{:6.1} s] {text}", self.started.elapsed().as_secs_f64());
        match &self.bars {
            // Never hidden: a terminal that went away is no reason to stop.
            Some(bars) => drop(bars.multi.println(line)),
            None => println!("{line}"),
        }
    }

    /// Ends the phase before, with its time, and begins the next.
    pub fn act(&mut self, title: &str) {
        self.end_act();
        self.say(&format!("== {title}"));
        self.act = Some((title.to_owned(), Instant::now()));
    }

    /// Ends the current phase.
    pub fn end_act(&mut self) {
        if let Some((_, since)) = self.act.take() {
            self.say(&format!("   ({:.1} s)", since.elapsed().as_secs_f64()));
        }
    }

    /// Redraws, or now and then writes a line.
    pub fn show(&mut self, picture: &Picture) {
        let since = self.rate.0.elapsed();
        if since >= Duration::from_secs(1) {
            let rate = picture.counts.requests.saturating_sub(self.rate.1) as f64 / since.as_secs_f64();
            self.rate = (Instant::now(), picture.counts.requests, rate);
        }
        let Counts { requests, lost, refused, wrong } = picture.counts;
        let traffic = format!(
            "{:4.0} requests/s  {requests} requests: {lost} lost, {refused} refused, {wrong} wrong",
            self.rate.2
        );
        match &mut self.bars {
            Some(bars) => {
                let listed =
                    if picture.gateways.len() > LISTED { summary(&picture.gateways) } else { lines(&picture.gateways) };
                bars.resize(listed.len());
                bars.gateways.iter().zip(listed).for_each(|(bar, text)| bar.set_message(text));
                let act = self.act.as_ref().map_or(0.0, |(_, since)| since.elapsed().as_secs_f64());
                bars.bottom.set_message(format!("{traffic}  |  {}  |  {act:.0} s", picture.rollout));
                bars.bottom.tick();
            }
            None => {
                if self.plain.elapsed() >= PLAIN_EVERY {
                    self.plain = Instant::now();
                    self.say(&format!("   {traffic}  |  {}", picture.rollout));
                }
            }
        }
    }

    /// Takes the live picture away; lines stay.
    pub fn close(&mut self) {
        self.end_act();
        if let Some(bars) = self.bars.take() {
            let _ = bars.multi.clear();
        }
    }
}

impl Bars {
    fn resize(&mut self, lines: usize) {
        while self.gateways.len() > lines {
            if let Some(bar) = self.gateways.pop() {
                bar.finish_and_clear();
            }
        }
        while self.gateways.len() < lines {
            let bar = self.multi.insert_before(&self.bottom, ProgressBar::new_spinner());
            bar.set_style(ProgressStyle::with_template("  {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
            self.gateways.push(bar);
        }
    }
}

fn lines(gateways: &[(String, Seen, String)]) -> Vec<String> {
    gateways
        .iter()
        .map(|(name, seen, remark)| {
            let by_fallback =
                if seen.by_fallback > 0 { format!("{} by the fallback", seen.by_fallback) } else { String::new() };
            format!("{name:<11} {:<7} {:>7} answers  {by_fallback:<18} {remark}", seen.newest, seen.counts.requests)
                .trim_end()
                .to_owned()
        })
        .collect()
}

fn summary(gateways: &[(String, Seen, String)]) -> Vec<String> {
    let mut versions = std::collections::BTreeMap::<&str, usize>::new();
    for (_, seen, _) in gateways {
        *versions.entry(&seen.newest).or_default() += 1;
    }
    versions
        .iter()
        .filter(|(v, _)| !v.is_empty())
        .map(|(version, n)| format!("{version:<7} {:<40} {n}", "#".repeat((n * 40).div_ceil(gateways.len()))))
        .collect()
}
