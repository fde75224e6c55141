//! Sealed values in the wrong place, and keyrings that lack a key.

use std::path::Path;

use reqwest::StatusCode;
use serde_json::Value;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::bus::Bus;
use crate::fleet::{Fleet, eventually};
use crate::provider::Provider;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, run};
use crate::world::{World, state_of};

/// Exit code and standard error of a worker that ends by itself.
async fn serve(fleet: &Fleet, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(PROGRAM);
    command.args(["serve", "--role", "worker"]).envs(&fleet.settings).envs(environment.iter().copied());
    let output = command.kill_on_drop(true).output();
    let output = tokio::time::timeout(std::time::Duration::from_mins(1), output).await;
    let output = output.expect("it ends by itself").expect("the program starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn e1_a_sealed_value_moved_by_hand_does_not_open() {
    let world = World::with(Provider::generous().await).await;
    let mut entries = Vec::new();
    for name in ["one", "two"] {
        assert_eq!(world.connect(name).await.0, StatusCode::OK);
        entries.push((name, entry(&world, name).await));
    }
    let bus = Bus::of(&world.tokenbus.nats).await;
    // The whole entry under the other's key; the other's sealed value; and another sequence.
    let (one, two) = (entries[0].1.clone(), entries[1].1.clone());
    let (mut with_others, mut later) = (one.clone(), one.clone());
    with_others["sealed"] = two["sealed"].clone();
    later["sequence"] = two["sequence"].clone();
    for value in [&two, &with_others, &later] {
        let subject = format!("$KV.oauth_connections.{ACCOUNT}.odd.one");
        bus.client.request(subject, value.to_string().into()).await.expect("JetStream answers");
        let (status, body) = world.read("one").await;
        assert_eq!((status, &body["access_token"]), (StatusCode::OK, &Value::from("at-0")), "restored: {body}");
    }
    let what = format!("oauth_connections/{ACCOUNT}.odd.one: sealed value does not open");
    assert!(world.tokenbus.log().matches(&what).count() >= 3, "{}", world.tokenbus.log());
    assert_eq!(world.read("two").await.0, StatusCode::OK);
}

async fn entry(world: &World, name: &str) -> Value {
    let end = format!(".odd.{name}");
    let all = Bus::of(&world.tokenbus.nats).await.messages("KV_oauth_connections").await;
    let entry = all.into_iter().find(|message| message.subject.ends_with(&end)).expect("it is stored");
    serde_json::from_slice(&entry.payload).unwrap()
}

#[tokio::test]
async fn e2_a_worker_that_lacks_a_key_in_use_names_it_and_does_not_start() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    worker.kill().await;
    let own = Path::new(&fleet.settings["TOKENBUS_SECRETS__KEYS_FILE"]);
    let id = key_id(own);
    let other = own.with_extension("other");
    let other = other.to_str().unwrap();
    run(&fleet.settings, &["keys", "generate", "--out", other]).await;
    let (code, errors) = serve(&fleet, &[("TOKENBUS_SECRETS__KEYS_FILE", other)]).await;
    assert_eq!(code, Some(1), "{errors}");
    let named = format!("stored values are sealed with key `{id}`, which is not in the keyring: put it back there");
    assert!(errors.contains(&named), "{errors}");

    // No keyring, two of them, and one from the environment.
    let (code, errors) = serve(&fleet, &[("TOKENBUS_SECRETS__KEYS_FILE", "")]).await;
    assert!(code == Some(1) && errors.contains("no keyring: "), "{errors}");
    let text = std::fs::read_to_string(own).unwrap();
    let (code, errors) = serve(&fleet, &[("TOKENBUS_SECRETS__KEYS", &text)]).await;
    assert!(code == Some(1) && errors.contains("`secrets.keys_file` and `secrets.keys` are both set"), "{errors}");
    let command = format!("[cat, \"{}\"]", own.display());
    for (name, value) in [("TOKENBUS_SECRETS__KEYS", &text), ("TOKENBUS_SECRETS__KEY_COMMAND", &command)] {
        let worker = fleet.worker_with(&[("TOKENBUS_SECRETS__KEYS_FILE", ""), (name, value)]);
        worker.ready().await;
    }
}

/// The command and a process that it has started wait for each other's end, and for a reader.
const HANGING: &str = r#"[sh, -c, "sleep 600 & echo $$ $! > $TOKENBUS_TEST_IDS.new; mv $TOKENBUS_TEST_IDS.new $TOKENBUS_TEST_IDS; wait"]"#;

