//! `serve`: the gateway, workers, or both, until told to stop.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::auth::Authenticator;
use crate::bus::Bus;
use crate::config::{Config, Http};
use crate::http::{self, Drain, Edge, Limits, Metrics, Served};
use crate::nats::outgoing::Replies;
use crate::nats::{Nats, Patience};
use crate::seal::Keyring;
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::worker::{self, PrepareError, Service};
use crate::{api, provider};

/// Pause before streams are looked at again while the bus is away.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// What this process does.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Stop when standard input closes: for whoever starts this as a child.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Gateway and workers.
    All,
    /// The HTTP gateway: holds no key and judges no credential.
    Edge,
    /// Workers.
    Worker,
}

pub(super) async fn run(config: Config, options: Options) -> anyhow::Result<()> {
    let Options { role, exit_with_stdin } = options;
    let (tasks, metrics) = (Tasks::default(), Metrics::new());
    // From here on SIGHUP asks for files to be read again; it ends no process, not even one that is not ready yet.
    drop(signal(SignalKind::hangup())?);
    let name = match role {
        Role::All => "tokenbus",
        Role::Edge => "tokenbus edge",
        Role::Worker => "tokenbus worker",
    };
    let nats = Nats::connect(&config.nats, name, Patience::Forever).await?;
    metrics.register(|registry| nats.register(registry));
    if role != Role::Edge {
        start_workers(&config, &nats, &metrics, &tasks).await?;
    }
    let edge_id = config.http.edge_id.clone();
    let replies = if edge_id.is_empty() { Replies::new() } else { Replies::to(edge_id) };
    let bus = Arc::new(Bus::new(nats, replies, config.http.deadline));
    if let Some(address) = config.http.metrics_listen {
        let edge = Edge::new(Arc::clone(&bus), metrics.clone(), Served::MetricsOnly)?;
        let listener = listen(address, "http.metrics_listen").await?;
        info!("metrics on http://{}/metrics", listener.local_addr()?);
        listen_until_stopped(&tasks, "metrics", http::run(listener, Arc::new(edge), Limits::default(), tasks.stop()));
    }
    if role != Role::Worker {
        start_edge(&config, bus, metrics, &tasks).await?;
    }
    if tasks.run(exit_with_stdin).await {
        Ok(())
    } else {
        anyhow::bail!("stopped because a part failed; the log says why")
    }
}

async fn start_workers(config: &Config, nats: &Nats, metrics: &Metrics, tasks: &Tasks) -> anyhow::Result<()> {
    let keyring = Keyring::load(&config.secrets).await?;
    let store = Store { nats: nats.clone(), keyring: Arc::new(keyring) };
    let provider = provider::Client::new(&provider_settings(config)?)?;
    let measures = worker::Measures::default();
    metrics.register(|registry| measures.register(registry));
    let (auth, replies) = (Authenticator::new(nats.clone()), Replies::new());
    let service = Arc::new(Service { store, provider, auth, config: config.clone(), measures, replies });
    let stop = tasks.stop();
    tasks.spawn("worker", async move {
        if !prepare(&service, &stop).await? {
            return Ok(());
        }
        info!("ready for commands and calls");
        let (replies, nats) = (service.replies.clone(), service.store.nats.clone());
        let work = async {
            let calls = api::serve(Arc::clone(&service), stop.clone());
            tokio::join!(calls, worker::run(Arc::clone(&service), stop)).0
        };
        let ended = tokio::select! {
            ended = work => ended,
            ended = replies.receive(&nats) => ended,
        };
        ended.map_err(|error| PrepareError::Calls(error.to_string()))
    });
    Ok(())
}

/// Makes the bus ready, however long it is away. Gives whether there is still something to do.
async fn prepare(service: &Service, stop: &CancellationToken) -> Result<bool, PrepareError> {
    loop {
        match worker::prepare(&service.store, &service.config).await {
            Ok(()) => return Ok(true),
            Err(error) if !error.is_lasting() => warn!("not ready: {error}; trying again"),
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(AGAIN) => {}
        }
    }
}

fn provider_settings(config: &Config) -> anyhow::Result<provider::Settings> {
    let ca = &config.oauth.ca;
    let extra_ca_pem = if ca.as_os_str().is_empty() {
        None
    } else {
        Some(std::fs::read_to_string(ca).with_context(|| format!("oauth.ca: {}", ca.display()))?)
    };
    let guard = provider::Guard {
        allowed_hosts: config.oauth.allowed_hosts.clone(),
        allow_insecure_urls: config.oauth.allow_insecure_urls,
    };
    Ok(provider::Settings { guard, extra_ca_pem, proxy: config.oauth.proxy.clone(), ..provider::Settings::default() })
}

async fn start_edge(config: &Config, bus: Arc<Bus>, metrics: Metrics, tasks: &Tasks) -> anyhow::Result<()> {
    let served = if config.http.metrics_listen.is_some() { Served::WithoutMetrics } else { Served::All };
    let edge = Arc::new(Edge::new(Arc::clone(&bus), metrics, served)?);
    let listener = listen(config.http.listen, "http.listen").await?;
    println!("listening on http://{}", listener.local_addr()?);
    // A command may take the whole deadline; its answer still has to get through.
    let request_timeout = config.http.deadline + Duration::from_secs(5);
    let Http { max_connections: connections, drain, .. } = config.http;
    let limits = Limits { connections, request_timeout, drain, ..Limits::default() };
    let (done, stop) = (CancellationToken::new(), tasks.stop());
    tasks.spawn("answers", {
        let (done, stop) = (done.clone(), stop.clone());
        async move {
            tokio::select! {
                ended = bus.receive() => ended,
                () = done.cancelled() => Ok(()),
            }?;
            stop.cancelled().await;
            Ok::<(), async_nats::Error>(())
        }
    });
    listen_until_stopped(tasks, "gateway", async move {
        let drained = http::run(listener, edge, limits, stop).await;
        // Requests under way waited for their answers; only now nobody does.
        done.cancel();
        drained
    });
    Ok(())
}

async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("{setting} {address}"))
}

fn listen_until_stopped(tasks: &Tasks, name: &'static str, listening: impl Future<Output = Drain> + Send + 'static) {
    tasks.spawn(name, async move {
        listening.await;
        Ok::<(), std::convert::Infallible>(())
    });
}
