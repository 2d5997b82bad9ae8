//! Wiring: from the command line to a serving operator, and back to a clean end.

use std::net::SocketAddr;
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
use crate::runners::Runners;
use crate::state::{self, StateDir};
use crate::tokens::Tokens;
use crate::trust::Roots;
use crate::workers::Workers;
use crate::{endpoint, keys, source};

/// Runs until SIGTERM or SIGINT.
pub fn run(args: RunArgs, compiler: Arc<dyn Compiler>) -> anyhow::Result<()> {
    log(args.log_format);
    // ring is the only provider: rustls must not have to guess.
    drop(rustls::crypto::ring::default_provider().install_default());
    tokio::runtime::Builder::new_multi_thread().enable_all().build().context("no threads")?.block_on(async {
        let (mut terminated, mut interrupted) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let end = async move {
            tokio::select! {
                _ = terminated.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        serve(args, compiler, end).await
    })
}

fn log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("BALLAST_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().init(),
    }
}

/// Runs until `end` ends.
pub async fn serve(args: RunArgs, compiler: Arc<dyn Compiler>, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let Some(directory) = args.directory else {
        bail!("--directory is missing: name the directory with the fleet's YAML files (Kubernetes comes later)");
    };
    let Some(state_path) = args.state else {
        bail!("--state is missing: name a directory for keys, counters and bundles");
    };
    let now = ballast_fleet::now();
    let state = Arc::new(StateDir::open(&state_path, now)?);
    let store = RedbStore::open(&state.path("gateways.redb"), now).context("the gateway store cannot be opened")?;
    let store: Arc<dyn GatewayStore> = Arc::new(store);
    let enrolled = !store.list(None, None, 1).await?.rows.is_empty();
    // From the environment only: arguments are for everybody to read.
    let password = std::env::var("BALLAST_KEY_PASSWORD").unwrap_or_default();
    let roots = Roots::load(&state)?;
    let keys = keys::load_or_make(&state, enrolled || !roots.is_empty(), password.as_bytes(), now)?;
    roots.check_keys(&state, &keys)?;

    let server = bind(args.listen, &state).await?;
    let endpoint = endpoint::resolve(args.public_endpoint.as_deref(), server.address())?;
    let trust = Arc::new(roots.for_endpoint(&state, &keys, &endpoint.url, now)?);
    let epoch = trust.newest().epoch;

    let registry = Arc::new(Registry::open(&state.path("registry"))?);
    let documents = Arc::new(Documents::open(&state.path("assignments"))?);
    let source = source::open(&directory, Arc::clone(&state))?;
    let extra = args.source_ca.as_ref().map(std::fs::read).transpose().context("--source-ca cannot be read")?;
    let root = directory.canonicalize().unwrap_or(directory);
    let fetcher = Fetcher::new(&root, args.allow_private_sources, extra.as_deref()).context("the https client")?;
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
        () = end => None,
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