#[tokio::test]
async fn o11_a_stop_during_the_start_ends_the_key_command_at_once() {
    let fleet = Fleet::start("https://provider.example").await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("ids");
    let mut worker = fleet.worker_with(&[
        ("TOKENBUS_SECRETS__KEYS_FILE", ""),
        ("TOKENBUS_SECRETS__KEY_COMMAND", HANGING),
        ("TOKENBUS_TEST_IDS", file.to_str().expect("a path of text")),
    ]);
    eventually("the command runs", async || file.exists()).await;
    let ids = std::fs::read_to_string(&file).expect("the ids of two processes");
    let began = std::time::Instant::now();
    worker.signal("TERM");
    let ended = worker.ended().await;
    assert!(ended.success(), "{ended}: {}", worker.log());
    assert!(began.elapsed() < std::time::Duration::from_secs(8), "it does not wait for the command");
    assert!(worker.log().contains("received a stop signal during the start; stopping"), "{}", worker.log());
    let is_running = |id: &str| std::path::Path::new("/proc").join(id).join("exe").read_link().is_ok();
    eventually("the command has ended, and its child", async || !ids.split_whitespace().any(is_running)).await;
}

#[tokio::test]
async fn e2_a_worker_that_waits_for_nats_while_the_key_changes_reads_the_keyring_again() {
    let provider = Provider::generous().await;
    let (fleet, first) = Fleet::configured(&provider.url).await;
    // Accepts a connection, as a server that is stopped does, and is silent until it is relayed.
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("nats://{}", listener.local_addr().expect("it is bound"));
    let late = fleet.worker_with(&[("TOKENBUS_NATS__URL", &url)]);
    eventually("it has its keyring and waits", async || late.log().contains("not ready: ")).await;

    let added: Value = serde_json::from_str(&run(&fleet.settings, &["keys", "add", "--json"]).await).unwrap();
    run(&fleet.settings, &["keys", "promote", added["id"].as_str().unwrap()]).await;
    first.signal("HUP");
    eventually("another worker seals with the new key", async || first.log().contains("keyring reloaded")).await;

    let server = fleet.nats.url.trim_start_matches("nats://").to_owned();
    let relays = async {
        let mut relays = JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.expect("the server listens");
            relays.spawn(async move { copy_bidirectional(&mut client, &mut server).await });
        }
    };
    tokio::select! {
        () = relays => {}
        () = late.ready() => {}
    }
}

fn key_id(path: &Path) -> String {
    let keys: toml::Table = std::fs::read_to_string(path).unwrap().parse().unwrap();
    keys["key"][0]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn e2_a_command_that_needs_a_missing_key_waits_for_it() {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    let own = Path::new(&fleet.settings["TOKENBUS_SECRETS__KEYS_FILE"]);
    let copy = own.with_extension("copy");
    std::fs::copy(own, &copy).unwrap();
    let late = fleet.worker_with(&[("TOKENBUS_SECRETS__KEYS_FILE", copy.to_str().unwrap())]);
    late.ready().await;

    // The first worker switches, on a signal, to a key that the second one lacks.
    let id = run(&fleet.settings, &["keys", "add", "--json"]).await;
    let id: Value = serde_json::from_str(&id).unwrap();
    let id = id["id"].as_str().unwrap();
    run(&fleet.settings, &["keys", "promote", id]).await;
    first.signal("HUP");
    eventually("the keyring is reloaded", async || first.log().contains("keyring reloaded")).await;
    // Each worker seals with its own key, so repeat until the first worker has handled one.
    eventually("the config is sealed with the new key", async || {
        let (status, body) = fleet.put(&fleet.admin_keys[0], &fleet.config()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let sealed = fleet.stored_config().await["sealed"].clone();
        sealed.as_str().and_then(|sealed| sealed.split('.').nth(1)) == Some(id)
    })
    .await;
    let begun = std::cell::Cell::new(String::new());
    eventually("the first worker begins a login", async || {
        let (status, body) = fleet.get("odd/oauth-login/w").await;
        if status == StatusCode::OK {
            begun.set(state_of(&body["oauth_url"]));
        }
        status == StatusCode::OK
    })
    .await;
    let state = begun.take();
    first.kill().await;
    // Until the server notices the death, it may route calls to the dead worker.
    let living = async || fleet.get("oauth-connections").await.0 == StatusCode::OK;
    eventually("the other worker answers", living).await;

    let arrives = fleet.arrive(&state, "code");
    let comes = async {
        let missing = format!("sealed with key `{id}`, which is not in the keyring");
        let is_put_back = |line: &str| line.contains("put back for") && line.contains(&missing);
        eventually("the command is put back", async || late.log().lines().any(is_put_back)).await;
        std::fs::copy(own, &copy).unwrap();
    };
    let ((status, body), ()) = tokio::join!(arrives, comes);
    assert_eq!(status, StatusCode::OK, "{body}\n{}", late.log());
    assert_eq!(provider.received().len(), 1);
    assert!(fleet.events().await.iter().all(|event| event["event"] == "connected"));
}
