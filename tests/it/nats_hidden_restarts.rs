//! Servers that would hide a restart of the server with the streams. With queues that may lose commands in a restart
//! (`persist_mode: async`), workers and gateways refuse to start on them.

use std::collections::HashMap;
use std::process::Output;

use async_nats::jetstream::stream::{Config, PersistenceMode};
use tokio::process::Command;
use tokio::time::timeout;

use crate::bus::Bus;
use crate::fleet::{Fleet, as_user};
use crate::nats_cluster::cluster_ports;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};
use crate::support::wait::{PATIENCE, eventually};

/// Accounts that the two servers share.
const ACCOUNTS: [&str; 2] = ["OAUTH", "EDGE"];

/// A server without JetStream, which passes everything on to the server with the streams. `default_js_domain` lets it pass on
/// calls of JetStream too. `more` is further configuration.
async fn leaf(port: u16, more: &str) -> Nats {
    let account = |name: &str, user: &str| format!("{name} {{ users: [{{ user: {user}, password: pw }}] }}\n");
    let remote = |name: &str| format!("{{ url: \"nats-leaf://{name}:pw@127.0.0.1:{port}\", account: {name} }}\n");
    let [worker, edge] = [account("OAUTH", "worker"), account("EDGE", "edge")];
    let remotes = ACCOUNTS.map(remote).concat();
    let config = format!(
        "server_name: leaf\nhost: 127.0.0.1\ndefault_js_domain: {{ OAUTH: \"\" }}\n{more}\naccounts {{ {worker}{edge} }}\nleafnodes {{ remotes: [\n{remotes}] }}\n"
    );
    Nats::configured(&config).await
}

/// A server with JetStream, on which workers and gateways may work, to which leaf nodes connect on that port.
async fn hub(port: u16) -> Nats {
    let user = |name: &str| format!("{{ user: {name}, password: pw, account: {name} }}");
    let users = ACCOUNTS.map(user).join(", ");
    let listen = format!("leafnodes {{ listen: \"127.0.0.1:{port}\", authorization {{ users: [{users}] }} }}");
    let include = "include \"pings.conf\"\n";
    Nats::edited(&[(include, &format!("{include}{listen}\n"))], &[]).await
}

/// The end of a process that should refuse to start.
async fn ended(role: &str, settings: &HashMap<String, String>) -> Output {
    let mut command = Command::new(PROGRAM);
    let output = command.args(["serve", "--role", role]).envs(settings).kill_on_drop(true).output();
    timeout(PATIENCE, output).await.expect("it ends by itself").expect("the program starts")
}

async fn check(role: &str, settings: &HashMap<String, String>, what_to_do: &[&str]) {
    let output = ended(role, settings).await;
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{role}: {errors}");
    for part in what_to_do {
        assert!(errors.contains(part), "{role}: {part}: {errors}");
    }
}

#[tokio::test]
async fn workers_and_gateways_refuse_to_start_behind_a_server_that_hides_restarts() {
    let provider = Provider::generous().await;
    let ([port, ..], [cluster_port, ..]) = cluster_ports(1_600);
    let (fleet, _worker) = Fleet::start_on(hub(port).await, &provider.url).await.configure().await;
    // A gateway asks a worker whether restarts matter.
    fleet.ready().await;
    let in_a_cluster = format!("cluster {{ name: other, listen: \"127.0.0.1:{cluster_port}\" }}");
    for more in ["", &in_a_cluster] {
        let leaf = leaf(port, more).await;
        let behind = |user: &str| {
            let mut own = as_user(&fleet.settings, &fleet.nats, user);
            own.insert("TOKENBUS_NATS__URL".to_owned(), leaf.url.clone());
            own.insert("TOKENBUS_NATS__PASSWORD".to_owned(), "pw".to_owned());
            own
        };
        check(
            "worker",
            &behind("worker"),
            &[
                "OAUTH_COMMANDS",
                "`persist_mode: async`",
                "connect to that server without a leaf node",
                "`tokenbus backup --final`",
            ],
        )
        .await;
        let mut as_edge = behind("edge");
        as_edge.remove("TOKENBUS_SECRETS__KEYS_FILE");
        check(
            "edge",
            &as_edge,
            &["`persist_mode: async`", "leaf node", "set `nats.url` to the server that the workers use"],
        )
        .await;
    }
    // The usual server takes another one of both.
    fleet.worker().await;
}

#[tokio::test]
async fn a_worker_refuses_to_start_with_an_async_queue_in_a_cluster() {
    let (clients, routes) = cluster_ports(1_800);
    let nats = Nats::cluster(clients, routes).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let as_setup = settings(&nats, "setup", &keys);
    run(&as_setup, &["keys", "generate", "--out", keys.to_str().expect("a plain path")]).await;
    let setup = async_nats::jetstream::new(nats.connect("setup").await);
    eventually("the cluster agrees on a leader", async || setup.query_account().await.is_ok()).await;
    // One replica of each stream.
    run(&as_setup, &["setup"]).await;
    let queue = Bus::of(&nats).await.info("OAUTH_COMMANDS").await.config;
    setup.delete_stream("OAUTH_COMMANDS").await.expect("setup may delete it");
    let config = Config { persist_mode: Some(PersistenceMode::Async), ..queue };
    setup.create_stream(config).await.expect("a cluster takes it with one replica");
    check(
        "worker",
        &settings(&nats, "worker", &keys),
        &[
            "OAUTH_COMMANDS",
            "no cluster",
            "move the store into a new cluster with `tokenbus backup --final` and `tokenbus restore`",
        ],
    )
    .await;
}
