//! The command line: `enroll`, `run`, `status`, `completion`.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum};

use crate::config::Config;
use crate::state::StateDir;
use crate::token::Token;
use crate::{enroll, run, status};

#[derive(Debug, Parser)]
#[command(name = "ballast-edge", version, about = "Runs an edge gateway of a Ballast fleet")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a fleet with an enrolment token
    Enroll {
        /// The token, or a file that holds it
        #[arg(long, value_name = "FILE|TOKEN")]
        token: String,
        #[command(flatten)]
        common: Common,
    },
    /// Serve, and keep in step with the operator
    Run {
        /// Where to serve (port 0: any free one, written to STATE/http)
        #[arg(long, value_name = "ADDRESS:PORT")]
        http: Option<String>,
        /// How the log is written
        #[arg(long, value_enum, default_value = "text")]
        log_format: LogFormat,
        #[command(flatten)]
        common: Common,
    },
    /// Show what runs here
    Status {
        /// Form of the answer
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
        #[command(flatten)]
        common: Common,
    },
    /// Print a completion script for a shell
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
struct Common {
    /// Configuration file [default: /etc/ballast/edge.toml where there is one]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// State directory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Set a key of the configuration, as in serve.http=127.0.0.1:8080; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Output {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

impl Common {
    fn load(&self) -> anyhow::Result<Config> {
        let environment = std::env::vars_os().filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)));
        let mut config = Config::load(self.config.as_deref(), environment, &self.set)?;
        if let Some(state) = &self.state {
            config.state.clone_from(state);
        }
        Ok(config)
    }
}

/// What `main` does.
pub fn main() -> anyhow::Result<()> {
    // The one provider of this process, whichever crate asks.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match Cli::parse().command {
        Command::Enroll { token, common } => {
            let config = common.load()?;
            let token = Token::from_argument(&token)?;
            let dir = StateDir::lock(&config.state)?;
            let enrolled = runtime()?
                .block_on(enroll::enroll(&dir, &config, &token))
                .with_context(|| format!("enrolment at {} failed", token.endpoint))?;
            say(&format!(
                "enrolled as {}; now start: ballast-edge run --state {}\n",
                enrolled.gateway(),
                shown(&config.state)
            ))
        }
        Command::Run { http, log_format, common } => {
            let mut config = common.load()?;
            if let Some(http) = http {
                config.serve.http = http;
            }
            log(log_format);
            let dir = StateDir::lock(&config.state)?;
            runtime()?.block_on(run::run(config, dir))
        }
        Command::Status { output, common } => {
            let config = common.load()?;
            let status = status::gather(&StateDir::read_only(&config.state)?)?;
            match output {
                Output::Table => say(&status::table(&status)),
                Output::Json => say(&format!("{status:#}\n")),
            }
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "ballast-edge", &mut script);
            say(&String::from_utf8_lossy(&script))
        }
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A reader that left early (`| head`) is no error.
fn say(text: &str) -> anyhow::Result<()> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// One thread for everything that waits; file work goes to at most four others, which leave when idle.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .thread_keep_alive(std::time::Duration::from_secs(5))
        .build()
        .context("the runtime cannot be started")?;
    Ok(runtime)
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => builder.json().init(),
    }
}
