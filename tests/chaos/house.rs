//! The processes under test: servers, workers and gateways, to be killed, stopped and started again.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_nats::jetstream;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use crate::book::{Book, Mood};
use crate::faults::{Fault, Sizes, Step};
use crate::support::child::{Running, signal};
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, run, settings};
use crate::support::wait::eventually;

/// The integration of the tenants.
pub(crate) const INTEGRATION: &str = "odd";
const TENANTS: usize = 3;
/// Ports of gateways begin here: below those that the system assigns to others, because a gateway's port stays the same.
const PORTS: u16 = 20_000;

/// A process that may be away.
struct Process {
    name: String,
    role: &'static str,
    settings: HashMap<String, String>,
    starts: usize,
    running: Option<Running>,
}

pub(crate) struct House {
    pub(crate) nats: Nats,
    /// Accounts of the tenants.
    pub(crate) accounts: Vec<String>,
    pub(crate) gateway_urls: Vec<Url>,
    workers: Vec<Process>,
    gateways: Vec<Process>,
    book: Arc<Book>,
    folder: TempDir,
}

impl House {
    /// Everything started and set up, with two workers and two gateways.
    pub(crate) async fn start(nats: Nats, book: Arc<Book>) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys = folder.path().join("keys");
        let others = (1..TENANTS).map(|_| nkeys::KeyPair::new_account().public_key());
        let accounts: Vec<String> = std::iter::once(ACCOUNT.to_owned()).chain(others).collect();
        let admins = json!(accounts).to_string();
        let own = |user: &str| {
            let mut own = settings(&nats, user, &keys);
            own.insert("TOKENBUS_AUTH__ADMIN_ACCOUNTS".to_owned(), admins.clone());
            own
        };
        let [as_setup, as_worker, mut as_edge] = ["setup", "worker", "edge"].map(own);
        run(&as_setup, &["keys", "generate", "--out", keys.to_str().expect("a plain path")]).await;
        run(&as_setup, &["setup"]).await;
        as_edge.remove("TOKENBUS_SECRETS__KEYS_FILE");

        let workers = (1..=2).map(|number| Process::new("worker", number, as_worker.clone())).collect();
        let ports = free_ports();
        let gateways = ports.iter().zip(1..).map(|(port, number)| {
            let mut own = as_edge.clone();
            own.insert("TOKENBUS_HTTP__LISTEN".to_owned(), format!("127.0.0.1:{port}"));
            Process::new("edge", number, own)
        });
        let gateways = gateways.collect();
        let urls = ports.map(|port| Url::parse(&format!("http://127.0.0.1:{port}")).expect("a URL"));
        let mut house =
            Self { nats, accounts, gateway_urls: urls.to_vec(), workers, gateways, settings: as_worker, book, folder };
        house.start_missing();
        house
    }

    pub(crate) fn sizes(&self) -> Sizes {
        Sizes { servers: 1 + self.nats.others(), workers: self.workers.len(), gateways: self.gateways.len() }
    }

    fn start_missing(&mut self) {
        for process in self.workers.iter_mut().chain(&mut self.gateways) {
            process.start(self.folder.path());
        }
    }

    /// Begins or ends a fault.
    pub(crate) async fn apply(&mut self, step: &Step) {
        let folder = self.folder.path();
        match (step.fault, step.is_begin) {
            (Fault::KillWorker(number), true) => self.workers[number].kill().await,
            (Fault::KillWorker(number), false) => self.workers[number].start(folder),
            (Fault::KillGateway(number), true) => self.gateways[number].kill().await,
            (Fault::KillGateway(number), false) => self.gateways[number].start(folder),
            (Fault::StopWorker(number), true) => self.workers[number].stop(true),
            (Fault::StopWorker(number), false) => self.workers[number].stop(false),
            (Fault::KillServer(_), true) => self.nats.kill().await,
            (Fault::KillServer(_), false) => self.nats.restart_once_killed().await,
            (Fault::Provider(mood), true) => self.book.set(mood),
            (Fault::Provider(_), false) => self.book.set(Mood::Good),
        }
    }

    /// Names of processes that have ended by themselves.
    pub(crate) fn ended(&mut self) -> Vec<String> {
        let all = self.workers.iter_mut().chain(&mut self.gateways);
        all.filter_map(|process| process.has_ended().then(|| process.name.clone())).collect()
    }

    /// The newest logs of all processes, for a failed run.
    pub(crate) fn keep_logs(self) -> std::path::PathBuf {
        self.folder.keep()
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

    pub(crate) async fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.nats.connect("setup").await)
    }

    /// Waits until no command is queued or under way.
    pub(crate) async fn idle(&self) {
        let jetstream = self.jetstream().await;
        eventually("the queue is empty", async || {
            let stream = jetstream.get_stream("OAUTH_COMMANDS").await;
            stream.is_ok_and(|stream| stream.cached_info().state.messages == 0)
        })
        .await;
    }
}

impl Process {
    fn new(role: &'static str, number: usize, settings: HashMap<String, String>) -> Self {
        let name = format!("{role} {number}");
        Self { name, role, settings, starts: 0, running: None }
    }

    fn start(&mut self, folder: &Path) {
        if self.running.is_some() {
            return;
        }
        self.starts += 1;
        let log = folder.join(format!("{}.{}.log", self.name.replace(' ', ""), self.starts));
        self.running = Some(Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(&self.settings).args(["serve", "--role", self.role]);
        }));
    }

    async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().await;
        }
    }

    fn stop(&mut self, is_stopped: bool) {
        if let Some(running) = &self.running {
            signal(running.pid(), if is_stopped { "STOP" } else { "CONT" });
        }
    }

    fn has_ended(&mut self) -> bool {
        self.running.as_mut().is_some_and(Running::has_ended)
    }
}

fn free_ports() -> [u16; 2] {
    // Another run on this machine begins elsewhere.
    let from = PORTS + u16::try_from(std::process::id() % 10_000).expect("a small number");
    let mut free = (from..).filter(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok());
    std::array::from_fn(|_| free.next().expect("a free port"))
}
