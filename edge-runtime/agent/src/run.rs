//! `ballast-edge run`: everything wired together.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::client::Client;
use crate::cloud::Cloud;
use crate::config::Config;
use crate::driver::{Board, Driver, Input, Parts};
use crate::fetch::Source;
use crate::identity::Enrolled;
use crate::metrics::Metrics;
use crate::runner::Allowed;
use crate::serve::{Access, BodyLimits, Listener, Router, Server, service};
use crate::state::{BLOBS, StateDir};
use crate::store::Store;
use crate::time::Clock;
use crate::{facts, sync};

/// Trials, deferred releases and quiet ones are looked at so often.
const TICK: Duration = Duration::from_millis(250);

/// Runs until SIGTERM or SIGINT, then drains.
pub(crate) async fn run(config: Config, dir: StateDir) -> anyhow::Result<()> {
    let (config, dir) = (Arc::new(config), Arc::new(dir));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // The address first: a port in use is said before anything else is touched.
    let clock = Arc::new(Clock::default());
    let access = Access::by(&config.serve, Arc::clone(&clock))?;
    let http = Listener::tcp("serve.http", &config.serve.http, &access, &["http/1.1"]).await?;
    let address = http.address().context("the address that is served has no name")?;
    let mut listeners = vec![http];
    if let Some(path) = &config.serve.unix {
        listeners.push(Listener::unix(path)?);
    }
    let enrolled = Enrolled::load(&dir)?;
    let in_force = sync::pointer(&dir)?;
    match &in_force {
        Some(pointer) if pointer.epoch == enrolled.root().epoch => clock.saw(pointer.issued),
        _ => clock.saw(enrolled.root().issued),
    }

    let client = Arc::new(Client::new(enrolled.endpoints(), enrolled.tls(Arc::clone(&clock))?));
    let disk = facts::disk_budget(&config, dir.root());
    let source = Source {
        client: Arc::clone(&client),
        store: Arc::new(Store::new(dir.path(BLOBS), disk)),
        retry: Duration::from_secs(config.fetch.retry_seconds),
    };
    let (send, inputs) = mpsc::unbounded_channel();
    let (router, metrics, board) =
        (Arc::new(Router::default()), Arc::new(Metrics::default()), Arc::new(Board::default()));
    let cloud = Arc::new(Cloud::new(Arc::clone(&dir), Arc::clone(&clock), config.privacy, enrolled.credentials()));
    let parts = Parts {
        dir: Arc::clone(&dir),
        cloud: Arc::clone(&cloud),
        source,
        router: Arc::clone(&router),
        metrics: Arc::clone(&metrics),
        board: Arc::clone(&board),
        clock: Arc::clone(&clock),
        memory_budget: facts::memory_budget(&config),
        allowed: Allowed::by(&config),
        roots: enrolled.roots().clone(),
        target: in_force.as_ref().map(|p| p.target.clone()),
        send: send.clone(),
    };
    let kept = match &in_force {
        Some(pointer) => sync::kept(&dir, &enrolled, pointer)?.map(|assignment| (assignment, pointer.expires)),
        None => None,
    };
    let handed_over = kept.is_some();
    let driver = Driver::boot(parts)?;
    if let Some((assignment, expires)) = kept {
        let _ = send.send(Input::Assignment(Box::new((assignment, enrolled.roots().clone(), expires))));
    }
    let driving = tokio::spawn(driver.run(inputs));

    let (stop, stopping) = watch::channel(false);
    let max_connections = (config.serve.max_connections.max(1) as usize).min(Semaphore::MAX_PERMITS);
    let server = Server {
        service: Arc::new(service(router, Arc::clone(&metrics), Arc::clone(&cloud), send.clone(), access)),
        body: BodyLimits {
            size: usize::try_from(config.serve.max_request_bytes).unwrap_or(usize::MAX),
            time: Duration::from_secs(config.serve.body_seconds.max(1)),
        },
        max_connections,
        drain: Duration::from_secs(config.serve.drain_seconds),
    };
    dir.write_bytes("http", format!("{address}\n").as_bytes())?;
    tracing::info!(gateway = %enrolled.gateway(), http = %address, "serving");
    let serving = tokio::spawn(server.run(listeners, stopping));

    let syncing = sync::Loop {
        dir: Arc::clone(&dir),
        config,
        client,
        cloud,
        enrolled,
        clock,
        board,
        metrics,
        driver: send.clone(),
        in_force,
        handed_over,
    };
    let syncing = tokio::spawn(syncing.run());
    let ticks = send.clone();
    let ticking = tokio::spawn(async move {
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            if ticks.send(Input::Tick).is_err() {
                return;
            }
        }
    });

    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("draining: no new connections; requests in flight are answered");
    stop.send_replace(true);
    serving.await?;
    ticking.abort();
    syncing.abort();
    let _ = send.send(Input::Stop);
    driving.await?;
    let _ = std::fs::remove_file(dir.path("http"));
    Ok(())
}
