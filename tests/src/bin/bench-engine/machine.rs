//! What the figures were measured on.

use ballast_sandbox::EngineProfile;

/// CPU, cores and system in one line.
pub fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, n)| n));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{}, {cores} cores, {}", name.unwrap_or(std::env::consts::ARCH), std::env::consts::OS)
}

/// The profile of a target made exactly for this CPU: all its features that code can use.
pub fn profile() -> EngineProfile {
    let mut features: Vec<&str> = Vec::new();
    #[cfg(target_arch = "x86_64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if std::arch::is_x86_feature_detected!($name) { features.push($name); })* };
        }
        detect!("sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "lzcnt" "bmi1" "bmi2" "avx" "avx2" "fma");
        detect!("avx512f" "avx512vl" "avx512dq");
    }
    #[cfg(target_arch = "aarch64")]
    {
        macro_rules! detect {
            ($($name:tt)*) => { $(if std::arch::is_aarch64_feature_detected!($name) { features.push($name); })* };
        }
        detect!("lse" "fp16" "dotprod" "i8mm");
    }
    EngineProfile::new(&EngineProfile::host().triple, std::mem::take(&mut features))
}
