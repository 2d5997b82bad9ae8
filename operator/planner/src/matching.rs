//! Which HardwareTarget a gateway is of.

use ballast_bundle::TargetName;
use ballast_bundle::protocol::Facts;
use ballast_crds::{HardwareTarget, HardwareTargetSpec};

/// A HardwareTarget by name.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetSpec {
    /// `metadata.name`.
    pub name: TargetName,
    /// What it says.
    pub spec: HardwareTargetSpec,
}

impl TargetSpec {
    /// From the object; `None` when its name is no target name.
    pub fn of(target: &HardwareTarget) -> Option<Self> {
        Some(Self { name: target.metadata.name.as_deref()?.parse().ok()?, spec: target.spec.clone() })
    }

    /// Whether a gateway with these facts is of this class.
    pub fn matches(&self, facts: &Facts) -> bool {
        let code = match self.spec.triple.split('-').next().unwrap_or_default() {
            "pulley64" => interpreter_bits(&facts.arch) == Some(64),
            "pulley32" => interpreter_bits(&facts.arch) == Some(32),
            arch => arch == facts.arch && !facts.interpreter,
        };
        facts.os == "linux"
            && code
            && self.spec.cpu_features.iter().all(|feature| facts.cpu_features.contains(feature))
            && self
                .spec
                .matching
                .iter()
                .flat_map(|matching| &matching.facts)
                .all(|(key, value)| facts.extra.get(key) == Some(value))
    }
}

/// Width of pointers, by Rust's `target_arch`, that the interpreter's bytecode is made for; none where bytes go the other way
/// round. An architecture that nobody heard of is taken for one of today.
fn interpreter_bits(arch: &str) -> Option<u32> {
    match arch {
        "s390x" | "sparc64" | "sparc" | "m68k" | "powerpc" => None,
        "arm" | "csky" | "hexagon" | "mips" | "mips32r6" | "riscv32" | "x86" | "xtensa" => Some(32),
        _ => Some(64),
    }
}

/// The one target of a gateway: highest priority, then most features, then the name that sorts first.
pub fn match_target<'a>(facts: &Facts, targets: impl IntoIterator<Item = &'a TargetSpec>) -> Option<&'a TargetSpec> {
    targets.into_iter().filter(|target| target.matches(facts)).min_by_key(|target| {
        (-i64::from(target.spec.priority), std::cmp::Reverse(target.spec.cpu_features.len()), &target.name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ballast_crds::builtin_targets;

    fn builtin() -> Vec<TargetSpec> {
        builtin_targets().iter().map(|t| TargetSpec::of(t).unwrap()).collect()
    }

    fn facts(arch: &str, features: &[&str], extra: &[(&str, &str)]) -> Facts {
        Facts {
            arch: arch.to_owned(),
            os: "linux".to_owned(),
            cpu_features: features.iter().map(|&f| f.to_owned()).collect(),
            extra: extra.iter().map(|&(k, v)| (k.to_owned(), v.to_owned())).collect(),
            ..Facts::default()
        }
    }

    fn name_of(facts: &Facts) -> Option<String> {
        match_target(facts, &builtin()).map(|t| t.name.to_string())
    }

    const V3: &[&str] = &[
        "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3",
    ];

    #[test]
    fn common_boxes_find_their_target() {
        for (facts, want) in [
            (facts("x86_64", V3, &[]), "x86-64-v3"),
            (facts("x86_64", &V3.iter().copied().filter(|f| *f != "avx2").collect::<Vec<_>>(), &[]), "x86-64"),
            (facts("x86_64", &[], &[]), "x86-64"),
            (facts("aarch64", &["neon"], &[]), "aarch64"),
            (facts("aarch64", &["neon", "crc"], &[]), "aarch64"),
            (facts("aarch64", &["neon", "crc"], &[("cpu", "cortex-a53")]), "cortex-a53"),
            (facts("aarch64", &["neon", "crc"], &[("cpu", "cortex-a72")]), "cortex-a72"),
            (facts("aarch64", &["crc", "dotprod", "fp16", "lse", "neon", "rcpc", "rdm"], &[]), "cortex-a76"),
            (facts("riscv64", &[], &[]), "pulley64"),
            (facts("arm", &["neon"], &[]), "pulley32"),
            (facts("x86", &[], &[]), "pulley32"),
        ] {
            assert_eq!(name_of(&facts).as_deref(), Some(want), "{facts:?}");
            let interpreter = if want == "pulley32" { want } else { "pulley64" };
            let forced = Facts { interpreter: true, ..facts };
            assert_eq!(name_of(&forced).as_deref(), Some(interpreter), "{forced:?}");
        }
        assert_eq!(name_of(&facts("s390x", &[], &[])), None, "big-endian");
        assert_eq!(name_of(&Facts { os: "windows".to_owned(), ..facts("x86_64", V3, &[]) }), None);
    }

    #[test]
    fn priority_then_features_then_name() {
        let target = |name: &str, priority, features: &[&str]| {
            let mut spec = builtin()[0].spec.clone();
            spec.priority = priority;
            spec.cpu_features = features.iter().map(|&f| f.to_owned()).collect();
            TargetSpec { name: name.parse().unwrap(), spec }
        };
        let all = [
            target("b", 0, &["avx"]),
            target("a", 0, &["avx"]),
            target("z", 0, &["avx", "fma"]),
            target("low", -1, V3),
        ];
        let best = |n: usize| match_target(&facts("x86_64", V3, &[]), &all[..n]).unwrap().name.to_string();
        assert_eq!((best(1).as_str(), best(2).as_str(), best(4).as_str()), ("b", "a", "z"));
    }
}
