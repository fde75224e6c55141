//! Health, readiness, metrics and the OpenAPI document, also while the bus is unreachable and after it returns.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::ask::{ask, with_query};
use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::child::Running;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::eventually;
use crate::world::World;

#[tokio::test]
async fn a_gateway_without_a_bus_stays_alive_and_is_ready_once_the_bus_is_up() {
    let mut world = World::with(Provider::generous().await).await;
    world.tokenbus.restart_without_nats().await;
    let tokenbus = &world.tokenbus;
    let alive = ask(tokenbus.request(Method::GET, "healthz")).await;
    assert_eq!(alive.status, 200, "{}", alive.text);
    let callback = "hub/integrations/oauth-callback?code=c&state=s";
    for path in ["readyz", "hub/integrations/oauth-connections", callback] {
        let answer = ask(tokenbus.request(Method::GET, path).header("x-api-key", &tokenbus.key)).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.text);
        let seconds: u32 = answer.header("retry-after").parse().expect("seconds to wait");
        assert!(seconds > 0 && !answer.error().is_empty(), "{path}");
    }
    world.tokenbus.nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    assert_eq!(world.tokenbus.call(Method::GET, "odd/oauth-config").await.0, 200);
}

#[tokio::test]
async fn a_gateway_is_not_ready_while_a_bucket_that_logins_need_is_missing() {
    let mut world = World::with(Provider::generous().await).await;
    let nats = &mut world.tokenbus.nats;
    nats.kill().await;
    let folder = nats.store().join("jetstream/OAUTH/streams/KV_oauth_states");
    std::fs::remove_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    nats.restart_once_killed().await;
    let is_named = async || {
        let answer = ask(world.tokenbus.request(Method::GET, "readyz")).await;
        // The last result is cached for a moment.
        answer.status == 503 && answer.error().contains("KV_oauth_states is missing")
    };
    eventually("readiness names the missing stream or bucket", is_named).await;
}

#[tokio::test]
async fn a_bus_killed_during_a_login_loses_no_stored_connection() {
    let reached = Arc::new(Notify::new());
    let said = Arc::clone(&reached);
    let script = move |number, received: &Received| {
        if received.form().get("code").is_some_and(|code| code == "late") {
            said.notify_one();
            return Scripted::tokens(number).after(Duration::from_secs(1));
        }
        Scripted::tokens(number)
    };
    let mut world = World::with_settings(Provider::start(script).await, &[("HTTP__DEADLINE", "3s")]).await;
    assert_eq!(world.connect("kept").await.0, 200);
    let before = world.tokenbus.call(Method::GET, "oauth-connections").await;

    let login = world.login("kept").await;
    let query = [("code", "late"), ("state", login.state.as_str())];
    let callback = world.tokenbus.request(Method::GET, &with_query("hub/integrations/oauth-callback", &query));
    let mut waiting = JoinSet::new();
    waiting.spawn(ask(callback));
    reached.notified().await;
    world.tokenbus.nats.kill().await;
    let answer = waiting.join_next().await.expect("there is one").expect("the request ends");
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false), "{}", answer.text);
    let list = world.tokenbus.request(Method::GET, "hub/integrations/oauth-connections");
    let answer = ask(list.header("x-api-key", &world.tokenbus.key)).await;
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false), "{}", answer.text);

    world.tokenbus.nats.restart_once_killed().await;
    world.tokenbus.ready().await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    eventually("the command ends", async || bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    assert_eq!(world.provider.received().len(), 2, "the code was sent once");
    // The worker held the issued tokens until the bus was back, then stored the complete new connection.
    let after = world.read("kept").await;
    assert_eq!(
        (after.0.as_u16(), &after.1["access_token"], &after.1["status"]),
        (200, &"at-1".into(), &"active".into())
    );
    assert_ne!(world.tokenbus.call(Method::GET, "oauth-connections").await, before);
    let (_, newest) =
        bus.messages("OAUTH").await.into_iter().map(|it| (it.subject, it.sequence)).last().expect("records");
    assert_eq!(after.1["sequence"], newest, "record and bucket agree");
    assert_eq!(world.connect("kept").await.0, 200, "the next login works");
}

#[tokio::test]
async fn metrics_have_the_documented_families_and_bounded_labels() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("canary-name").await.0, 200);
    ask(world.tokenbus.request(Method::GET, "canary-path")).await;
    ask(world.tokenbus.request(Method::GET, "hub/integrations/oauth-callback?state=canary&code=canary")).await;
    let answer = ask(world.tokenbus.request(Method::GET, "metrics")).await;
    assert!(answer.header("content-type").starts_with("application/openmetrics-text"));
    for line in [
        "tokenbus_http_requests_total{route=\"/hub/integrations/oauth-callback\",method=\"GET\",code=\"200\"} 1",
        "tokenbus_http_requests_total{route=\"/hub/integrations/oauth-callback\",method=\"GET\",code=\"401\"} 1",
        "tokenbus_http_requests_total{route=\"unrouted\",method=\"GET\",code=\"404\"} 1",
        "tokenbus_callbacks_total{outcome=\"connected\"} 1",
        "tokenbus_callbacks_total{outcome=\"unauthorized\"} 1",
        "tokenbus_provider_seconds_count 1",
        "tokenbus_commands_redelivered_total 0",
    ] {
        assert!(answer.text.lines().any(|found| found == line), "`{line}` is not in\n{}", answer.text);
    }
    for family in [
        "tokenbus_commands_running ",
        "tokenbus_publish_seconds_count ",
        "tokenbus_schedule_lag_seconds_count ",
        "tokenbus_build_info{",
        "tokenbus_streams_nearly_full ",
    ] {
        assert!(answer.text.lines().any(|found| found.starts_with(family)), "no {family}in\n{}", answer.text);
    }
    assert!(!answer.text.contains("canary"), "{}", answer.text);
}

