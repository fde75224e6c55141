//! Lists that a worker reads from a stream while its connection to the server is interrupted: they are whole.

use std::io::BufRead as _;
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::fleet::{Fleet, Worker};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::PATIENCE;

/// API keys: enough that their list does not pass within [`PASSES`] bytes.
const MANY: usize = 1_000;
/// Bytes that pass before the interruption: fewer than a page of the list has.
const PASSES: usize = 16 * 1024;
/// Length of the interruption: longer than a worker waits for an answer of the server.
const SILENCE: Duration = Duration::from_secs(4);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Nothing reaches the worker for a while.
    Silent,
    /// And then the connections end.
    Closed,
}

/// A TCP proxy between a worker and the server.
struct Link {
    url: String,
    flow: watch::Sender<Flow>,
    _tasks: JoinSet<()>,
}

#[derive(Debug, Clone, Copy)]
struct Flow {
    /// Bytes that may still reach the worker; `None` for any number.
    left: Option<usize>,
    /// A connection ends when this changes.
    connections: u32,
}

impl Link {
    async fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("nats://{}", listener.local_addr().expect("it is bound"));
        let flow = watch::Sender::new(Flow { left: None, connections: 0 });
        let (server, of_relays): (Arc<str>, _) = (server.trim_start_matches("nats://").into(), flow.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut relays = JoinSet::new();
            while let Ok((worker, _)) = listener.accept().await {
                relays.spawn(relay(worker, Arc::clone(&server), of_relays.clone()));
            }
        });
        Self { url, flow, _tasks: tasks }
    }

    /// Interrupts the link once so many bytes have passed.
    async fn interrupt(&self, cut: Cut) {
        self.flow.send_modify(|flow| flow.left = Some(PASSES));
        let mut flow = self.flow.subscribe();
        let passed = flow.wait_for(|flow| flow.left == Some(0));
        timeout(PATIENCE, passed).await.expect("the list is read").expect("the link is there");
        sleep(SILENCE).await;
        self.flow.send_modify(|flow| {
            flow.left = None;
            flow.connections += u32::from(cut == Cut::Closed);
        });
    }
}

async fn relay(worker: TcpStream, server: Arc<str>, flow: watch::Sender<Flow>) {
    let Ok(server) = TcpStream::connect(&*server).await else { return };
    let own = flow.borrow().connections;
    let ((mut from_worker, mut to_worker), (mut from_server, mut to_server)) =
        (worker.into_split(), server.into_split());
    let mut ended = flow.subscribe();
    let forward = async {
        let (mut chunk, mut may_pass) = (vec![0; 4 * 1024], flow.subscribe());
        while let Ok(read @ 1..) = from_server.read(&mut chunk).await {
            let open = may_pass.wait_for(|flow| flow.left != Some(0)).await.is_ok();
            if !open || to_worker.write_all(&chunk[..read]).await.is_err() {
                return;
            }
            flow.send_modify(|flow| flow.left = flow.left.map(|left| left.saturating_sub(read)));
        }
    };
    tokio::select! {
        () = forward => {}
        _ = tokio::io::copy(&mut from_worker, &mut to_server) => {}
        _ = ended.wait_for(|flow| flow.connections != own) => {}
    }
}

/// A worker behind a link, and no other.
async fn linked(fleet: &Fleet, mut direct: Worker) -> (Worker, Link) {
    direct.kill().await;
    let link = Link::to(&fleet.nats.url).await;
    let worker = fleet.worker_with(&[("TOKENBUS_NATS__URL", &link.url)]);
    worker.ready().await;
    fleet.ready().await;
    (worker, link)
}

/// Publishes the same message on all these subjects.
async fn publish(fleet: &Fleet, subjects: impl Iterator<Item = String>, message: &Value) {
    let jetstream: jetstream::Context = fleet.jetstream("worker").await;
    let mut sent = Vec::new();
    for subject in subjects {
        sent.push(jetstream.publish(subject, message.to_string().into()).await.expect("sent"));
    }
    for answer in sent {
        answer.await.expect("the stream takes it");
    }
}

/// Number of entries in the first answer to a list that is no refusal for the moment.
async fn listed(list: impl AsyncFn() -> Option<usize>) -> usize {
    let asked = async {
        loop {
            if let Some(entries) = list().await {
                return entries;
            }
        }
    };
    timeout(PATIENCE, asked).await.expect("the list is answered")
}

#[tokio::test]
async fn a_list_is_whole_after_an_interruption() {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let key = json!({
        "hash": "0".repeat(43), "account": ACCOUNT, "role": "member", "name": "one of many keys",
        "created": "2026-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z",
    });
    publish(&fleet, (0..MANY).map(|number| format!("$KV.oauth_api_keys.{number:012x}")), &key).await;
    let letter = json!({
        "subject": format!("ms.integration.oauth.{ACCOUNT}.odd.c.exchange"), "reason": "one of many letters",
        "delivered": 1, "time": "2026-01-01T00:00:00Z",
    });
    publish(&fleet, (0..MANY).map(|number| format!("oauth.dead.exchange.{ACCOUNT}.odd.c{number}")), &letter).await;
    let (_worker, link) = linked(&fleet, worker).await;
    let keys = async || {
        let (status, body) = fleet.request(Method::GET, "hub/api-keys?limit=1", &fleet.admin_keys[0], &json!({})).await;
        let total = body["results_total"].as_u64().filter(|_| status == StatusCode::OK)?;
        usize::try_from(total).ok()
    };
    let letters = async || {
        let output = fleet.cli_output(&["dead", "list", "--json"]).await;
        output.status.success().then(|| output.stdout.lines().count())
    };
    for cut in [Cut::Silent, Cut::Closed] {
        let (found, ()) = tokio::join!(listed(keys), link.interrupt(cut));
        // The admin of this account has a key.
        assert_eq!(found, MANY + 1, "{cut:?}");
        let (found, ()) = tokio::join!(listed(letters), link.interrupt(cut));
        assert_eq!(found, MANY, "{cut:?}");
    }
}
