//! Proxies before providers and webhooks, and the process's limit of open files.

use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use tokio::net::TcpStream;
use url::Url;

use crate::provider::{Provider, Scripted};
use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};
use crate::support::wait::eventually;
use crate::world::World;

#[tokio::test]
async fn o9_webhooks_go_through_the_proxy_and_hosts_of_no_proxy_do_not() {
    // It answers each request itself.
    let proxy = Provider::start(|_, _| Scripted::new(204, "text/plain", "")).await;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode("canary webhook secret, 32 bytes."));
    let settings = [
        ("OAUTH__PROXY", proxy.url.as_str()),
        ("OAUTH__NO_PROXY", "[\"127.0.0.1\"]"),
        ("WEBHOOKS__URL", "http://localhost:9/hook"),
        ("WEBHOOKS__SECRET", &secret),
    ];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    assert_eq!(world.connect("one").await.0, 200);
    eventually("the webhook arrives at the proxy", async || proxy.received().iter().any(|it| it.path == "/hook")).await;
    assert_eq!(world.provider.received().len(), 1, "the provider is reached without the proxy");
    assert!(proxy.received().iter().all(|received| received.path == "/hook"));
}

#[tokio::test]
async fn o9_a_proxy_of_the_environment_is_named_once_and_not_used() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let as_setup = settings(&nats, "setup", &keys);
    run(&as_setup, &["keys", "generate", "--out", keys.to_str().expect("a path of plain letters")]).await;
    run(&as_setup, &["setup"]).await;
    for (proxy, lines) in [("", 1), ("http://127.0.0.1:9", 0)] {
        let log = folder.path().join(format!("log{lines}"));
        let _worker = Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(settings(&nats, "worker", &keys)).env("HTTPS_PROXY", "http://127.0.0.1:9");
            command.env("TOKENBUS_OAUTH__PROXY", proxy).args(["serve", "--role", "worker"]);
        });
        let text = || std::fs::read_to_string(&log).expect("a log");
        eventually("the worker is ready", async || text().contains("ready for commands and calls")).await;
        assert_eq!(text().matches("HTTPS_PROXY is set and not used").count(), lines, "{}", text());
    }
}

#[tokio::test]
async fn o15_a_gateway_at_its_limit_of_open_files_still_reaches_nats() {
    // Half of the descriptors is for NATS and the others.
    const FILES: usize = 128;
    let world = World::with(Provider::generous().await).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let mut gateway = Running::start(Path::new("sh"), &log, |command| {
        command.envs(settings(&world.tokenbus.nats, "edge", Path::new("")));
        command.args(["-c", &format!("ulimit -n {FILES}; exec \"$0\" serve --role edge"), PROGRAM]);
    });
    let url = gateway.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
    let text = || std::fs::read_to_string(&log).expect("a log");
    eventually("the log names the limit", async || text().contains("allows fewer connections")).await;
    let address = format!("127.0.0.1:{}", url.port().expect("a port"));
    let mut open = Vec::new();
    for _ in 0..2 * FILES {
        open.push(TcpStream::connect(&address).await.expect("the system accepts it"));
    }
    eventually("the log says that the limit is met", async || text().contains("further ones wait")).await;
    drop(open);
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let readyz = url.join("readyz").expect("a URL");
    let is_ready = async || http.get(readyz.clone()).send().await.is_ok_and(|answer| answer.status() == 200);
    eventually("the gateway answers again, and reaches NATS", is_ready).await;
    assert_eq!(text().matches("further ones wait").count(), 1, "{}", text());
    assert!(!text().contains("Too many open files"), "{}", text());
}