#[tokio::test]
async fn the_served_openapi_description_equals_the_printed_one() {
    let world = World::with(Provider::generous().await).await;
    let served = ask(world.tokenbus.request(Method::GET, "openapi.json")).await;
    assert_eq!((served.status, served.header("content-type")), (200, "application/json"));
    let printed: Value = serde_json::from_str(&world.tokenbus.tool(&["openapi"]).await).expect("it prints JSON");
    assert_eq!(served.json(), printed);
    assert!(printed["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")), "{printed}");
}

#[tokio::test]
async fn o19_metrics_count_logins_and_refreshes_by_integration_and_result() {
    let provider = Provider::start(|number, _| match number {
        0 | 1 => Scripted::tokens(number),
        _ => Scripted::json(400, &serde_json::json!({ "error": "invalid_grant" })),
    })
    .await;
    let world = World::with(provider).await;
    assert_eq!(world.connect("one").await.0, 200);
    let refresh = async || {
        let sent = world.provider.received().len();
        // A refresh soon after another one returns its tokens.
        eventually("the refresh token is sent", async || {
            world.tokenbus.call(Method::GET, "odd/oauth-refresh-token/one").await;
            world.provider.received().len() > sent
        })
        .await;
    };
    refresh().await;
    refresh().await;
    let expected = [
        "tokenbus_logins_total{integration=\"odd\",result=\"ok\"} 1",
        "tokenbus_refreshes_total{integration=\"odd\",result=\"ok\"} 1",
        "tokenbus_refreshes_total{integration=\"odd\",result=\"invalid_grant\"} 1",
        "tokenbus_nats_connected 1",
    ];
    eventually("all are counted", async || {
        let metrics = ask(world.tokenbus.request(Method::GET, "metrics")).await.text;
        expected.iter().all(|line| metrics.lines().any(|found| found == *line))
    })
    .await;
}

#[tokio::test]
async fn o14_a_worker_that_has_not_started_is_not_ready_while_another_one_is() {
    let world = World::with(Provider::generous().await).await;
    let nats = &world.tokenbus.nats;
    let setup = nats.connect("setup").await;
    // A worker that starts now waits until the streams are restored.
    let rebuild = r#"{"backup":"one","folder":"one"}"#;
    setup.request("$KV.oauth_meta.rebuild", rebuild.into()).await.expect("stored");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let log = folder.path().join("log");
    let settings = settings(nats, "worker", &world.tokenbus.keys_file());
    let _worker = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(&settings).env("TOKENBUS_HTTP__METRICS_LISTEN", "127.0.0.1:0");
        command.args(["serve", "--role", "worker"]);
    });
    let address = || {
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let (_, rest) = log.split_once("metrics on ")?;
        rest.split_once("/metrics").map(|(address, _)| format!("{address}/readyz"))
    };
    eventually("the worker serves metrics", async || address().is_some()).await;
    let address = address().expect("an address");
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    eventually("the worker says why it has not started", async || {
        let own = ask(http.get(&address)).await;
        own.status == 503 && own.text.contains("has not started: a rebuild of streams broke off")
    })
    .await;
    assert_eq!(ask(world.tokenbus.request(Method::GET, "readyz")).await.status, 200);
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("KV-Operation", "DEL");
    setup.request_with_headers("$KV.oauth_meta.rebuild", headers, "".into()).await.expect("stored");
    eventually("the worker is ready", async || ask(http.get(&address)).await.status == 200).await;
}

#[tokio::test]
async fn metrics_have_a_separate_listener_if_configured() {
    let settings = [("HTTP__METRICS_LISTEN", "127.0.0.1:0")];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    let log = world.tokenbus.log();
    let address = log.split_once("metrics on ").and_then(|(_, rest)| rest.split_whitespace().next());
    let address = address.unwrap_or_else(|| panic!("no address of metrics in {log}")).to_owned();
    let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let own = ask(http.get(&address)).await;
    assert!(own.status == 200 && own.text.contains("tokenbus_commands_running"), "{}", own.text);
    ask(world.tokenbus.request(Method::GET, "metrics")).await.assert_error(404, "nothing at this path");
    let elsewhere = address.replace("/metrics", "/hub/integrations/oauth-config");
    ask(http.get(&elsewhere).header("x-api-key", &world.tokenbus.key)).await.assert_error(404, "nothing at this path");
}

#[tokio::test]
async fn the_log_has_one_json_object_per_line_if_configured() {
    let world = World::with_settings(Provider::generous().await, &[("LOG__FORMAT", "json")]).await;
    assert_eq!(world.connect("one").await.0, 200);
    let log = world.tokenbus.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("a line is JSON")).collect();
    assert!(lines.iter().any(|line| line["route"] == "/hub/integrations/oauth-callback"), "{log}");
}
