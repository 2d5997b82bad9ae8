//! Rust's names of CPU features, as Cranelift calls them.

use ballast_sandbox::EngineProfile;
use wasmtime::Config;

use crate::AotError;

/// x86-64: (Rust, Cranelift). Cranelift's preset `x86-64-v3` lacks `has_avx`, without which there is no VEX encoding and no
/// fused multiply-add; so features are switched on one by one.
const X86_64: &[(&str, &[&str])] = &[
    ("sse3", &["has_sse3"]),
    ("ssse3", &["has_ssse3"]),
    ("sse4.1", &["has_sse41"]),
    ("sse4.2", &["has_sse42"]),
    ("popcnt", &["has_popcnt"]),
    ("cmpxchg16b", &["has_cmpxchg16b"]),
    ("lzcnt", &["has_lzcnt"]),
    ("bmi1", &["has_bmi1"]),
    ("bmi2", &["has_bmi2"]),
    ("avx", &["has_avx"]),
    ("avx2", &["has_avx2"]),
    ("fma", &["has_fma"]),
    ("avxvnni", &["has_avx_vnni"]),
    ("avx512f", &["has_avx512f"]),
    ("avx512vl", &["has_avx512vl"]),
    ("avx512dq", &["has_avx512dq"]),
    ("avx512bitalg", &["has_avx512bitalg"]),
    ("avx512vbmi", &["has_avx512vbmi"]),
    ("avx512vnni", &["has_avx512vnni"]),
    // Baseline, or nothing that Cranelift uses.
    ("sse", &[]),
    ("sse2", &[]),
    ("fxsr", &[]),
    ("f16c", &[]),
    ("movbe", &[]),
    ("xsave", &[]),
    ("avx512bw", &[]),
    ("avx512cd", &[]),
];

const AARCH64: &[(&str, &[&str])] = &[
    ("lse", &["has_lse"]),
    ("fp16", &["has_fp16"]),
    ("dotprod", &["has_dotprod"]),
    ("i8mm", &["has_i8mm"]),
    // Baseline, or nothing that Cranelift uses. Pointer authentication of code that has no secrets to keep is only time.
    ("neon", &[]),
    ("aes", &[]),
    ("pmull", &[]),
    ("sha2", &[]),
    ("crc", &[]),
    ("rdm", &[]),
    ("rcpc", &[]),
    ("paca", &[]),
    ("pacg", &[]),
];

/// Without `v` Cranelift cannot make vector code for RISC-V, and panics on it.
const RISCV64: &[(&str, &[&str])] = &[
    ("v", &["has_v"]),
    ("zba", &["has_zba"]),
    ("zbb", &["has_zbb"]),
    ("zbs", &["has_zbs"]),
    ("m", &[]),
    ("a", &[]),
    ("f", &[]),
    ("d", &[]),
    ("c", &[]),
];

/// Switches on what the profile names, and refuses what no table knows.
#[allow(unsafe_code)]
pub(crate) fn enable(config: &mut Config, profile: &EngineProfile) -> Result<(), AotError> {
    let unsupported = |message: &str| AotError::Target { triple: profile.triple.clone(), message: message.to_owned() };
    let arch = profile.arch();
    let table = match arch {
        "x86_64" => X86_64,
        "aarch64" => AARCH64,
        "riscv64" | "riscv64gc" => RISCV64,
        "pulley32" | "pulley64" => &[],
        _ => return Err(unsupported("Cranelift has no back end for it; use pulley64 (or pulley32)")),
    };
    if arch.starts_with("riscv64") && !profile.cpu_features.iter().any(|f| f == "v") {
        return Err(unsupported("without the vector extension (v) there is no SIMD; use pulley64"));
    }
    for feature in &profile.cpu_features {
        let Some((_, flags)) = table.iter().find(|(rust, _)| rust == feature) else {
            return Err(AotError::Feature { arch: arch.to_owned(), feature: feature.clone() });
        };
        for flag in *flags {
            // SAFETY: the flags say which instructions the target has. A gateway's engine compares each of them with its
            // own CPU before it maps the code, so that a wrong one is an error there, not an illegal instruction.
            unsafe { config.cranelift_flag_enable(flag) };
        }
    }
    Ok(())
}
