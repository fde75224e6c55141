//! The bus, inspected by an operator with the `nats` CLI.

use crate::parts::nats_cli::NatsCli;
use crate::parts::world::{CONNECTION, INTEGRATION, World, text, token_subject};
use crate::support::root;
use crate::support::tokenbus::ACCOUNT;
use serde_json::Value;
use std::time::Duration;
use tokio::time::sleep;

/// As in `nats/README.md`.
const OPERATOR: &str = r#"nats --user operator --password "$NATS_OPERATOR_PASSWORD" --inbox-prefix _INBOX_operator"#;
const DEMO: &str = r#"nats --user demo --password "$NATS_DEMO_PASSWORD""#;

#[tokio::test]
async fn an_operator_inspects_a_connection() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    let connection = world.connect(CONNECTION).await;
    let key = format!("{ACCOUNT}.{INTEGRATION}.{CONNECTION}");

    let listed = cli.prints(&format!("{OPERATOR} kv ls oauth_connections")).await;
    assert_eq!(listed.trim(), key);

    let printed = cli.prints(&format!("{OPERATOR} kv get oauth_connections {key} --raw")).await;
    let stored: Value = serde_json::from_str(&printed).expect("the value is JSON");
    for field in ["sequence", "subject", "modified", "status"] {
        assert_eq!(stored[field], connection[field], "{field}");
    }
    assert!(text(&stored, "sealed").starts_with("v1."), "the connection is not sealed");
    for field in ["access_token", "refresh_token"] {
        assert!(!printed.contains(text(&connection, field)), "{field} is in clear");
    }

    let config = cli.prints(&format!("{OPERATOR} kv get oauth_configs {INTEGRATION} --raw")).await;
    let config: Value = serde_json::from_str(&config).expect("the value is JSON");
    assert!(text(&config, "sealed").starts_with("v1."), "the config is not sealed");
    assert!(config["config"].get("client_secret").is_none(), "the copy for operators has the client's secret");
}

#[tokio::test]
async fn an_operator_inspects_the_streams() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    world.connect(CONNECTION).await;

    let shown = cli.prints(&format!("{OPERATOR} stream info OAUTH")).await;
    assert!(shown.contains("Information for Stream OAUTH"), "{shown}");
    let state = cli.prints(&format!("{OPERATOR} stream info OAUTH --json")).await;
    let state: Value = serde_json::from_str(&state).expect("the state is JSON");
    assert_eq!(state["state"]["messages"], 2, "one config and one connection");

    let listed = cli.prints(&format!("{OPERATOR} stream ls --names")).await;
    for stream in ["OAUTH", "OAUTH_COMMANDS", "OAUTH_DEAD", "OAUTH_EVENTS", "OAUTH_SCHEDULE"] {
        assert!(listed.lines().any(|line| line.trim() == stream), "{stream} is not in {listed}");
    }
    let events = cli.prints(&format!("{OPERATOR} stream subjects OAUTH_EVENTS --names")).await;
    let event = format!("ms.oauth.{ACCOUNT}.event.{INTEGRATION}.{CONNECTION}.connected");
    assert!(events.contains(&event), "{event} is not in {events}");
}

/// The documented commands for inspection, and those documented as refused.
#[tokio::test]
async fn an_operator_inspects_everything_and_changes_nothing() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    world.connect(CONNECTION).await;
    for line in [
        "kv ls",
        "kv info oauth_connections",
        "kv status oauth_configs",
        "kv get oauth_meta keys --raw",
        "stream report",
        "stream state OAUTH",
        "stream info OAUTH_COMMANDS",
        "stream info KV_oauth_states",
        "stream get OAUTH_EVENTS 1",
        "consumer ls OAUTH_COMMANDS",
        "consumer info OAUTH_COMMANDS exchange",
        "consumer report OAUTH_COMMANDS",
        "account info",
    ] {
        let printed = cli.prints(&format!("{OPERATOR} {line}")).await;
        assert!(!printed.trim().is_empty(), "{line}");
    }
    let key = format!("{ACCOUNT}.{INTEGRATION}.{CONNECTION}");
    for line in [
        format!("kv put oauth_connections {key} x"),
        format!("kv del oauth_connections {key} --force"),
        format!("kv purge oauth_connections {key} --force"),
        "kv get oauth_api_keys x".to_owned(),
        "kv ls oauth_states".to_owned(),
        "kv add mine".to_owned(),
        "stream purge OAUTH --force".to_owned(),
        "stream rm OAUTH_EVENTS --force".to_owned(),
        "stream rmm OAUTH_EVENTS 1 --force".to_owned(),
        "consumer rm OAUTH_COMMANDS exchange --force".to_owned(),
        "consumer next OAUTH_COMMANDS exchange".to_owned(),
    ] {
        let (succeeded, printed) = cli.tries(&format!("{OPERATOR} --timeout 1s {line}")).await;
        assert!(!succeeded, "{line}: {printed}");
    }
    let still = cli.prints(&format!("{OPERATOR} kv ls oauth_connections")).await;
    assert_eq!(still.trim(), key);
}

