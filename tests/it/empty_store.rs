//! NATS comes back without its data.

use std::path::Path;

use async_nats::jetstream;
use futures_util::StreamExt as _;
use url::Url;

use crate::ask::get;
use crate::nats_operator::ROOT;
use crate::provider::Provider;
use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};
use crate::support::wait::eventually;
use crate::world::World;

#[tokio::test]
async fn o18_an_empty_store_that_no_operator_has_confirmed_is_named_until_setup_runs() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let [as_worker, as_setup] = ["worker", "setup"].map(|user| settings(&nats, user, &keys));
    run(&as_worker, &["keys", "generate", "--out", keys.to_str().expect("a path of plain letters")]).await;
    let start = async |log: &Path| {
        let mut process = Running::start(Path::new(PROGRAM), log, |command| {
            command.envs(&as_worker).args(["serve", "--role", "all"]);
        });
        let url = process.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        (process, url.join("readyz").expect("a URL"))
    };
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let readiness = async |url: &Url| {
        let answer = http.get(url.clone()).send().await.expect("the gateway answers");
        (answer.status().as_u16(), answer.text().await.expect("a whole answer"))
    };
    let doctor = async || {
        let mut command = tokio::process::Command::new(PROGRAM);
        let output = command.envs(&as_worker).args(["doctor", "--role", "worker"]).output().await;
        String::from_utf8_lossy(&output.expect("the program starts").stdout).into_owned()
    };

    let log = folder.path().join("first.log");
    let (_first, url) = start(&log).await;
    eventually("the readiness names it", async || readiness(&url).await.1.contains("NATS came back without its data"))
        .await;
    assert_eq!(readiness(&url).await.0, 503);
    let text = std::fs::read_to_string(&log).expect("a log");
    assert!(text.lines().any(|line| line.contains("ERROR") && line.contains("the store is empty")), "{text}");
    assert!(doctor().await.contains("the store is empty"));

    // A restart does not hide it.
    let (_second, other) = start(&folder.path().join("second.log")).await;
    eventually("the readiness names it", async || readiness(&other).await.1.contains("`tokenbus setup`")).await;

    // The store that is gone may have had this key.
    for path in ["oauth-connections", "odd/oauth-config", "odd/oauth-token/one"] {
        let url = url.join(&format!("hub/integrations/{path}")).expect("a URL");
        let answer = http.get(url).header("x-api-key", format!("tb_0123456789ab_{}", "s".repeat(43))).send().await;
        let answer = answer.expect("the gateway answers");
        let status = answer.status();
        let text = answer.text().await.expect("a whole answer");
        assert!(status == 503 && text.contains("the store is empty"), "{path}: {status} {text}");
    }

    let output = tokio::process::Command::new(PROGRAM).envs(&as_setup).arg("setup").output().await;
    let output = output.expect("the program starts");
    let notes = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && notes.contains("the store that a worker made is empty"), "{notes}");
    for url in [&url, &other] {
        eventually("the gateway is ready", async || readiness(url).await.0 == 200).await;
    }
    assert!(!doctor().await.contains("the store is empty"));
}

/// A worker creates the bucket `oauth_meta` before it stores who made it.
#[tokio::test]
async fn o18_a_worker_that_dies_early_does_not_hide_that_the_store_is_empty() {
    let nats = Nats::edited(&[ROOT], &["root"]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let [as_worker, as_setup] = ["worker", "setup"].map(|user| settings(&nats, user, &keys));
    run(&as_worker, &["keys", "generate", "--out", keys.to_str().expect("a path of plain letters")]).await;
    run(&as_setup, &["setup"]).await;
    let bus = jetstream::new(nats.connect("root").await);
    let mut names: Vec<String> = bus.stream_names().map(|name| name.expect("a name")).collect().await;
    names.retain(|name| name != "KV_oauth_meta");
    for name in &names {
        bus.delete_stream(name).await.expect("the stream is deleted");
    }
    bus.client().request("$JS.API.STREAM.PURGE.KV_oauth_meta", "".into()).await.expect("the bucket is empty");
    let log = folder.path().join("log");
    let _worker = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(&as_worker).args(["serve", "--role", "worker"]);
    });
    let text = || std::fs::read_to_string(&log).expect("a log");
    eventually("the log names it", async || text().contains("the store is empty")).await;
    assert!(names.len() > 5 && !text().contains("older form"), "{}", text());
}

#[tokio::test]
async fn o18_a_running_worker_names_the_loss_of_its_store() {
    let mut world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let nats = &mut world.tokenbus.nats;
    nats.kill().await;
    std::fs::remove_dir_all(nats.store().join("jetstream")).expect("the store is removed");
    nats.restart_once_killed().await;
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let url = world.tokenbus.endpoint("/readyz");
    let is_named = async || {
        let answer = http.get(url.clone()).send().await.expect("the gateway answers");
        answer.status() == 503 && answer.text().await.is_ok_and(|text| text.contains("NATS came back without its data"))
    };
    eventually("the readiness names it", is_named).await;
    for path in ["odd/oauth-token/one", "odd/oauth-login/two", "odd/oauth-refresh-token/one", "oauth-connections"] {
        let answer = get(&world.tokenbus, &world.tokenbus.key, path).await;
        answer.assert_error(503, "NATS came back without the data of tokenbus");
    }
    // It is no full disk.
    let settings = settings(&world.tokenbus.nats, "worker", &world.tokenbus.keys_file());
    let output =
        tokio::process::Command::new(PROGRAM).envs(settings).args(["doctor", "--role", "worker"]).output().await;
    let found = String::from_utf8_lossy(&output.expect("the program starts").stdout).into_owned();
    assert!(found.contains("is missing") && !found.contains("free space"), "{found}");
    let lines =
        || world.tokenbus.log().lines().filter(|line| line.contains("are gone")).map(str::to_owned).collect::<Vec<_>>();
    eventually("the log names it", async || lines().iter().any(|line| line.contains("ERROR"))).await;
    assert_eq!(lines().len(), 1, "once: {:?}", lines());
}
