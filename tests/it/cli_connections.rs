//! `tokenbus connections`, as a tenant's user and as `admin` run it.

use std::path::Path;
use std::process::Stdio;

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::ask::new_account;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::support::wait::PATIENCE;
use crate::world::{INTEGRATION, World, parameter, state_of};

/// Exit code and output of a command.
pub(crate) struct CommandOutput {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) errors: String,
}

impl CommandOutput {
    /// The lines of the output, each parsed as JSON.
    pub(crate) fn json(&self) -> Vec<Value> {
        assert_eq!(self.code, Some(0), "{}", self.errors);
        self.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    #[track_caller]
    pub(crate) fn fails(&self, code: i32, text: &str) {
        assert_eq!((self.code, self.out.as_str()), (Some(code), ""), "{}", self.errors);
        assert!(self.errors.contains(text), "`{text}` is not in {}", self.errors);
    }
}

fn program(nats: &Nats, user: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(settings(nats, user, Path::new("/nonexistent"))).stdin(Stdio::null());
    command.kill_on_drop(true);
    command
}

/// Runs `tokenbus` as that user.
pub(crate) async fn tokenbus(nats: &Nats, user: &str, arguments: &[&str]) -> CommandOutput {
    let output = program(nats, user, arguments).output().await.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints text");
    CommandOutput { code: output.status.code(), out: text(output.stdout), errors: text(output.stderr) }
}

/// Runs `tokenbus connections` for the tenant.
async fn connections(world: &World, user: &str, arguments: &[&str]) -> CommandOutput {
    let arguments = [&["connections", "--account", ACCOUNT], arguments].concat();
    tokenbus(&world.tokenbus.nats, user, &arguments).await
}

async fn connected() -> World {
    let world = World::with(Provider::generous().await).await;
    for name in ["one", "two"] {
        assert_eq!(world.connect(name).await.0, StatusCode::OK);
    }
    world
}

/// Returns true if the text names an expiry in just under an hour.
fn ends_within_the_hour(text: &str) -> bool {
    (50..60).any(|minutes| text.contains(&format!("in {minutes} min")))
}

#[tokio::test]
async fn f1_the_connection_commands_show_tokens_only_on_request() {
    let world = connected().await;
    for user in ["demo", "admin"] {
        let list = connections(&world, user, &["list"]).await;
        assert_eq!(list.code, Some(0), "{}", list.errors);
        let lines: Vec<Vec<&str>> = list.out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["INTEGRATION", "CONNECTION", "CONNECTED", "AS", "STATUS", "ENDS", "CHANGED", "SEQUENCE"]);
        assert_eq!(lines[1][..5], ["odd", "one", "–", "active", "in"], "{}", list.out);
        assert!(ends_within_the_hour(&list.out), "{}", list.out);
        assert_eq!((lines[2][1], lines.len()), ("two", 3));
    }
    let listed = connections(&world, "demo", &["list", "--json"]).await.json();
    assert_eq!((listed.len(), &listed[0]["access_token"]), (2, &json!("[redacted]")));
    connections(&world, "demo", &["list", "other"]).await.fails(1, "no config with that integration_id");
    let others = ["connections", "--account", &new_account(), "list", INTEGRATION];
    assert_eq!(tokenbus(&world.tokenbus.nats, "admin", &others).await.out, "no connections\n");

    let get = connections(&world, "demo", &["get", INTEGRATION, "one"]).await;
    assert!(get.out.contains("[redacted]") && ends_within_the_hour(&get.out), "{}", get.out);
    let get = connections(&world, "demo", &["get", INTEGRATION, "one", "--json"]).await.json();
    assert_eq!((&get[0]["access_token"], &get[0]["status"]), (&json!("[redacted]"), &json!("active")));
    let get = connections(&world, "demo", &["get", INTEGRATION, "one", "--json", "--show-token"]).await.json();
    assert_eq!((&get[0]["access_token"], get[0].get("refresh_token")), (&json!("at-0"), None));
}

