//! `tokenbus events export`: the whole audit log as JSON lines, and the rest of it after an interruption.

use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::ask::new_account;
use crate::bus::Bus;
use crate::cli_connections::tokenbus;
use crate::fleet::eventually;
use crate::provider::Provider;
use crate::support::child::Running;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::world::World;

fn numbers(events: &[Value]) -> Vec<u64> {
    events.iter().map(|event| event["number"].as_u64().expect("each event has its number")).collect()
}

#[tokio::test]
async fn g2_the_audit_log_is_exported_in_order_and_continues_where_it_ended() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let nats = &world.tokenbus.nats;
    let bus = Bus::of(nats).await;
    bus.idle().await;
    let export = async |more: &[&str]| tokenbus(nats, "admin", &[&["events", "export"], more].concat()).await;

    let whole = export(&[]).await;
    let events = whole.json();
    let all = numbers(&events);
    assert_eq!(all, (1..=all.len() as u64).collect::<Vec<_>>());
    let connected = events.iter().find(|event| event["event"] == "connected").expect("the login's event");
    assert_eq!((&connected["account"], &connected["connection_id"]), (&json!(ACCOUNT), &json!("one")));
    assert!(whole.errors.contains(&format!("exported {0} events, up to number {0}", all.len())), "{}", whole.errors);
    assert!(!whole.out.contains("canary"), "{}", whole.out);

    assert_eq!(numbers(&export(&["--after", "2"]).await.json()), all[2..]);
    let newest = all.len().to_string();
    assert_eq!(numbers(&export(&["--after", &newest]).await.json()), [0_u64; 0]);
    let own = export(&["--account", ACCOUNT]).await.json();
    assert!(!own.is_empty() && own.iter().all(|event| event["account"] == ACCOUNT));
    assert_eq!(numbers(&export(&["--account", &new_account()]).await.json()), [0_u64; 0]);

    let folder = tempfile::tempdir().expect("a temporary folder");
    let state = folder.path().join("number").display().to_string();
    assert_eq!(numbers(&export(&["--state", &state]).await.json()), all);
    assert_eq!(numbers(&export(&["--state", &state]).await.json()), [0_u64; 0]);
    assert_eq!(world.connect("two").await.0, 200);
    bus.idle().await;
    let rest = numbers(&export(&["--state", &state]).await.json());
    assert_eq!(rest.first(), Some(&(all.len() as u64 + 1)));
    std::fs::write(&state, "canary").expect("the file can be written");
    export(&["--state", &state]).await.fails(1, "holds no number of an event");

    tokenbus(nats, "demo", &["events", "export"]).await.fails(1, "connect as");
}

#[tokio::test]
async fn g2_an_export_that_follows_prints_new_events() {
    let world = World::with(Provider::generous().await).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let prepare = |command: &mut Command| {
        command.envs(settings(&world.tokenbus.nats, "admin", Path::new("/nonexistent")));
        command.args(["events", "export", "--follow", "--account", ACCOUNT]);
    };
    let mut export = Running::start(Path::new(PROGRAM), &folder.path().join("log"), prepare);
    assert_eq!(world.connect("one").await.0, 200);
    let is_connected = |line: &str| line.contains("\"connected\"").then(|| line.to_owned());
    let line: Value = serde_json::from_str(&export.line(is_connected).await).expect("a line is JSON");
    assert_eq!(line["connection_id"], "one");
    assert!(export.is_alive());
}

#[tokio::test]
async fn g2_events_are_kept_for_the_time_in_the_settings() {
    let world = World::with_settings(Provider::generous().await, &[("EVENTS__MAX_AGE", "400d")]).await;
    let bus = crate::bus::Bus::of(&world.tokenbus.nats).await;
    let days = |days: u64| std::time::Duration::from_secs(days * 86_400);
    assert_eq!(bus.info("OAUTH_EVENTS").await.config.max_age, days(400));
    assert_eq!(bus.info("OAUTH_DEAD").await.config.max_age, days(30));
    tokenbus(&world.tokenbus.nats, "setup", &["setup", "--json"]).await.json();
    eventually("setup changes the age", async || bus.info("OAUTH_EVENTS").await.config.max_age == days(30)).await;
}

#[tokio::test]
async fn g2_changes_by_setup_and_admin_leave_events() {
    let world = World::with(Provider::generous().await).await;
    let bus = crate::bus::Bus::of(&world.tokenbus.nats).await;
    let of_setup = bus.events("store_set_up").await;
    let [event] = &of_setup[..] else { panic!("{of_setup:?}") };
    assert_eq!((&event["actor"], &event["account"]), (&json!("setup:setup"), &json!("_")));

    let subject = format!("ms.integration.oauth.{ACCOUNT}.odd.one.revoke");
    bus.client.publish(subject, "canary, no command".into()).await.expect("sent");
    let nats = &world.tokenbus.nats;
    eventually("it is a dead letter", async || {
        !tokenbus(nats, "admin", &["dead", "list", "--json"]).await.json().is_empty()
    })
    .await;
    let letters = tokenbus(nats, "admin", &["dead", "list", "--json"]).await.json();
    tokenbus(nats, "admin", &["dead", "drop", &letters[0]["number"].to_string(), "--json"]).await.json();
    let dropped = bus.events("dead_letter_dropped").await;
    let [event] = &dropped[..] else { panic!("{dropped:?}") };
    assert_eq!(
        (&event["actor"], &event["account"], &event["connection_id"]),
        (&json!("cli"), &json!(ACCOUNT), &json!("one"))
    );
    assert!(!event.to_string().contains("canary"), "{event}");
}
