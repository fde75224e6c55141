//! NATS comes back without its data.

use std::path::Path;

use url::Url;

use crate::ask::get;
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

    run(&as_setup, &["setup"]).await;
    for url in [&url, &other] {
        eventually("the gateway is ready", async || readiness(url).await.0 == 200).await;
    }
    assert!(!doctor().await.contains("the store is empty"));
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
    let lines =
        || world.tokenbus.log().lines().filter(|line| line.contains("are gone")).map(str::to_owned).collect::<Vec<_>>();
    eventually("the log names it", async || lines().iter().any(|line| line.contains("ERROR"))).await;
    assert_eq!(lines().len(), 1, "once: {:?}", lines());
}
