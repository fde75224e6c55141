//! `serve`: runs the gateway, a worker, or both until SIGTERM.

pub(super) mod provider;

use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::print::print_line;
use crate::auth::Authenticator;
use crate::auth::bearer::Bearers;
use crate::config::{Config, Http};
use crate::event::Reads;

use super::descriptors;
use crate::gateway::backend::{Backend, WorkerStart};
use crate::gateway::{Certificates, Drain, Gateway, Limits, Metrics, Rate, Served};
use crate::jetstream::{Nats, Patience, keep_credentials_current};
use crate::protocol::bus_clock::BusClock;
use crate::protocol::permissions;
use crate::protocol::replies::Replies;
use crate::provider::{Authorities, Client};
use crate::seal::Keyring;
use crate::shutdown::Tasks;
use crate::store::Store;
use crate::subject::permission;
use crate::telemetry::Logging;
use crate::worker::background::refresh_limiter::RefreshLimiter;
use crate::worker::context::{self, Context, Measures, Needs, PendingLogins, Shares, UnsentRefreshes, Wakeups};
use crate::worker::{self, PrepareError, rpc};
use crate::{gateway, telemetry};

/// Connections that may wait to be accepted. The system's own limit (`net.core.somaxconn`) may be lower.
const BACKLOG: u32 = 4_096;
/// Pause between tries to prepare streams and buckets while NATS is unavailable.
const PREPARE_RETRY: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
pub(super) struct Options {
    /// Part of the program to run in this process.
    #[arg(long, value_enum, default_value = "all")]
    role: Role,
    /// Stop when standard input closes. For programs that start this one as a child.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Gateway and worker.
    All,
    /// The HTTP gateway. Holds no keys and does not check credentials.
    Edge,
    /// A worker.
    Worker,
}

/// The log of the process, and the file of its settings, which is read again on SIGHUP.
pub(super) struct Running {
    pub(super) logging: Logging,
    pub(super) settings: Option<PathBuf>,
}

pub(super) async fn run(config: Config, options: Options, running: Running) -> anyhow::Result<()> {
    let Options { role, exit_with_stdin } = options;
    config.http.check_plaintext(role != Role::Worker)?;
    config.events.check()?;
    let tasks = Tasks::default();
    let stop_signals = tasks.listen_for_signals().context("cannot listen for signals")?;
    let delay = if role == Role::Worker { Duration::ZERO } else { config.http.shutdown_delay };
    let starting = Box::pin(start(config, role, running, tasks.clone()));
    if tasks.run(starting, stop_signals, exit_with_stdin, delay).await? {
        Ok(())
    } else {
        anyhow::bail!("stopped because a part failed; see the log for the reason")
    }
}

/// Starts the tasks of a role.
async fn start(config: Config, role: Role, running: Running, tasks: Tasks) -> anyhow::Result<()> {
    let metrics = Metrics::new();
    keep_log_current(running, &metrics, &tasks);
    let descriptors = descriptors::raise_limit();
    let name = match role {
        Role::All => "tokenbus",
        Role::Edge => "tokenbus edge",
        Role::Worker => "tokenbus worker",
    };
    let nats = Nats::connect(&config.nats, name, Patience::Forever).await?;
    metrics.register(|registry| nats.register(registry));
    keep_nats_credentials_current(&config, &nats, &tasks);
    let own_worker = match role {
        Role::All | Role::Worker => Some(start_workers(&config, &nats, &metrics, &tasks).await?),
        Role::Edge => None,
    };
    let edge_id = config.http.edge_id.clone();
    let replies = if edge_id.is_empty() { Replies::new() } else { Replies::to(edge_id) };
    if role != Role::Worker {
        let needed = permission::needed_by_edge(&config.nats.inbox_prefix(), replies.waiter());
        tasks.spawn("check of the gateway's permissions", permissions::guard(nats.clone(), needed, tasks.stop()));
    }
    let backend = Backend::new(nats, replies, config.http.deadline).with_worker_key(config.nats.worker_key.clone());
    let backend = Arc::new(match own_worker {
        Some(start) => backend.with_own_worker(start),
        None => backend,
    });
    if role != Role::Worker {
        let (guarded, stop) = (Arc::clone(&backend), tasks.stop());
        tasks.spawn("check of the gateway's server", async move { guarded.guard_server(stop).await });
    }
    if let Some(address) = config.http.metrics_listen {
        let gateway = Gateway::new(Arc::clone(&backend), metrics.clone(), Served::MetricsOnly)?;
        let gateway = gateway.with_leaving(tasks.leaving());
        let listener = listen(address, "http.metrics_listen")?;
        info!("metrics on http://{}/metrics", listener.local_addr()?);
        let run = gateway::run(listener, Arc::new(gateway), Limits::default(), None, tasks.stop());
        listen_until_stopped(&tasks, "metrics", run);
    }
    if role != Role::Worker {
        start_edge(&config, backend, metrics, descriptors, &tasks).await?;
    }
    Ok(())
}

