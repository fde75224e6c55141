//! Each process checks its permissions on the bus and names the missing ones.

use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use crate::bus::{BUCKETS, Bus};

use crate::provider::Provider;
use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, Tokenbus, run, settings};
use crate::wire::Wire;
use crate::world::World;

/// Two gateways' users, each allowed to receive only its own answers, as in `nats/README.md`.
const NARROWED: (&str, &str) = (
    r#"        subscribe: { allow: ["oauth.reply.*.*", "_INBOX_edge.>"] }
      }
    }]"#,
    r#"        subscribe: { allow: ["oauth.reply.edge-number-one-------.*", "_INBOX_edge.>"] }
      }
    }, {
      user: edge2, password: $NATS_EDGE2_PASSWORD
      permissions: {
        publish: { allow: ["oauth.edge.*", "oauth.again.*", "$SYS.REQ.USER.INFO", "ms.integration.oauth.*.*.*.exchange"] }
        subscribe: { allow: ["oauth.reply.edge-number-two-------.*", "_INBOX_edge2.>"] }
      }
    }]"#,
);
const EDGE_ONE: &str = "edge-number-one-------";

#[tokio::test]
async fn e9_an_edge_with_a_fixed_id_only_receives_its_own_answers() {
    let nats = Nats::edited(&[NARROWED], &["edge2"]).await;
    let mut two = Wire::connect(&nats, "edge2").await;
    for subject in [&format!("oauth.reply.{EDGE_ONE}.*"), "oauth.reply.*.*", "oauth.reply.>", "oauth.reply.worker.*.*"]
    {
        assert!(!two.may_subscribe(subject).await, "the second edge may subscribe {subject}");
    }
    assert!(two.may_subscribe("oauth.reply.edge-number-two-------.*").await);
    assert!(two.may_subscribe(&format!("oauth.reply.{}.*", "edge-number-two-------")).await);

    // The first gateway works with its fixed id, together with a worker.
    let world = World { tokenbus: Tokenbus::start_on(nats, &[]).await, provider: Provider::generous().await };
    let folder = tempfile::tempdir().unwrap();
    let nats = &world.tokenbus.nats;
    let mut as_edge = settings(nats, "edge", &folder.path().join("none"));
    as_edge.insert("TOKENBUS_HTTP__EDGE_ID".to_owned(), EDGE_ONE.to_owned());
    let mut edge = Running::start(Path::new(PROGRAM), &folder.path().join("log"), |command| {
        command.envs(&as_edge).args(["serve", "--role", "edge"]);
    });
    let url: url::Url = edge.line(|line| line.strip_prefix("listening on ")?.parse().ok()).await;
    let url = url.join("hub/integrations/odd/oauth-config").unwrap();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = http.put(url).header("x-api-key", &world.tokenbus.admin_key).json(&world.config()).send().await;
    assert_eq!(answer.expect("the edge answers").status(), 200, "a command's answer reaches the narrowed edge");
}

#[tokio::test]
async fn e6_no_edge_receives_answers_between_workers() {
    let nats = Nats::start().await;
    let (mut edge, worker) = (nats.connect("edge").await, nats.connect("worker").await);
    let mut wire = Wire::connect(&nats, "edge").await;
    assert!(!wire.may_subscribe("oauth.reply.worker.*.*").await);
    // Even a gateway's user without limits, because the account is the border.
    let open = Nats::edited(&[("subscribe: { allow: [\"oauth.reply.*.*\", \"_INBOX_edge.>\"] }", "")], &[]).await;
    for (nats, is_open) in [(&nats, false), (&open, true)] {
        edge = if is_open { nats.connect("edge").await } else { edge };
        let worker = if is_open { nats.connect("worker").await } else { worker.clone() };
        let mut heard = edge.subscribe(if is_open { "oauth.>" } else { "oauth.reply.*.*" }).await.unwrap();
        Nats::flush(&edge).await;
        let id = "a".repeat(22);
        worker.publish(format!("oauth.reply.worker.{id}.{id}"), "inner".into()).await.unwrap();
        worker.publish(format!("oauth.reply.{id}.{id}"), "outer".into()).await.unwrap();
        Nats::flush(&worker).await;
        let first = futures_util::StreamExt::next(&mut heard).await.expect("the outer one comes");
        assert_eq!(first.payload.as_ref(), b"outer", "{}", first.subject);
    }
}

