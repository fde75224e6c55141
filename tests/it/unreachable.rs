//! Providers to which no connection can be opened for some time, for each reason that `ConnectFailure` names. `unsent` has the
//! closed port. The code or refresh token never left, so neither is lost; log and event name the reason.

mod front;

use std::io::Write as _;
use std::path::Path;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use self::front::{Front, Trouble};
use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Provider, Scripted};
use crate::support::child::Running;
use crate::support::tokenbus::PROGRAM;

/// The log's line after a failed try.
const TRIES_AGAIN: &str = "no connection to the provider; trying again";

/// Runs a program that sees other files as `/etc/hosts` and `/etc/resolv.conf`, and finds no server of names.
const OTHER_HOSTS: &str =
    r#"mount --bind "$1/hosts" /etc/hosts && mount --bind "$1/resolv.conf" /etc/resolv.conf && shift && exec "$@""#;

/// A provider that closes each connection, so that each request opens one.
async fn provider() -> Provider {
    Provider::start(|number, _| {
        let mut tokens = Scripted::tokens(number);
        tokens.headers.push(("connection", "close".to_owned()));
        tokens
    })
    .await
}

/// A bus and an edge whose workers reach the provider through the front.
async fn fleet(front: &Front, folder: &TempDir) -> Fleet {
    let mut fleet = Fleet::start(&front.url).await;
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &front.ca).expect("the folder can be written");
    fleet.settings.insert("TOKENBUS_OAUTH__CA".to_owned(), ca.display().to_string());
    fleet.settings.insert("TOKENBUS_OAUTH__PROXY".to_owned(), front.proxy.clone());
    let hosts = r#"["localhost", "provider.test"]"#;
    fleet.settings.insert("TOKENBUS_OAUTH__ALLOWED_HOSTS".to_owned(), hosts.to_owned());
    fleet
}

async fn put(fleet: &Fleet, timeout: u64) {
    let mut config = fleet.config();
    config["timeout"] = json!(timeout);
    assert_eq!(fleet.put(&fleet.admin_keys[0], &config).await.0, StatusCode::OK);
}

/// While nothing is open a login fails and says why. Once it is open, neither a login nor a refresh is lost that began before.
async fn check(fleet: &Fleet, log: impl Fn() -> String, provider: &Provider, set_open: impl Fn(bool), reason: &str) {
    set_open(false);
    put(fleet, 1).await;
    let (status, body) = fleet.arrive(&fleet.login("lost").await, "canary-code").await;
    assert_eq!(status, StatusCode::BAD_GATEWAY, "{reason}: {body}");
    assert!(body.to_string().contains(reason), "{reason}: {body}");
    let failed = Bus::of(&fleet.nats).await.events("exchange_failed").await;
    let [event] = failed.as_slice() else { panic!("{reason}: one event: {failed:?}") };
    assert_eq!((&event["reason"], event.get("provider_status")), (&json!("provider_unreachable"), None), "{reason}");
    assert!(event["provider_detail"].as_str().is_some_and(|detail| detail.contains(reason)), "{reason}: {event}");
    assert!(log().contains(reason), "{reason}: {}", log());
    assert_eq!(provider.received().len(), 0, "{reason}: nothing was sent");

    put(fleet, 30).await;
    let tries = || {
        let log = log();
        log.lines().filter(|line| line.contains(TRIES_AGAIN) && line.contains(reason)).count()
    };
    let open_later = async |before: usize| {
        eventually("a try fails", async || tries() > before).await;
        set_open(true);
    };
    let login = async { fleet.arrive(&fleet.login("kept").await, "canary-code").await };
    let ((status, body), ()) = tokio::join!(login, open_later(tries()));
    assert_eq!(status, StatusCode::OK, "{reason}: {body}");
    assert_eq!(provider.received().len(), 1, "{reason}: the code was sent once");

    fleet.idle().await;
    Bus::of(&fleet.nats).await.age("kept", fleet.setting("TOKENBUS_SECRETS__KEYS_FILE").as_ref()).await;
    set_open(false);
    let refresh = async { fleet.get(&format!("{INTEGRATION}/oauth-refresh-token/kept")).await };
    let ((status, body), ()) = tokio::join!(refresh, open_later(tries()));
    assert_eq!((status, provider.received().len()), (StatusCode::OK, 2), "{reason}: {body}");
    assert!(!Value::to_string(&body).contains("127.0.0.1"), "{reason}: {body}");
}

#[tokio::test]
async fn o8_neither_handshakes_nor_certificates_nor_proxies_that_fail_for_some_time_cost_a_login() {
    for (trouble, reason) in [
        (Trouble::Handshake, "TLS handshake with the provider failed"),
        (Trouble::Certificate, "certificate of the provider has expired"),
        (Trouble::Proxy, "proxy refuses the connection; check oauth.proxy"),
    ] {
        let (provider, folder) = (provider().await, tempfile::tempdir().expect("a temporary folder"));
        let front = Front::of(&provider, trouble, "localhost").await;
        let fleet = fleet(&front, &folder).await;
        let worker = fleet.worker().await;
        check(&fleet, || worker.log(), &provider, |is_open| front.set_open(is_open), reason).await;
    }
}

#[tokio::test]
async fn o8_a_name_that_does_not_resolve_for_some_time_costs_no_login() {
    let (provider, folder) = (provider().await, tempfile::tempdir().expect("a temporary folder"));
    let hosts = folder.path().join("hosts");
    let set_open = |is_open: bool| {
        let text = if is_open { "127.0.0.1 provider.test\n" } else { "" };
        std::fs::write(&hosts, text).expect("the folder can be written");
    };
    set_open(false);
    std::fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.1\n").expect("the folder can be written");
    let program = |program: &str| {
        let arguments = ["-rm", "sh", "-c", OTHER_HOSTS, "sh", folder.path().to_str().expect("a plain path"), program];
        arguments.map(str::to_owned)
    };
    // Only where users may mount files of their own.
    let mut namespace = std::process::Command::new("unshare");
    if !namespace.args(program("true")).status().is_ok_and(|status| status.success()) {
        let _ = writeln!(std::io::stderr(), "skipped: unshare makes no namespace, so no name was resolved late");
        return;
    }
    let front = Front::of(&provider, Trouble::None, "provider.test").await;
    let fleet = fleet(&front, &folder).await;
    let log = folder.path().join("worker.log");
    let _worker = Running::start(Path::new("unshare"), &log, |command| {
        command.args(program(PROGRAM)).envs(&fleet.settings).args(["serve", "--role", "worker"]);
    });
    let log = || std::fs::read_to_string(&log).unwrap_or_default();
    eventually("the worker is ready", async || log().contains("ready for commands and calls")).await;
    check(&fleet, log, &provider, set_open, "name of the provider cannot be resolved").await;
}