fn keep_log_current(running: Running, metrics: &Metrics, tasks: &Tasks) {
    let Running { logging, settings } = running;
    metrics.register(|registry| registry.register_collector(Box::new(logging.dropped.clone())));
    let (reload, stop) = (tasks.reload(), tasks.stop());
    tasks.spawn("log", async move {
        logging.keep_current(settings, reload, stop).await;
        Ok::<(), std::convert::Infallible>(())
    });
}

fn keep_nats_credentials_current(config: &Config, nats: &Nats, tasks: &Tasks) {
    let kept = keep_credentials_current(nats.clone(), config.nats.clone(), tasks.reload(), tasks.stop());
    tasks.spawn("NATS credentials", async move {
        kept.await;
        Ok::<(), std::convert::Infallible>(())
    });
}

fn keep_authorities_current(config: &Config, client: &Client, tasks: &Tasks) {
    let kept = Authorities::keep_current(client.clone(), config.oauth.ca.clone(), tasks.reload(), tasks.stop());
    tasks.spawn("authorities of providers", async move {
        kept.await;
        Ok::<(), std::convert::Infallible>(())
    });
}

async fn start_workers(
    config: &Config,
    nats: &Nats,
    metrics: &Metrics,
    tasks: &Tasks,
) -> anyhow::Result<watch::Receiver<WorkerStart>> {
    let keyring = Keyring::load(&config.secrets).await?;
    if keyring.is_open_to_all() {
        warn!("all users of this machine can read the keyring; make its file private (`chmod o-r`)");
    }
    let store = Store::new(nats.clone(), Arc::new(keyring));
    let provider = provider::client(config).await?;
    keep_authorities_current(config, &provider, tasks);
    provider::log_unused_proxy(config);
    let measures = Measures::default();
    metrics.register(|registry| measures.register(registry));
    let bearers = Bearers::connect(config, &provider).await?;
    let context = Arc::new(Context {
        nats: nats.clone(),
        store,
        provider,
        auth: Authenticator::new(nats.clone(), bearers, config.auth.member_scopes.clone()),
        receivers: provider::receivers(config)?,
        config: config.clone(),
        clock: BusClock::default(),
        sessions: context::Sessions::default(),
        measures,
        replies: Replies::to_worker(),
        reads: Reads::default(),
        wakeups: Wakeups::default(),
        limits: context::Limits {
            refreshes: RefreshLimiter::new(config.refresh.concurrency, config.refresh.rate),
            shares: Shares::new(config.worker.concurrency),
            unsent: UnsentRefreshes::default(),
            needs: Needs::default(),
            pending_logins: PendingLogins::default(),
            connections: context::ConnectionCounts::default(),
            events: context::EventBuckets::default(),
            node_calls: context::Calls::of_nodes(),
            gateway_calls: context::Calls::of_gateways(),
            command_calls: context::Calls::of_commands(),
            lists: context::Calls::lists(),
            waiting_calls: Arc::default(),
            all_waiting_calls: Semaphore::new(context::WAITING_CALLS),
        },
        room: context::Room::default(),
        restarts: context::Restarts::default(),
        data_is_gone: AtomicBool::default(),
        hangups: tasks.reload(),
    });
    let (started, start) = watch::channel(Err("it prepares streams and keys".to_owned()));
    let stop = tasks.stop();
    tasks.spawn("worker", async move {
        if !Box::pin(prepare(&context, &started, &stop)).await? {
            return Ok(());
        }
        drop(started.send_replace(Ok(())));
        info!(curve_key = context.store.keyring.seal_to(), "ready for commands and calls");
        let (replies, nats) = (context.replies.clone(), context.nats.clone());
        let work = async {
            let calls = rpc::serve(Arc::clone(&context), stop.clone());
            let (calls, commands) = tokio::join!(calls, worker::run(Arc::clone(&context), stop));
            calls.and(commands)
        };
        tokio::select! {
            ended = work => ended.map_err(PrepareError::Calls),
            ended = replies.receive(&nats) => ended.map_err(PrepareError::Answers),
            never = context.auth.watch() => match never {},
            never = context.store.names.watch() => match never {},
            never = context.store.configured.watch() => match never {},
        }
    });
    Ok(start)
}

