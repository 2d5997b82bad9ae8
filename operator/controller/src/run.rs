//! Wiring: from the command line to a serving operator, and back to a clean end.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use ballast_fleet::registry::Registry;
use ballast_fleet::store::{GatewayStore, RedbStore};
use ballast_fleet::{AdminSocket, Documents, Fleet, FleetServer, Limits};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use crate::admin::{self, Admin};
use crate::args::{LogFormat, RunArgs};
use crate::builder::Builder;
use crate::compilation::Compiler;
use crate::controller::{Controller, Settings};
use crate::fetch::Fetcher;
use crate::keys::KeyFiles;
use crate::kubernetes::{Connection, Election, KeySecrets};
use crate::runners::Runners;
use crate::state::{self, StateDir};
use crate::tokens::Tokens;
use crate::trust::Roots;
use crate::workers::Workers;
use crate::{endpoint, keys, kubernetes, source};

/// Runs until SIGTERM or SIGINT.
pub fn run(args: RunArgs, compiler: Arc<dyn Compiler>) -> anyhow::Result<()> {
    log(args.log_format);
    // ring is the only provider: rustls must not have to guess.
    drop(rustls::crypto::ring::default_provider().install_default());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?;
    let outcome = runtime.block_on(async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        serve(args, compiler, end).await
    });
    if outcome.is_err() {
        // Whoever must not act any more does not wait for threads that still do.
        runtime.shutdown_background();
    }
    outcome
}