/// The permissions that the program needs are those of the shipped users, stream by stream.
#[tokio::test]
async fn all_shipped_users_have_the_permissions_they_need() {
    let world = World::with(Provider::generous().await).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let mut streams = Vec::new();
    let mut names = async_nats::jetstream::new(bus.client.clone()).stream_names();
    while let Some(name) = futures_util::StreamExt::next(&mut names).await {
        streams.push(name.unwrap());
    }
    let needed = tokenbus::internals::subject::needed_by_worker("_INBOX_worker");
    for stream in &streams {
        let subject = format!("$JS.API.STREAM.INFO.{stream}");
        assert!(needed.iter().any(|permission| permission.subject == subject), "{subject} is not counted as needed");
    }
    assert!(BUCKETS.iter().all(|bucket| streams.iter().any(|stream| stream == bucket)));

    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    for (user, roles) in [
        ("worker", &["worker", "all"][..]),
        ("edge", &["edge"]),
        ("operator", &["operator"]),
        ("setup", &["setup"]),
        ("admin", &["admin"]),
    ] {
        for role in roles {
            let settings = settings(&world.tokenbus.nats, user, &keys);
            let (_, printed) = doctor(&settings, role).await;
            let check = printed.lines().find(|line| line.contains("permissions  ")).unwrap_or_default();
            assert!(check.starts_with('✓'), "{user} as {role}: {printed}");
        }
    }
}

async fn doctor(settings: &std::collections::HashMap<String, String>, role: &str) -> (Option<i32>, String) {
    let output = Command::new(PROGRAM).args(["doctor", "--role", role]).envs(settings).output().await.unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

/// Removes one permission; the process must name it and end.
#[track_caller]
fn check(
    role: &'static str,
    user: &'static str,
    edit: (&'static str, &'static str),
    named: &'static str,
) -> impl Future<Output = ()> {
    let at = std::panic::Location::caller();
    async move {
        let nats = Nats::edited(&[edit], &[]).await;
        let folder = tempfile::tempdir().unwrap();
        let keys = folder.path().join("keys");
        let settings = settings(&nats, user, &keys);
        run(&settings, &["keys", "generate", "--out", keys.to_str().unwrap()]).await;
        let serve = Command::new(PROGRAM)
            .args(["serve", "--role", role])
            .envs(&settings)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let ended = tokio::time::timeout(std::time::Duration::from_mins(1), serve).await;
        let output = ended.unwrap_or_else(|_| panic!("{at}: the {role} does not end")).unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{at}: {log}");
        assert!(log.contains(named) && log.contains("nats/accounts.conf"), "{at}: no {named} in {log}");
        let (code, printed) = doctor(&settings, role).await;
        assert_eq!(code, Some(1), "{at}: {printed}");
        assert!(printed.contains(named) && printed.contains("→ add"), "{at}: no {named} in {printed}");
    }
}

#[tokio::test]
async fn a_process_that_lacks_a_permission_names_it_and_does_not_start() {
    check("worker", "worker", ("\"oauth.record.*.*.*\", ", ""), "publish `oauth.record.*.*.*`").await;
    check(
        "worker",
        "worker",
        ("\"ms.oauth.*.*\", \"oauth.edge.*\", ", "\"ms.oauth.*.*\", "),
        "subscribe `oauth.edge.*`",
    )
    .await;
    check(
        "edge",
        "edge",
        ("\"oauth.edge.*\", \"oauth.again.*\", \"$SYS", "\"oauth.again.*\", \"$SYS"),
        "publish `oauth.edge.*`",
    )
    .await;
    check(
        "edge",
        "edge",
        ("[\"oauth.reply.*.*\", \"_INBOX_edge.>\"]", "[\"_INBOX_edge.>\"]"),
        "subscribe `oauth.reply.",
    )
    .await;
    check("all", "worker", ("            \"oauth.reply.*.*\"\n", ""), "subscribe `oauth.reply.").await;
    // A denied subject is missing even if it is also allowed.
    let denied =
        ("subscribe: { allow: [\"oauth.reply", "subscribe: { deny: [\"oauth.reply.>\"], allow: [\"oauth.reply");
    check("edge", "edge", denied, "subscribe `oauth.reply.").await;
}

/// No permission is known to be missing, so it continues with a warning.
#[tokio::test]
async fn a_process_that_cannot_read_its_permissions_warns_and_works() {
    let edit = (
        "\"$SYS.REQ.USER.INFO\", \"$JS.API.INFO\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.LIST\"\n            \"$JS.API.STREAM.CREATE",
        "\"$JS.API.INFO\", \"$JS.API.STREAM.NAMES\", \"$JS.API.STREAM.LIST\"\n            \"$JS.API.STREAM.CREATE",
    );
    let world = World::on(Nats::edited(&[edit], &[]).await, Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let log = world.tokenbus.log();
    assert!(log.contains("cannot check permissions at NATS") && log.contains("$SYS.REQ.USER.INFO"), "{log}");
}
