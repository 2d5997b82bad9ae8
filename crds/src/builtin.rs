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
    /// What it is for and how far it is tested (docs/hardware.md says how), as the annotation `kubernetes.io/description`.
    description: &'static str,
}

/// Kubernetes' own name for it.
const DESCRIPTION: &str = "kubernetes.io/description";

const X86: &str = "x86_64-unknown-linux-musl";
const ARM: &str = "aarch64-unknown-linux-musl";

/// Speeds are estimates for the verdict until a gateway has measured itself, so they lean to the low side. Where they are from:
///
/// - "measured here": `sandbox/tests/it/runner.rs`, `the_speed_of_this_machine_is_a_number`, on a server with an AMD EPYC at
///   2.6 GHz that did other things as well: one thread, the runner's own product and its streaming read.
/// - Otherwise the peak is clock × lanes × 2 (multiply and add) × pipes, of which the sandbox's product reaches about 70 % where
///   multiply-add is fused (measured: 41 of 58 GFLOP/s on an x86-64 machine).
/// - "sbc-bench": memcpy of one thread in <https://github.com/ThomasKaiser/sbc-bench/blob/master/Results.md>. It counts what is
///   copied; read and written is twice that, and streaming reads are between the two.
const BUILTIN: &[Builtin] = &[
    // x86-64 psABI level 1 has SSE2; every x86-64 since 2008 has up to SSE4.1, which Wasm SIMD leans on, but a baseline
    // target may not assume it. GFLOP/s: 2 GHz × 4 lanes × 2, one multiply and one add a cycle, is a peak of 16; half of it, as
    // nothing is fused and cores of that time are narrow (measured here: 21, by a core of today at 2.6 GHz and two of each).
    // GB/s: the memory of that time, DDR3-1066 (JESD79-3), 8 bytes × 1066 MT/s = 8.5, of which 70 %; sbc-bench has 3.8 copied by
    // a Celeron J1900 and 4.1 by an Athlon II X3.
    Builtin {
        name: "x86-64",
        triple: X86,
        features: &[],
        memory: "256Mi",
        priority: -100,
        speed: ("8", "6"),
        facts: &[],
        power: None,
        description: "Any x86-64; tested on one with newer features denied.",
    },
    // psABI level 3: https://gitlab.com/x86-psABIs/x86-64-ABI. GFLOP/s: 2 GHz (Haswell and later) × 4 lanes × 2 × 2 pipes = 32,
    // of which 70 %, rounded down (measured here: 38). GB/s: one channel of DDR4-2133 (JESD79-4) gives 8 bytes × 2133 MT/s = 17,
    // of which 60 %; sbc-bench has 10.5 copied by a Ryzen R1505G (measured here: 42, with a server's channels).
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
        description: "x86-64 since Haswell and Zen; tested.",
    },
    // Armv8.0-A with NEON. Both figures are those of its slowest common member, the Cortex-A53 below.
    Builtin {
        name: "aarch64",
        triple: ARM,
        features: &["neon"],
        memory: "256Mi",
        priority: -100,
        speed: ("3", "2"),
        facts: &[],
        power: None,
        description: "Any 64-bit Arm; tested under qemu-user.",
    },
    // Cortex-A53 and -A72 report the same features, so the owner says which it is: `[facts] cpu = "cortex-a72"`.
    // Cortex-A53. GFLOP/s: Arm publishes no rates for it (no optimisation guide; DDI 0500 has none); counted as 64 bits of
    // fused multiply-add a cycle, 4 FLOP, because it issues in order and a vector load takes the multiply-add's turn: 1.2 GHz in
    // a Raspberry Pi 3 = 4.8, of which 70 % is 3.4, rounded down. GB/s: LPDDR2-900 at 32 bit gives 3.6; sbc-bench has 1.1 copied
    // by a Raspberry Pi 3 B, so 2.2 read and written. Power of a Pi 3B:
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
        description: "Raspberry Pi 3 and its like, which the owner names; tested under qemu-user.",
    },
    // Cortex-A72. GFLOP/s: one 128-bit fused multiply-add a cycle (Arm UAN 0016, Software Optimization Guide, ASIMD FP multiply
    // accumulate, Q-form), 8 FLOP; 1.5 GHz in a Raspberry Pi 4 = 12, of which 70 %, rounded down. GB/s: LPDDR4-3200 at 32 bit
    // gives 12.8; sbc-bench has 2.2 to 2.8 copied by a Raspberry Pi 4 B, so 4.4 to 5.6 read and written. Power of a Pi 4B: same
    // source (2.7 W idle, 6.4 W at 400 % CPU).
    Builtin {
        name: "cortex-a72",
        triple: ARM,
        features: &["crc", "neon"],
        memory: "512Mi",
        priority: 20,
        speed: ("8", "4"),
        facts: &[("cpu", "cortex-a72")],
        power: Some(("2.7", "6.4")),
        description: "Raspberry Pi 4 and its like, which the owner names; tested under qemu-user.",
    },
    // Cortex-A76. Dot product and half precision come with Armv8.2. GFLOP/s: two 128-bit fused multiply-adds a cycle (Arm
    // PJDOC-466751330, Software Optimization Guide; https://en.wikichip.org/wiki/flops), 16 FLOP; 2.4 GHz in a Raspberry Pi 5 = 38,
    // of which 70 % is 27, rounded down. GB/s: LPDDR4X-4267 at 32 bit gives 17; sbc-bench has 5.3 to 6.0 copied by a
    // Raspberry Pi 5 B, so 10.5 to 12 read and written; less for a busy box. Power of a Pi 5:
    // https://www.raspberrypi.com/news/benchmarking-raspberry-pi-5/ (about 3 W idle, 7 W busy).
    Builtin {
        name: "cortex-a76",
        triple: ARM,
        features: &["crc", "dotprod", "fp16", "lse", "neon", "rcpc", "rdm"],
        memory: "512Mi",
        priority: 30,
        speed: ("25", "9"),
        facts: &[],
        power: Some(("3", "7")),
        description: "Raspberry Pi 5 and others since Armv8.2 with dot product; tested under qemu-user.",
    },
    // The portable interpreter: for CPUs that no other target has code for. Measured by a gateway with `engine = "interpreter"`
    // (`cargo xtask bench edge`, the same server): 0.24 GFLOP/s and 0.6 to 0.9 GB/s, rounded down; a hundredth of native code on
    // the same core. Slower cores will say so when they have measured themselves.
    Builtin {
        name: "pulley64",
        triple: "pulley64",
        features: &[],
        memory: "128Mi",
        priority: -1000,
        speed: ("0.2", "0.5"),
        facts: &[],
        power: None,
        description: "Interpreter for other 64-bit CPUs, and for owners who let no native code in; tested on x86-64.",
    },
    // The same with 32-bit pointers. Nothing was measured on such a machine: what was measured for pulley64 in the proportion of
    // cortex-a53 to x86-64-v3 as measured on the same machine, 0.2 × 3 ÷ 38 and 0.5 × 2 ÷ 42, rounded down.
    Builtin {
        name: "pulley32",
        triple: "pulley32",
        features: &[],
        memory: "64Mi",
        priority: -1000,
        speed: ("0.01", "0.02"),
        facts: &[],
        power: None,
        description: "Interpreter for 32-bit CPUs; compiled and checked, never run: untested.",
    },
];

/// The targets that exist without anybody writing them; an object of the same name takes the place of one.
pub fn builtin_targets() -> Vec<HardwareTarget> {
    BUILTIN
        .iter()
        .map(|b| HardwareTarget {
            metadata: ObjectMeta {
                name: Some(b.name.to_owned()),
                annotations: Some([(DESCRIPTION.to_owned(), b.description.to_owned())].into()),
                ..ObjectMeta::default()
            },
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
