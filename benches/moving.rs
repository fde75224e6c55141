//! A store moves from one server to a new cluster of three: the time in which nothing is served. `cargo bench --bench moving`.
//!
//! The old server does not sync its writes, so that filling the store is fast. The move only reads from it. The cluster has the
//! shipped configuration.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(clippy::expect_used, clippy::panic, reason = "a bench that cannot continue panics with the reason")]
#![expect(clippy::indexing_slicing, reason = "the tests' modules index JSON")]

#[path = "../tests/support/fleet.rs"]
mod fleet;
#[path = "../tests/support/seed.rs"]
mod seed;
#[path = "../tests/support/support.rs"]
mod support;

use std::collections::HashMap;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use fleet::{Fleet, INTEGRATION};
use seed::Seed;
use support::child::{Running, signal};
use support::nats::Nats;
use support::tokenbus::{ACCOUNT, PROGRAM, run, settings};
use tokenbus::internals::config::env;
use tokenbus::subject::ConnectionKey;

/// Number of connections, unless `MOVED` sets another.
const MANY: usize = 100_000;
/// A month, in seconds: no refresh is due during the bench.
const LIFETIME: i64 = 30 * 86_400;
const PROVIDER: &str = "http://127.0.0.1:9";

#[tokio::main]
async fn main() {
    let many = env("MOVED").and_then(|text| text.parse().ok()).unwrap_or(MANY);
    let (fleet, mut worker) = Fleet::start_on(Nats::start_unsynced().await, PROVIDER).await.configure().await;
    let mut seed = Seed::on(&fleet, PROVIDER).await;
    let began = Instant::now();
    for number in 0..many {
        let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.{INTEGRATION}.c{number}")).expect("a key");
        seed.connection(&key, (LIFETIME, number)).await;
    }
    println!("{many} connections filled in {:.0} s", began.elapsed().as_secs_f64());
    let ports = || {
        let free: [TcpListener; 3] = std::array::from_fn(|_| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        free.map(|listener| listener.local_addr().expect("an address").port())
    };
    let cluster = Nats::cluster(ports(), ports()).await;
    let jetstream = async_nats::jetstream::new(cluster.connect("setup").await);
    while jetstream.query_account().await.is_err() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backup = folder.path().join("backup");
    let backup = backup.to_str().expect("a path of plain letters");

    let gap = Instant::now();
    signal(worker.pid(), "TERM");
    worker.process.ended().await;
    lap("the worker stops", gap);
    let began = Instant::now();
    back_up(&of(&fleet, &fleet.nats, "setup"), backup).await;
    lap("backup --final", began);
    let began = Instant::now();
    run(&of(&fleet, &cluster, "setup"), &["restore", backup]).await;
    lap("restore", began);
    let began = Instant::now();
    let log = folder.path().join("log");
    let _worker = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(of(&fleet, &cluster, "worker")).args(["serve", "--role", "worker"]);
    });
    while !std::fs::read_to_string(&log).is_ok_and(|log| log.contains("ready for commands and calls")) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    lap("a worker is ready, after its repair pass", began);
    lap("all together", gap);
    let bytes: u64 =
        std::fs::read_dir(backup).expect("the backup").flatten().filter_map(|it| Some(it.metadata().ok()?.len())).sum();
    println!("backup: {} MiB", bytes >> 20);
}

/// Settings of a process on that server or cluster, with the fleet's keyring.
fn of(fleet: &Fleet, nats: &Nats, user: &str) -> HashMap<String, String> {
    let mut settings = settings(nats, user, Path::new(fleet.setting("TOKENBUS_SECRETS__KEYS_FILE")));
    settings.retain(|name, _| !name.starts_with("TOKENBUS_NATS__MAX_BYTES__"));
    settings.insert("TOKENBUS_NATS__REPLICAS".to_owned(), if nats.others() > 0 { "3" } else { "1" }.to_owned());
    settings
}

fn lap(what: &str, began: Instant) {
    println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
}

/// Tries until the server has forgotten the worker's pulls.
async fn back_up(settings: &HashMap<String, String>, folder: &str) {
    let try_once = || async {
        let mut command = tokio::process::Command::new(PROGRAM);
        command.args(["backup", "--final", folder]).envs(settings).output().await.expect("the program starts")
    };
    let mut output = try_once().await;
    while !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(errors.contains("a worker takes commands"), "{errors}");
        tokio::time::sleep(Duration::from_millis(200)).await;
        output = try_once().await;
    }
}