#[tokio::test]
async fn connections_are_refreshed_and_deleted_from_the_command_line() {
    let world = connected().await;
    let before = world.read("one").await.1["sequence"].as_u64();
    let refreshed = timeout(PATIENCE, async {
        loop {
            let refreshed = connections(&world, "admin", &["refresh", INTEGRATION, "one", "--json"]).await.json();
            if refreshed[0]["sequence"].as_u64() > before {
                return refreshed;
            }
        }
    })
    .await
    .expect("it is old enough after a while");
    assert_eq!(refreshed[0]["access_token"], "[redacted]");
    assert_eq!(world.read("one").await.1["access_token"], "at-2");

    let deleted = connections(&world, "admin", &["delete", INTEGRATION, "one"]).await;
    assert_eq!((deleted.code, deleted.out.as_str()), (Some(0), "odd/one deleted\n"), "{}", deleted.errors);
    assert_eq!(world.read("one").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn failures_of_the_connection_commands_have_helpful_messages() {
    let world = connected().await;
    for command in ["get", "refresh", "delete"] {
        connections(&world, "demo", &[command, INTEGRATION, "three"]).await.fails(1, "no connection with that");
    }
    connections(&world, "demo", &["get", "a.b", "one"]).await.fails(2, "integration_id must be");
    connections(&world, "demo", &["get", INTEGRATION]).await.fails(2, "CONNECTION");
    let nats = &world.tokenbus.nats;
    tokenbus(nats, "demo", &["connections", "list"]).await.fails(1, "--account");
    tokenbus(nats, "demo", &["connections", "--account", "A1", "list"]).await.fails(2, "public nkey");
    let other = new_account();
    tokenbus(nats, "demo", &["connections", "--account", &other, "list"]).await.fails(1, "no worker answers");
    let denied = connections(&world, "operator", &["list"]).await;
    denied.fails(1, "this NATS user may not call `list`");
    assert_eq!(denied.errors.lines().count(), 1, "it is said once: {}", denied.errors);
    connections(&world, "operator", &["watch"]).await.fails(1, "this NATS user may not");
    let alone = Nats::start().await;
    tokenbus(&alone, "demo", &["connections", "--account", ACCOUNT, "list"]).await.fails(1, "no worker answers");
}

type Lines<R> = tokio::io::Lines<BufReader<R>>;

async fn line<R: tokio::io::AsyncRead + Unpin>(lines: &mut Lines<R>) -> String {
    let line = timeout(PATIENCE, lines.next_line()).await.expect("a line comes");
    line.expect("text").expect("the program goes on")
}

/// Starts `tokenbus connections` for the tenant, to be read line by line.
fn start(world: &World, arguments: &[&str]) -> (tokio::process::Child, Lines<ChildStdout>, Lines<ChildStderr>) {
    let arguments = [&["connections", "--account", ACCOUNT], arguments].concat();
    let mut command = program(&world.tokenbus.nats, "demo", &arguments);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the program starts");
    let out = BufReader::new(child.stdout.take().unwrap()).lines();
    let errors = BufReader::new(child.stderr.take().unwrap()).lines();
    (child, out, errors)
}

#[tokio::test]
async fn a_login_from_the_command_line_waits_for_the_browser() {
    let world = World::with(Provider::generous().await).await;
    let (mut child, mut out, _errors) = start(&world, &["login", INTEGRATION, "one", "--scopes", "read"]);
    let url = line(&mut out).await.parse().expect("the first line is the URL");
    assert_eq!(parameter(&url, "scope"), "read");
    let callback = world.callback(&[("code", "canary-code"), ("state", &parameter(&url, "state"))]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::OK);
    assert_eq!(line(&mut out).await.split_whitespace().collect::<Vec<_>>(), ["access_token", "[redacted]"]);
    assert!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().success());

    let (mut child, mut out, mut errors) = start(&world, &["login", INTEGRATION, "one", "--json"]);
    let state = state_of(&serde_json::from_str::<Value>(&line(&mut out).await).unwrap()["oauth_url"]);
    let callback = world.callback(&[("error", "access_denied"), ("state", &state)]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::BAD_REQUEST);
    assert!(line(&mut errors).await.contains("the login failed: access_denied"));
    assert_eq!(timeout(PATIENCE, child.wait()).await.unwrap().unwrap().code(), Some(1));

    connections(&world, "demo", &["login", INTEGRATION, "one", "--timeout", "1"])
        .await
        .errors
        .contains("no login within 1 seconds")
        .then_some(())
        .expect("it ends");
    assert_eq!(connections(&world, "demo", &["login", INTEGRATION, "one", "--no-wait"]).await.code, Some(0));
}

#[tokio::test]
async fn a_login_from_the_command_line_sets_variables_and_parameters() {
    let world = World::with(Provider::generous().await).await;
    let mut config = world.config();
    config["auth_params"] = json!({ "shop": "${shop}" });
    config["variables"] = json!({ "shop": { "pattern": "[a-z]+" } });
    config["login_params"] = json!(["login_hint", "prompt"]);
    world.tokenbus.configure(&config).await;
    let login = async |more: &[&str]| {
        connections(&world, "demo", &[&["login", INTEGRATION, "one", "--no-wait"], more].concat()).await
    };
    let given = login(&["--var", "shop=acme", "--param", "login_hint=ada@example.com", "--param", "prompt=none"]).await;
    let url = given.out.trim().parse().unwrap_or_else(|_| panic!("{}", given.errors));
    for (name, value) in [("shop", "acme"), ("login_hint", "ada@example.com"), ("prompt", "none")] {
        assert_eq!(parameter(&url, name), value);
    }
    let missing = login(&[]).await;
    missing.fails(1, "variable shop is missing");
    missing.fails(1, "`--var NAME=VALUE` sets a variable, `--param NAME=VALUE`");
    login(&["--var", "shop=acme", "--var", "tld=eu"]).await.fails(1, "variable tld is unknown; the config has shop");
    let unknown = login(&["--var", "shop=acme", "--param", "hd=x"]).await;
    unknown.fails(1, "may not set the parameter hd; `login_params` of the config lists login_hint, prompt");
    login(&["--var", "shop"]).await.fails(1, "--var: a value must be `<name>=<value>`");
    login(&["--param", "a=1", "--param", "a=2"]).await.fails(1, "--param: a is given twice");
}

#[tokio::test]
async fn f1_a_watch_prints_a_line_for_each_event_and_no_token() {
    let world = connected().await;
    let (_child, mut out, mut errors) = start(&world, &["watch"]);
    let (_json_child, mut json_out, mut json_errors) = start(&world, &["watch", "--json"]);
    for errors in [&mut errors, &mut json_errors] {
        assert_eq!(line(errors).await, format!("watching 2 connections of {ACCOUNT}"));
    }
    assert_eq!(world.connect("three").await.0, StatusCode::OK);
    let shown = [line(&mut out).await, line(&mut out).await];
    assert!(shown[0].contains("login_started") && shown[0].contains("odd/three by key:"), "{shown:?}");
    assert!(shown[1].contains("connected") && shown[1].ends_with("odd/three by browser, ends in 59 min"), "{shown:?}");
    let event: Value = serde_json::from_str(&line(&mut json_out).await).unwrap();
    assert_eq!(event["event"], "login_started");
    let text = line(&mut json_out).await;
    let event: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&event["event"], &event["connection_id"]), (&json!("connected"), &json!("three")));
    assert!(!text.contains("at-2") && !shown[1].contains("at-2"));
}
