//! The processes under test: servers, workers and gateways, to be killed, stopped, cut off and started again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::faults::{Fault, Sizes, Step};
use crate::links::Cut;
use crate::process::Process;
use crate::provider_log::{Behaviour, ProviderLog};
use crate::routes::Routes;
use crate::store::Store;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, run, settings};
use crate::support::wait::eventually;

/// The integration of the tenants.
pub(crate) const INTEGRATION: &str = "odd";
const TENANTS: usize = 3;
/// Ports of gateways begin here: below those that the system assigns to others, because a gateway's port stays the same.
const PORTS: u16 = 20_000;
/// Deployments of this run. Each takes its ports from a range of its own, because they may run at the same time.
static DEPLOYMENTS: AtomicU16 = AtomicU16::new(0);
/// Ports of the servers of a cluster begin here: below those that the system assigns to others.
const SERVER_PORTS: u16 = 12_000;
/// Longest wait for the servers' answers about their health.
const HEALTHY: Duration = Duration::from_secs(2);
/// Longest wait for the name of a stream's leader.
const LEADER: Duration = Duration::from_secs(3);

pub(crate) struct Deployment {
    pub(crate) nats: Nats,
    /// Between the servers of a cluster.
    routes: Option<Routes>,
    /// Accounts of the tenants.
    pub(crate) accounts: Vec<String>,
    pub(crate) gateway_urls: Vec<Url>,
    /// All workers, then all gateways.
    processes: Vec<Process>,
    workers: usize,
    /// The server that was killed as a leader.
    leader: usize,
    pub(crate) store: Store,
    provider_log: Arc<ProviderLog>,
    folder: TempDir,
}

impl Deployment {
    /// Everything on one server started and set up, with two workers and two gateways.
    pub(crate) async fn start(provider_log: Arc<ProviderLog>) -> Self {
        Self::on((Nats::start().await, None), 2, provider_log).await
    }

    /// The same, and the server offers its own profiles.
    pub(crate) async fn start_profiled(provider_log: Arc<ProviderLog>) -> Self {
        let port = "server_name: tokenbus-local";
        let nats = Nats::edited(&[(port, &format!("{port}\nprof_port: -1"))], &[]).await;
        Self::on((nats, None), 2, provider_log).await
    }

    /// The same on a cluster of three servers, with three workers.
    pub(crate) async fn start_cluster(provider_log: Arc<ProviderLog>) -> Self {
        let from = SERVER_PORTS + 10 * own_number(800);
        let (routes, nodes) = Routes::between(free_ports(from), free_ports(from + 5)).await;
        Self::on((Nats::linked_cluster(nodes).await, Some(routes)), 3, provider_log).await
    }

