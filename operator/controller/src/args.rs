//! The command line of `ballast-operator`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};

/// Keeps a fleet of edge gateways in balance with what its objects wish for.
#[derive(Debug, Parser)]
#[command(name = "ballast-operator", version, args_conflicts_with_subcommands = true)]
pub struct Args {
    /// Without a subcommand the operator runs.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Flags of the default.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the operator (the default).
    Run(Box<RunArgs>),
    /// Compile one model; the request comes from the operator that starts this.
    #[command(hide = true)]
    CompileWorker(WorkerArgs),
    /// Prove one plan; the request comes from the worker that starts this.
    #[command(hide = true)]
    ProveWorker(WorkerArgs),
    /// Print the completion script for a shell.
    Completion {
        /// For this shell.
        shell: clap_complete::Shell,
    },
}

/// Whatever the parent passes to its worker.
#[derive(Debug, clap::Args)]
pub struct WorkerArgs {
    /// As the compiler's worker protocol says.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub arguments: Vec<std::ffi::OsString>,
}

/// What one line of the log looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines.
    Json,
}

/// Flags of `run`.
#[derive(Debug, Clone, clap::Args)]
pub struct RunArgs {
    /// Directory with the fleet's YAML files; a fleet.yaml of kind Fleet marks it.
    #[arg(long, env = "BALLAST_DIRECTORY", value_name = "DIR")]
    pub directory: Option<PathBuf>,
    /// Take objects from a Kubernetes API server: the one of KUBECONFIG, or the pod's own.
    #[arg(long, env = "BALLAST_KUBERNETES", conflicts_with = "directory")]
    pub kubernetes: bool,
    /// With --kubernetes: where the keys' Secrets and the Lease are [default: the pod's, or the kubeconfig's]
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAMESPACE")]
    pub namespace: Option<String>,
    /// With --kubernetes: who holds the Lease, a name that a restart keeps [default: this machine's]
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,
    /// Directory for keys, counters, gateways and bundles; back it up.
    #[arg(long, env = "BALLAST_STATE", value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Where gateways connect to. Port 0 takes a free one, and the same one again at the next start if it can.
    #[arg(long, env = "BALLAST_LISTEN", value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8443")]
    pub listen: SocketAddr,
    /// The address under which gateways reach this server, if it is not the one above.
    #[arg(long, env = "BALLAST_PUBLIC_ENDPOINT", value_name = "https://HOST:PORT")]
    pub public_endpoint: Option<String>,
    /// The administrator's socket [default: STATE/admin.sock]
    #[arg(long, env = "BALLAST_SOCKET", value_name = "PATH")]
    pub admin_socket: Option<PathBuf>,
    /// How often gateways sync while nothing is rolled out.
    #[arg(long, env = "BALLAST_SYNC", value_name = "DURATION", default_value = "60s", value_parser = duration)]
    pub sync: Duration,
    /// How often they sync while a rollout needs it.
    #[arg(long, env = "BALLAST_SYNC_ROLLOUT", value_name = "DURATION", default_value = "1s", value_parser = duration)]
    pub sync_rollout: Duration,
    /// Models compiled at once.
    #[arg(long, env = "BALLAST_WORKERS", value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub workers: u16,
    /// Let https: sources lead to loopback, link-local and private addresses.
    #[arg(long, env = "BALLAST_ALLOW_PRIVATE_SOURCES")]
    pub allow_private_sources: bool,
    /// PEM certificates that https: sources are trusted by, besides the system's.
    #[arg(long, env = "BALLAST_SOURCE_CA", value_name = "FILE")]
    pub source_ca: Option<PathBuf>,
    /// Form of the log.
    #[arg(long, env = "BALLAST_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// `500ms`, `10s`, `5m`, `1h`.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "write a number and a unit: 500ms, 10s, 5m, 1h".to_owned())?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err("write a number and a unit: 500ms, 10s, 5m, 1h".to_owned()),
    };
    let millis = number.checked_mul(millis).filter(|m| (100..=86_400_000).contains(m));
    millis.map(Duration::from_millis).ok_or_else(|| "write 100ms at least and 24h at most".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
        let args = Args::try_parse_from(["x", "--directory", "d", "--state", "s", "--listen", "127.0.0.1:0"]).unwrap();
        assert!(args.command.is_none() && args.run.sync == Duration::from_secs(60));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("1500ms"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "1d", "0s", "25h", "-1s", "99999999999999999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