fn log(format: LogFormat) {
    // What the client says of a failed request is said again, with what was being done.
    let filter = tracing_subscriber::EnvFilter::try_from_env("BALLAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,kube_client::client::builder=off"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Runs until `end` ends.
pub async fn serve(args: RunArgs, compiler: Arc<dyn Compiler>, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let directory = match (args.directory.clone(), args.kubernetes) {
        (None, true) => None,
        (Some(directory), false) => Some(directory),
        _ => bail!(
            "--directory or --kubernetes is missing: name the directory with the fleet's YAML files, or take objects from a Kubernetes API server"
        ),
    };
    let Some(state_path) = args.state.clone() else {
        bail!("--state is missing: name a directory for keys, counters and bundles");
    };
    match directory {
        Some(directory) => operate(args, Origin::Directory(directory), &state_path, compiler, end).await,
        None => lead(args, &state_path, compiler, end).await,
    }
}

/// Operates for as long as the Lease is held.
async fn lead(
    args: RunArgs,
    state_path: &Path,
    compiler: Arc<dyn Compiler>,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut end = pin!(end);
    let connection = Connection::open(args.namespace.clone()).await?;
    let identity = args.identity.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into());
    let election = Election::new(&connection, identity);
    let leadership = tokio::select! {
        won = election.win() => won?,
        () = &mut end => return Ok(()),
    };
    let lost = leadership.lost();
    let outcome = tokio::select! {
        outcome = operate(args, Origin::Kubernetes(connection), state_path, compiler, end) => outcome,
        () = lost => bail!("another operator may hold the Lease by now: this one stops"),
    };
    leadership.release().await;
    outcome
}

/// Where objects come from.
enum Origin {
    Directory(PathBuf),
    Kubernetes(Connection),
}

async fn operate(
    args: RunArgs,
    origin: Origin,
    state_path: &Path,
    compiler: Arc<dyn Compiler>,
    end: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let mut end = pin!(end);
    let now = ballast_fleet::now();
    let state = Arc::new(StateDir::open(state_path, now)?);
    let store = RedbStore::open(&state.path("gateways.redb"), now).context("the gateway store cannot be opened")?;
    let store: Arc<dyn GatewayStore> = Arc::new(store);
    let enrolled = !store.list(None, None, 1).await?.rows.is_empty();
    // From the environment only: arguments are for everybody to read.
    let password = std::env::var("BALLAST_KEY_PASSWORD").unwrap_or_default();
    let roots = Roots::load(&state)?;
    let trusted = enrolled || !roots.is_empty();
    let keys = match &origin {
        Origin::Directory(_) => {
            let mut vault = KeyFiles(&state);
            let keys = keys::load_or_make(&state, &mut vault, trusted, password.as_bytes(), now)?;
            roots.check_keys(&vault, &keys)?;
            keys
        }
        Origin::Kubernetes(connection) => {
            let mut vault = KeySecrets::read(connection).await?;
            // Also where the volume is lost, and with it every word of who trusts them.
            let trusted = trusted || vault.was_whole();
            let keys = keys::load_or_make(&state, &mut vault, trusted, password.as_bytes(), now)?;
            roots.check_keys(&vault, &keys)?;
            vault.keep().await?;
            keys
        }
    };

    let extra = args.source_ca.as_ref().map(std::fs::read).transpose().context("--source-ca cannot be read")?;
    let private = args.allow_private_sources;
    let (source, fetcher) = match origin {
        Origin::Kubernetes(connection) => {
            // An API server that does not answer yet is waited for; nobody waits for whoever was asked to end.
            let source = tokio::select! {
                opened = kubernetes::open(connection) => opened?,
                () = &mut end => return Ok(()),
            };
            (source, Fetcher::without_files(private, extra.as_deref()))
        }
        Origin::Directory(directory) => {
            let source = source::open(&directory, Arc::clone(&state))?;
            let root = directory.canonicalize().unwrap_or(directory);
            (source, Fetcher::new(&root, private, extra.as_deref()))
        }
    };
    let fetcher = fetcher.context("the https client")?;
    // Whoever looks at the port must not take a process that still waits for its objects for one that serves.
    let server = bind(args.listen, &state).await?;
    let endpoint = endpoint::resolve(args.public_endpoint.as_deref(), server.address())?;
    let trust = Arc::new(roots.for_endpoint(&state, &keys, &endpoint.url, now)?);
    let epoch = trust.newest().epoch;

    let registry = Arc::new(Registry::open(&state.path("registry"))?);
    let documents = Arc::new(Documents::open(&state.path("assignments"))?);
    let asked = Arc::clone(&compiler);
    match tokio::task::spawn_blocking(move || asked.isolation()).await? {
        Some(Ok(isolation)) => tracing::info!(%isolation, "models are compiled in child processes"),
        Some(Err(error)) => tracing::error!(%error, "no model can be compiled: a worker does not start"),
        None => {}
    }
    let workers = Workers::new(&state, compiler, usize::from(args.workers));
    let runners = Arc::new(Runners::new(Arc::clone(&state), Arc::clone(&registry), Arc::clone(&keys.runtime), epoch));
    let tokens =
        Arc::new(Tokens::new(Arc::clone(&state), Arc::clone(&store), endpoint.url.clone(), keys.authority.digest()));
    let controller = Controller::new(
        Settings { sync: args.sync, sync_rollout: args.sync_rollout.min(args.sync) },
        Arc::clone(&state),
        Arc::clone(&store),
        Arc::clone(&registry),
        Arc::clone(&documents),
        source,
        Arc::new(Builder { fetcher, workers }),
        runners,
        tokens,
        Arc::clone(&keys.release),
        epoch,
    )?;
    let fleet = Fleet::new(
        Arc::clone(&keys.authority),
        store,
        controller.clone(),
        trust,
        registry,
        documents,
        Limits::default(),
    );
    let socket_path = args.admin_socket.unwrap_or_else(|| state.path("admin.sock"));
    let socket = AdminSocket::bind(&socket_path).await?;
    // Whoever waits for this file finds everything else in place.
    state::write(&state.path("endpoint"), format!("{}\n", endpoint.url).as_bytes(), 0o644)?;

    let (stop, stopped) = watch::channel(false);
    let admin = admin::router(Admin { controller: Arc::clone(&controller) });
    let admin = tokio::spawn(socket.serve(admin, stopped.clone()));
    let passes = tokio::spawn(Arc::clone(&controller).run(Arc::clone(&fleet), stopped.clone()));
    let mut serving = tokio::spawn(server.serve(fleet, endpoint.hosts, stopped));
    tracing::info!(endpoint = endpoint.url, socket = %socket_path.display(), "ready");
    let failed = tokio::select! {
        () = &mut end => None,
        ended = &mut serving => Some(ended),
    };
    tracing::info!("stopping");
    stop.send_replace(true);
    if let Some(ended) = failed {
        ended??;
        bail!("the fleet's server ended by itself");
    }
    serving.await??;
    passes.await?;
    admin.await?;
    tracing::info!("stopped");
    Ok(())
}

/// The port of last time when a free one is asked for: gateways know it. Otherwise any free one.
async fn bind(wanted: SocketAddr, state: &StateDir) -> anyhow::Result<FleetServer> {
    if wanted.port() == 0
        && let Some(port) = endpoint::last_port(&state.path("endpoint"))
        && let Ok(server) = FleetServer::bind(SocketAddr::new(wanted.ip(), port)).await
    {
        return Ok(server);
    }
    Ok(FleetServer::bind(wanted).await?)
}
