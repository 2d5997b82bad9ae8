//! What this machine is: reported, never trusted for more than choosing a target.

use std::path::Path;

use ballast_bundle::protocol::{Facts, Speed};
use ballast_sandbox::EngineProfile;

use crate::config::{Config, EngineKind};

/// Facts now; `speed` is known after the first runner.
pub(crate) fn gather(config: &Config, state: &Path, speed: Option<Speed>) -> Facts {
    Facts {
        arch: std::env::consts::ARCH.to_owned(),
        os: std::env::consts::OS.to_owned(),
        cpu_features: allowed_features(config),
        interpreter: config.engine == EngineKind::Interpreter,
        memory_bytes: memory_budget(config),
        disk_bytes: disk_budget(config, state),
        agent: env!("CARGO_PKG_VERSION").to_owned(),
        engine: EngineProfile::engine_version().to_owned(),
        speed,
        extra: config.facts.clone(),
    }
}

/// What the CPU has and the owner does not deny, sorted.
pub(crate) fn allowed_features(config: &Config) -> Vec<String> {
    let mut features = cpu_features();
    features.retain(|f| !config.cpu_features.deny.contains(f));
    features
}

/// Bytes for all guests together.
pub(crate) fn memory_budget(config: &Config) -> u64 {
    if config.limits.memory.0 > 0 {
        return config.limits.memory.0;
    }
    let info = rustix::system::sysinfo();
    let machine = info.totalram.saturating_mul(u64::from(info.mem_unit).max(1));
    // In a container, or in a service with a limit, the machine's memory is not ours.
    let own = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    cgroup_limit(Path::new("/sys/fs/cgroup"), &own).map_or(machine, |limit| limit.min(machine)) / 2
}

/// The smallest `memory.max` from a process's own group up to the root (cgroup v2, the line `0::/path`).
fn cgroup_limit(root: &Path, own: &str) -> Option<u64> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let group = root.join(path);
    let groups = group.ancestors().take_while(|group| group.starts_with(root));
    groups.filter_map(|group| std::fs::read_to_string(group.join("memory.max")).ok()?.trim().parse().ok()).min()
}

/// Bytes for the store: half of what is free but for the store itself, which must not shrink by being filled. Rounded, since
/// what is free changes all the time and facts should not.
pub(crate) fn disk_budget(config: &Config, state: &Path) -> u64 {
    if config.limits.disk.0 > 0 {
        return config.limits.disk.0;
    }
    const STEP: u64 = 1 << 30;
    let free = rustix::fs::statvfs(state).map_or(0, |s| s.f_bavail.saturating_mul(s.f_frsize));
    let blobs = std::fs::read_dir(state.join("blobs/sha256")).into_iter().flatten();
    let ours: u64 = blobs.filter_map(|blob| Some(blob.ok()?.metadata().ok()?.len())).sum();
    let half = free.saturating_add(ours) / 2;
    if half > STEP { half / STEP * STEP } else { half }
}

macro_rules! detected {
    ($detect:ident: $($name:tt)*) => {{
        let mut found = Vec::new();
        $(if std::arch::$detect!($name) { found.push($name.to_owned()); })*
        found.sort();
        found
    }};
}

/// Rust's names of what this CPU has and Cranelift can use, sorted.
#[cfg(target_arch = "x86_64")]
fn cpu_features() -> Vec<String> {
    detected!(is_x86_feature_detected:
        "sse" "sse2" "sse3" "ssse3" "sse4.1" "sse4.2" "popcnt" "cmpxchg16b" "avx" "avx2" "fma" "f16c" "bmi1" "bmi2" "lzcnt" "movbe"
        "avx512f" "avx512bw" "avx512cd" "avx512dq" "avx512vl" "avx512vbmi" "avx512bitalg" "avx512vnni")
}

#[cfg(target_arch = "aarch64")]
fn cpu_features() -> Vec<String> {
    detected!(is_aarch64_feature_detected:
        "neon" "dotprod" "fp16" "fhm" "i8mm" "bf16" "lse" "paca" "pacg" "aes" "sha2" "crc" "rdm" "rcpc" "sve" "sve2")
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn cpu_features() -> Vec<String> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tightest_limit_on_the_way_up_counts() {
        let root = tempfile::tempdir().unwrap();
        let service = root.path().join("system.slice/ballast-edge.service");
        std::fs::create_dir_all(&service).unwrap();
        std::fs::write(root.path().join("system.slice/memory.max"), "800\n").unwrap();
        std::fs::write(service.join("memory.max"), "max\n").unwrap();
        let own = "0::/system.slice/ballast-edge.service\n";
        assert_eq!(cgroup_limit(root.path(), own), Some(800));
        std::fs::write(service.join("memory.max"), "500\n").unwrap();
        assert_eq!(cgroup_limit(root.path(), own), Some(500));
        assert_eq!(cgroup_limit(root.path(), ""), None);
    }

    #[test]
    fn denied_features_are_not_reported() {
        let dir = tempfile::tempdir().unwrap();
        let all = gather(&Config::default(), dir.path(), None);
        assert!(all.memory_bytes > 0 && all.disk_bytes > 0);
        let Some(first) = all.cpu_features.first() else { return };
        let mut config = Config::default();
        config.cpu_features.deny.push(first.clone());
        assert!(!gather(&config, dir.path(), None).cpu_features.contains(first));
    }
}
