//! HardwareTargets that ship with chart and binary.

use kube::core::ObjectMeta;

use crate::{HardwareTarget, HardwareTargetSpec, TargetMatch, TargetPower, TargetSpeed};

struct Builtin {
    name: &'static str,
    triple: &'static str,
    features: &'static [&'static str],
    memory: &'static str,
    priority: i32,
    /// f32 GFLOP/s of one thread in the sandbox, GB/s.
    speed: (&'static str, &'static str),
    /// Facts that must be reported: where features alone cannot tell two cores apart.
    facts: &'static [(&'static str, &'static str)],
    /// Idle and active W of a common box, where somebody published a measurement.
    power: Option<(&'static str, &'static str)>,
}

const X86: &str = "x86_64-unknown-linux-musl";
const ARM: &str = "aarch64-unknown-linux-musl";

/// Speeds are estimates for the verdict until a gateway has measured itself, so they lean to the low side.
///
/// A NEON or SSE core peaks at clock × 4 lanes × 2 (multiply and add) × pipes; the sandbox's matrix product reaches
/// about 70 % of the 128-bit fused peak where multiply-add is fused (measured: 41 of 58 GFLOP/s on an x86-64 machine).
const BUILTIN: &[Builtin] = &[
    // x86-64 psABI level 1 has SSE2; every x86-64 since 2008 has up to SSE4.1, which Wasm SIMD leans on, but a baseline
    // target may not assume it. 2 GHz × 4 lanes × 2 operations, multiply and add apart: 8 sustained of 16.
    Builtin {
        name: "x86-64",
        triple: X86,
        features: &[],
        memory: "256Mi",
        priority: -100,
        speed: ("8", "6"),
        facts: &[],
        power: None,
    },
    // psABI level 3: https://gitlab.com/x86-psABIs/x86-64-ABI. 2 GHz (Haswell and later) × 4 lanes × 2 × 2 pipes = 32;
    // 70 % of it. One channel of DDR4-2133 gives 17 GB/s, of which one core streams about 10.
    Builtin {
        name: "x86-64-v3",
        triple: X86,
        features: &[
            "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse3", "sse4.1", "sse4.2",
            "ssse3",
        ],
        memory: "512Mi",
        priority: 0,
        speed: ("20", "10"),
        facts: &[],
        power: None,
    },
    // Armv8.0-A with NEON; as slow as its slowest member, the Cortex-A53.
    Builtin {
        name: "aarch64",
        triple: ARM,
        features: &["neon"],
        memory: "256Mi",
        priority: -100,
        speed: ("3", "2"),
        facts: &[],
        power: None,
    },
    // Cortex-A53 and -A72 report the same features, so the owner says which it is: `[facts] cpu = "cortex-a72"`.
    // Cortex-A53 (Arm DDI 0500): one 64-bit-wide NEON pipe, 4 FLOP a cycle for fused multiply-add; 1.2 GHz in a
    // Raspberry Pi 3 = 4.8 peak. Raspberry Pi 3 streams about 2 GB/s (LPDDR2-900, 32 bit). Power of a Pi 3B:
    // https://www.pidramble.com/wiki/benchmarks/power-consumption (1.4 W idle, 3.7 W at 400 % CPU).
    Builtin {
        name: "cortex-a53",
        triple: ARM,
        features: &["crc", "neon"],
        memory: "256Mi",
        priority: 10,
        speed: ("3", "2"),
        facts: &[("cpu", "cortex-a53")],
        power: Some(("1.4", "3.7")),
    },
    // Cortex-A72 (Arm 100095, Software Optimization Guide: one 128-bit FMA pipe pair of 64 bits): 8 FLOP a cycle;
    // 1.5 GHz in a Raspberry Pi 4 = 12 peak. LPDDR4-3200 at 32 bit: one core streams about 4 GB/s. Power of a Pi 4B:
    // same source (2.7 W idle, 6.4 W at 400 % CPU).
    Builtin {
        name: "cortex-a72",
        triple: ARM,
        features: &["crc", "neon"],
        memory: "512Mi",
        priority: 20,
        speed: ("8", "4"),
        facts: &[("cpu", "cortex-a72")],
        power: Some(("2.7", "6.4")),
    },
    // Cortex-A76 (Arm Software Optimization Guide PJDOC-466751330: two 128-bit FMA pipes): 16 FLOP a cycle; 2.4 GHz in a
    // Raspberry Pi 5 = 38 peak. Dot product and half precision come with Armv8.2. LPDDR4X-4267 at 32 bit: about 9 GB/s.
    // Power of a Pi 5: https://www.raspberrypi.com/news/benchmarking-raspberry-pi-5/ (about 3 W idle, 7 W busy).
    Builtin {
        name: "cortex-a76",
        triple: ARM,
        features: &["crc", "dotprod", "fp16", "lse", "neon", "rcpc", "rdm"],
        memory: "512Mi",
        priority: 30,
        speed: ("25", "9"),
        facts: &[],
        power: Some(("3", "7")),
    },
    // The portable interpreter: for CPUs without a code generator. About a twentieth of native code on the same core.
    Builtin {
        name: "pulley64",
        triple: "pulley64",
        features: &[],
        memory: "128Mi",
        priority: -1000,
        speed: ("0.2", "0.5"),
        facts: &[],
        power: None,
    },
];

/// The targets that exist without anybody writing them; an object of the same name takes the place of one.
pub fn builtin_targets() -> Vec<HardwareTarget> {
    BUILTIN
        .iter()
        .map(|b| HardwareTarget {
            metadata: ObjectMeta { name: Some(b.name.to_owned()), ..ObjectMeta::default() },
            spec: HardwareTargetSpec {
                triple: b.triple.to_owned(),
                cpu_features: b.features.iter().map(|&f| f.to_owned()).collect(),
                memory: b.memory.into(),
                operators: None,
                priority: b.priority,
                matching: (!b.facts.is_empty()).then(|| TargetMatch {
                    facts: b.facts.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect(),
                }),
                speed: Some(TargetSpeed { gflops: b.speed.0.into(), memory_bandwidth: b.speed.1.into() }),
                power: b
                    .power
                    .map(|(idle, active)| TargetPower { idle_watts: idle.into(), active_watts: active.into() }),
            },
        })
        .collect()
}
