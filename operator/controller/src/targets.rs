//! Hardware targets: the built-in ones and the objects, as the compiler and the engine need them.

use std::collections::BTreeMap;

use ballast_bundle::TargetName;
use ballast_bundle::protocol::Facts;
use ballast_compiler::TargetSpec;
use ballast_crds::{HardwareTarget, builtin_targets};
use ballast_planner::match_target;
use kube::ResourceExt as _;

/// Triple and features of a target, and what the compiler is told of it.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// Rust triple.
    pub triple: String,
    /// Rust's names, sorted.
    pub cpu_features: Vec<String>,
    /// For the compiler.
    pub spec: TargetSpec,
}

/// All targets.
#[derive(Debug, Clone, Default)]
pub struct Targets {
    classes: Vec<ballast_planner::TargetSpec>,
    by_name: BTreeMap<TargetName, Target>,
}

impl Targets {
    /// The built-in ones, each replaced by an object of its name.
    pub fn new(objects: &[HardwareTarget]) -> Self {
        let mut all: BTreeMap<String, HardwareTarget> =
            builtin_targets().into_iter().map(|t| (t.name_any(), t)).collect();
        all.extend(objects.iter().map(|t| (t.name_any(), t.clone())));
        let by_name = all.values().filter_map(|t| Some((t.name_any().parse().ok()?, read(t)?))).collect();
        let classes = all.values().filter_map(ballast_planner::TargetSpec::of).collect();
        Self { classes, by_name }
    }

    /// By name.
    pub fn get(&self, name: &TargetName) -> Option<&Target> {
        self.by_name.get(name)
    }

    /// The one that a gateway with these facts belongs to.
    pub fn matching(&self, facts: &Facts) -> Option<TargetName> {
        match_target(facts, &self.classes).map(|t| t.name.clone())
    }
}

fn read(target: &HardwareTarget) -> Option<Target> {
    let name: TargetName = target.name_any().parse().ok()?;
    let spec = &target.spec;
    let mut cpu_features = spec.cpu_features.clone();
    cpu_features.sort();
    let speed = |f: fn(&ballast_crds::TargetSpeed) -> &ballast_crds::Decimal| {
        spec.speed.as_ref().and_then(|s| f(s).value().ok()).unwrap_or(0.0)
    };
    Some(Target {
        spec: TargetSpec {
            name: name.clone(),
            triple: spec.triple.clone(),
            cpu_features: cpu_features.clone(),
            memory_bytes: spec.memory.bytes().ok()?,
            deny: spec.operators.as_ref().map(|o| o.deny.clone()).unwrap_or_default(),
            gflops: speed(|s| &s.gflops),
            memory_bandwidth: speed(|s| &s.memory_bandwidth) * 1e9, // GB/s in the API, bytes/s in the compiler
        },
        name,
        triple: spec.triple.clone(),
        cpu_features,
    })
}