/// Prepares streams, buckets and keys, and retries while NATS is unavailable. Returns false if stopped meanwhile.
async fn prepare(
    context: &Context,
    started: &watch::Sender<WorkerStart>,
    stop: &CancellationToken,
) -> Result<bool, PrepareError> {
    // The client connects in the background. A first short wait avoids a warning about a normal start.
    let _ = tokio::time::timeout(PREPARE_RETRY, context.nats.client().flush()).await;
    let mut last_reason = String::new();
    loop {
        match worker::prepare(context).await {
            Ok(()) => return Ok(true),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => {
                let reason = telemetry::describe_error(&error);
                if reason != last_reason {
                    warn!("not ready: {reason}; trying again");
                    drop(started.send_replace(Err(reason.clone())));
                }
                last_reason = reason;
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(PREPARE_RETRY) => {}
        }
    }
}

async fn start_edge(
    config: &Config,
    backend: Arc<Backend>,
    metrics: Metrics,
    descriptors: usize,
    tasks: &Tasks,
) -> anyhow::Result<()> {
    let served = if config.http.metrics_listen.is_some() { Served::WithoutMetrics } else { Served::All };
    let gateway = Gateway::new(Arc::clone(&backend), metrics, served)?;
    let tls = certificates(&config.http, tasks).await?;
    let listener = listen(config.http.listen, "http.listen")?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let own_url = format!("{scheme}://{}", listener.local_addr()?);
    let public_url = config.http.browser_url().map_or_else(|| own_url.parse(), Ok)?;
    let gateway = gateway.with_public_url(config.http.below_base_path(public_url));
    let gateway = gateway.with_base_path(config.http.base_path.clone()).with_leaving(tasks.leaving());
    let gateway = Arc::new(gateway);
    announce(&own_url);
    let limits = limits(&config.http, descriptors);
    let (done, stop) = (CancellationToken::new(), tasks.stop());
    tasks.spawn("answers", {
        let (done, stop) = (done.clone(), stop.clone());
        async move {
            tokio::select! {
                ended = backend.receive() => ended,
                () = done.cancelled() => Ok(()),
            }?;
            stop.cancelled().await;
            Ok::<(), async_nats::Error>(())
        }
    });
    listen_until_stopped(tasks, "gateway", async move {
        let drained = gateway::run(listener, gateway, limits, tls, stop).await;
        // Running requests still needed answers until here.
        done.cancel();
        drained
    });
    Ok(())
}

/// Loads the gateway's certificate, and reloads it when its files change.
async fn certificates(settings: &Http, tasks: &Tasks) -> anyhow::Result<Option<Arc<Certificates>>> {
    let loaded = Certificates::load(&settings.tls_cert, &settings.tls_key).await?;
    let Some(tls) = loaded.map(Arc::new) else { return Ok(None) };
    let (kept, reload, stop) = (Arc::clone(&tls), tasks.reload(), tasks.stop());
    tasks.spawn("certificates", async move {
        kept.keep_current(gateway::CERTIFICATE_CHECK_INTERVAL, reload, stop).await;
        Ok::<(), std::convert::Infallible>(())
    });
    Ok(Some(tls))
}

/// Prints the gateway's address. Standard output may have a reader that stalls, no reader, or a full disk: the gateway starts all
/// the same.
fn announce(own_url: &str) {
    let line = format!("listening on {own_url}");
    // A process without a thread for it runs without the line, too.
    drop(thread::Builder::new().name("announce".to_owned()).spawn(move || print_line(&line)));
}

fn limits(settings: &Http, descriptors: usize) -> Limits {
    Limits {
        connections: descriptors::connections(settings.max_connections, descriptors),
        connections_per_address: settings.max_connections_per_address,
        idle_timeout: settings.idle_timeout,
        // A command may take the whole deadline, and its answer needs time to arrive.
        request_timeout: settings.deadline + Duration::from_secs(5),
        drain: settings.drain,
        address_rate: Rate { per_second: settings.address_rate, burst: settings.address_burst },
        credential_rate: Rate { per_second: settings.credential_rate, burst: settings.credential_burst },
        trusted_proxies: settings.trusted_proxies.clone(),
        proxy_protocol: settings.proxy_protocol,
        headers: settings.max_header,
        ..Limits::default()
    }
}

fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    let bound = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        // As the library does: a port may be taken again right after a restart.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    bound().with_context(|| format!("{setting} {address}"))
}

fn listen_until_stopped(tasks: &Tasks, name: &'static str, listening: impl Future<Output = Drain> + Send + 'static) {
    tasks.spawn(name, async move {
        listening.await;
        Ok::<(), std::convert::Infallible>(())
    });
}