/// A message of `OAUTH` contains the token itself.
#[tokio::test]
async fn e4_an_operator_reads_no_record() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    let connection = world.connect(CONNECTION).await;
    let subject = token_subject(CONNECTION);
    for line in [format!("stream get OAUTH --last-for {subject}"), format!("sub {subject} --last --count 1")] {
        let (succeeded, printed) = cli.tries(&format!("{OPERATOR} --timeout 1s {line}")).await;
        assert!(!succeeded, "{line}: {printed}");
        assert!(!printed.contains(text(&connection, "access_token")), "{line} shows the token");
    }
}

#[tokio::test]
async fn an_operator_finds_and_counts_the_service() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    world.connect(CONNECTION).await;
    let question = serde_json::json!({ "integration_id": INTEGRATION, "connection_id": CONNECTION });
    let answer = cli.prints(&format!("{DEMO} request --raw ms.oauth.{ACCOUNT}.token '{question}'")).await;
    let answer: Value = serde_json::from_str(&answer).expect("an answer is JSON");
    assert_eq!(answer["status"], "active");
    assert!(answer.get("refresh_token").is_none());

    let listed = cli.prints(&format!("{OPERATOR} micro ls")).await;
    assert!(listed.contains("tokenbus") && listed.contains(env!("CARGO_PKG_VERSION")), "{listed}");
    let shown = cli.prints(&format!("{OPERATOR} micro info tokenbus")).await;
    assert!(shown.contains("ms.oauth.*.token") && shown.contains("ms.oauth.*.delete"), "{shown}");
    let counted = cli.prints(&format!("{OPERATOR} micro stats tokenbus --json")).await;
    let stats: Value = serde_json::from_str(&counted).unwrap_or_else(|error| panic!("{error}: {counted}"));
    let all = stats.as_array().and_then(|all| all.first()).unwrap_or(&stats);
    let endpoints = all["endpoints"].as_array();
    let token = endpoints.and_then(|all| all.iter().find(|it| it["name"] == "token"));
    assert_eq!(token.unwrap_or_else(|| panic!("{counted}"))["num_requests"], 1, "{counted}");
}

#[tokio::test]
async fn a_tenant_receives_its_token() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    let mut subscriber = cli.start(&format!("{DEMO} sub '{}' ready", token_subject("*")));
    let tenant = world.tokenbus.nats.connect("demo").await;
    let knock = async {
        loop {
            tenant.publish("ready", "".into()).await.expect("the bus is there");
            tenant.flush().await.expect("the bus is there");
            sleep(Duration::from_millis(50)).await;
        }
    };
    // The second subscription is open, so the first one is, too.
    tokio::select! {
        () = subscriber.line(|line| line.contains(r#"Received on "ready""#).then_some(())) => {}
        () = knock => {}
    }

    let connection = world.connect(CONNECTION).await;
    let received = format!(r#"Received on "{}""#, token_subject(CONNECTION));
    subscriber.line(|line| line.contains(&received).then_some(())).await;
    let sequence = subscriber.line(|line| line.strip_prefix("Nats-Sequence: ").map(str::to_owned)).await;
    assert_eq!(sequence, connection["sequence"].to_string());
    let body = subscriber.line(|line| serde_json::from_str::<Value>(line).ok().filter(Value::is_object)).await;
    assert_eq!(text(&body, "access_token"), text(&connection, "access_token"));
    assert!(body.get("refresh_token").is_none(), "a push with a refresh token");
}

/// The command lines in code blocks of the bus's README.
#[tokio::test]
async fn the_readmes_command_lines_work() {
    let world = World::start().await;
    let Some(cli) = NatsCli::on(&world.tokenbus.nats) else { return };
    world.connect(CONNECTION).await;
    let readme = std::fs::read_to_string(root().join("nats/README.md")).expect("a README");
    let lines: Vec<_> = readme.lines().filter_map(|line| line.strip_prefix("    nats ")).collect();
    assert!(!lines.is_empty(), "no command line in nats/README.md");
    for line in lines {
        let printed = cli.prints(&format!("nats {line}")).await;
        assert!(printed.contains(CONNECTION), "{line}: {printed}");
    }
}