    async fn on((nats, routes): (Nats, Option<Routes>), workers: usize, provider_log: Arc<ProviderLog>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys = folder.path().join("keys");
        let others = (1..TENANTS).map(|_| nkeys::KeyPair::new_account().public_key());
        let accounts: Vec<String> = std::iter::once(ACCOUNT.to_owned()).chain(others).collect();
        let own = |user: &str| {
            let mut own = settings(&nats, user, &keys);
            own.insert("TOKENBUS_AUTH__ADMIN_ACCOUNTS".to_owned(), json!(accounts).to_string());
            // `keys rotate` waits for logins that began with the key before.
            own.insert("TOKENBUS_OAUTH__LOGIN_TTL".to_owned(), "1m".to_owned());
            own.insert("TOKENBUS_NATS__REPLICAS".to_owned(), (1 + nats.others()).to_string());
            // A process reaches the servers through its links only.
            own.remove("TOKENBUS_NATS__ALLOW_PLAINTEXT");
            own
        };
        let [as_setup, as_worker, mut as_edge] = ["setup", "worker", "edge"].map(own);
        as_edge.remove("TOKENBUS_SECRETS__KEYS_FILE");
        run(&as_setup, &["keys", "generate", "--out", keys.to_str().expect("a plain path")]).await;
        let mut store = Store::new(as_setup, as_worker.clone(), folder.path().to_owned());
        store.set_up().await;

        let mut processes = Vec::new();
        for number in 1..=workers {
            let mut own = as_worker.clone();
            if number == 1 {
                // As during an upgrade: the other workers do not know a field of what it seals.
                own.insert("FAIL_LATER_RELEASE".to_owned(), "1".to_owned());
            }
            processes.push(Process::new("worker", number, own, folder.path()).await);
        }
        let from = PORTS + 16 * own_number(750) + 4 * DEPLOYMENTS.fetch_add(1, Ordering::Relaxed);
        let ports: [u16; 2] = free_ports(from);
        for (number, port) in (1..).zip(ports) {
            let mut own = as_edge.clone();
            own.insert("TOKENBUS_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{port}"));
            processes.push(Process::new("edge", number, own, folder.path()).await);
        }
        for process in &mut processes {
            process.start();
        }
        let urls = ports.map(|port| Url::parse(&format!("http://127.0.0.1:{port}")).expect("a URL"));
        Self {
            nats,
            routes,
            accounts,
            gateway_urls: urls.to_vec(),
            processes,
            workers,
            leader: 0,
            store,
            provider_log,
            folder,
        }
    }

    pub(crate) fn sizes(&self) -> Sizes {
        let gateways = self.processes.len() - self.workers;
        Sizes { servers: 1 + self.nats.others(), workers: self.workers, gateways }
    }

    /// Begins or ends a fault.
    pub(crate) async fn apply(&mut self, step: &Step) {
        match step.fault {
            Fault::KillWorker(number) => self.processes[number].kill_or_start(step.is_begin).await,
            Fault::KillGateway(number) => self.processes[self.workers + number].kill_or_start(step.is_begin).await,
            Fault::StopWorker(number) => self.processes[number].stop(step.is_begin),
            Fault::KillServer(number) => self.kill_or_start_server(number, step.is_begin).await,
            Fault::KillLeader(stream) => {
                if step.is_begin {
                    self.leader = timeout(LEADER, self.leader_of(stream)).await.ok().flatten().unwrap_or_default();
                }
                self.kill_or_start_server(self.leader, step.is_begin).await;
            }
            Fault::StopServer(number) => self.nats.signal_node(number, if step.is_begin { "STOP" } else { "CONT" }),
            Fault::CutServer(number, cut) => {
                let routes = self.routes.as_ref().expect("a cluster");
                routes.set(number, if step.is_begin { cut } else { Cut::Whole });
            }
            Fault::Cut(number, cut) => self.processes[number].links.set(if step.is_begin { cut } else { Cut::Whole }),
            Fault::Clock(number, seconds) => self.processes[number].set_clock(if step.is_begin { seconds } else { 0 }),
            Fault::Full if step.is_begin => self.store.fill(&self.nats),
            Fault::Full => self.store.empty(),
            Fault::NewKey if step.is_begin => self.store.add_key().await,
            Fault::NewKey => self.store.use_key().await,
            Fault::Provider(behaviour) => {
                self.provider_log.set(if step.is_begin { behaviour } else { Behaviour::Good });
            }
        }
    }

    async fn kill_or_start_server(&mut self, number: usize, is_begin: bool) {
        if is_begin {
            self.nats.kill_node(number).await;
        } else {
            self.nats.start_node(number).await;
        }
    }

    /// The number of the server that leads the stream.
    pub(crate) async fn leader_of(&self, stream: &str) -> Option<usize> {
        let client = self.nats.login_of("setup").connect(self.nats.url.split(',').collect::<Vec<_>>()).await.ok()?;
        let stream = jetstream::new(client).get_stream(stream).await.ok()?;
        // `tokenbus-1` to `tokenbus-3`.
        let leader = stream.cached_info().cluster.as_ref()?.leader.as_ref()?.clone();
        leader.rsplit('-').next()?.parse::<usize>().ok()?.checked_sub(1)
    }

    /// Names and process ids of all workers and gateways that run, and of the first server.
    pub(crate) fn pids(&self) -> Vec<(String, u32)> {
        let running = self.processes.iter().filter_map(|process| Some((process.name.clone(), process.pid()?)));
        running.chain([("nats-server".to_owned(), self.nats.pid())]).collect()
    }

    /// Names of processes that have ended by themselves.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        self.processes.iter_mut().filter_map(Process::ended).collect()
    }

    /// The log of the process with that number since its start.
    pub(crate) fn log_of(&self, number: usize) -> String {
        self.processes[number].log()
    }

    pub(crate) fn config(&self, provider_url: &str) -> Value {
        json!({
            "integration_id": INTEGRATION, "name": "Odd", "scopes": "read,write", "client_id": "client",
            "client_secret": "canary-client-secret",
            "auth_url": format!("{provider_url}/authorize"), "token_url": format!("{provider_url}/token"),
            "revocation_url": format!("{provider_url}/revoke"),
            "redirect_url": self.gateway_urls[0].join("hub/integrations/oauth-callback").expect("a URL"),
        })
    }

    /// Restarts all gateways, then all workers, one after another, as an operator does.
    pub(crate) async fn restart_processes(&mut self, is_ready: impl AsyncFn() -> bool) {
        for number in (self.workers..self.processes.len()).chain(0..self.workers) {
            self.processes[number].restart().await;
            eventually("the process is ready", async || self.processes[number].is_ready() && is_ready().await).await;
        }
    }

    /// Restarts all servers, one after another.
    pub(crate) async fn restart_servers(&mut self) {
        for number in 0..self.sizes().servers {
            self.nats.restart_node(number).await;
            eventually("all servers are healthy", async || self.are_healthy().await).await;
        }
    }

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.nats.connect("setup").await)
    }

    /// Returns true if every server says that it has all streams, and has caught up.
    async fn are_healthy(&self) -> bool {
        let system = self.nats.connect("system").await;
        let inbox = system.new_inbox();
        let answers = system.subscribe(inbox.clone()).await.expect("the server takes a subscription");
        system.publish_with_reply("$SYS.REQ.SERVER.PING.HEALTHZ", inbox, "".into()).await.expect("the client sends it");
        let healthy = answers.take_until(sleep(HEALTHY)).filter(|answer| {
            let answer: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
            std::future::ready(answer["data"]["status"] == "ok")
        });
        healthy.take(self.sizes().servers).count().await == self.sizes().servers
    }

    /// Waits until every stream has a leader and all replicas, and no command is queued or under way.
    pub(crate) async fn idle(&self) {
        let jetstream = self.jetstream().await;
        for name in ["OAUTH", "OAUTH_COMMANDS", "OAUTH_SCHEDULE", "OAUTH_EVENTS", "KV_oauth_connections"] {
            eventually("the stream has its replicas, and the queue is empty", async || {
                let Ok(stream) = jetstream.get_stream(name).await else { return false };
                let info = stream.cached_info();
                let is_whole = info.cluster.as_ref().is_none_or(|cluster| {
                    cluster.leader.is_some() && cluster.replicas.iter().all(|replica| replica.current)
                });
                is_whole && (name != "OAUTH_COMMANDS" || info.state.messages == 0)
            })
            .await;
        }
    }
}

impl Drop for Deployment {
    /// Keeps the logs of all processes after a failure.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.folder.disable_cleanup(true);
            println!("logs in {}", self.folder.path().display());
        }
    }
}

/// A number below `end` that another run on this machine hardly has.
fn own_number(end: u32) -> u16 {
    u16::try_from(std::process::id() % end).expect("a small number")
}

/// Free ports from this one on. Another run on this machine begins elsewhere.
fn free_ports<const N: usize>(from: u16) -> [u16; N] {
    let mut free = (from..).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}
