//! The documented commands of the program: each exists, `--json` prints JSON, and the exit code is that of its
//! result.

use serde_json::json;

use crate::bus::Bus;
use crate::cli_connections::{CommandOutput, tokenbus};
use crate::fleet::eventually;
use crate::provider::Provider;
use crate::support::tokenbus::{ACCOUNT, PROGRAM};
use crate::world::World;

/// Every command, and true if it prints an answer and so accepts `--json`.
const COMMANDS: [(&str, bool); 32] = [
    ("serve", false),
    ("setup", true),
    ("demo", false),
    ("doctor", true),
    ("health", false),
    ("config put", true),
    ("config get", true),
    ("config list", true),
    ("config delete", true),
    ("config new", true),
    ("providers list", true),
    ("providers show", true),
    ("providers check", true),
    ("connections list", true),
    ("connections get", true),
    ("connections login", true),
    ("connections refresh", true),
    ("connections delete", true),
    ("connections watch", true),
    ("api-keys create", true),
    ("api-keys list", true),
    ("api-keys revoke", true),
    ("keys generate", true),
    ("keys add", true),
    ("keys promote", true),
    ("keys rotate", true),
    ("dead list", true),
    ("dead retry", false),
    ("dead drop", true),
    ("events export", false),
    ("sign", true),
    ("openapi", false),
];

#[tokio::test]
async fn every_command_exists_and_exits_with_2_on_wrong_usage() {
    let nats = crate::support::nats::Nats::start().await;
    for (command, prints) in COMMANDS {
        let words: Vec<&str> = command.split(' ').collect();
        let help = tokenbus(&nats, "admin", &[words.as_slice(), &["--help"]].concat()).await;
        assert_eq!(help.code, Some(0), "{command}: {}", help.errors);
        assert_eq!(help.out.contains("--json"), prints, "{command}: {}", help.out);
        let wrong = tokenbus(&nats, "admin", &[words.as_slice(), &["--no-such-option"]].concat()).await;
        wrong.fails(2, "--no-such-option");
    }
    for wrong in [&["no-such-command"][..], &["serve", "--role", "king"], &["connections", "get", "a.b", "c"]] {
        assert_eq!(tokenbus(&nats, "admin", wrong).await.code, Some(2), "{wrong:?}");
    }
}

#[tokio::test]
async fn every_printed_answer_is_available_as_json() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let nats = &world.tokenbus.nats;
    let run =
        async |line: &str| -> CommandOutput { tokenbus(nats, "admin", &line.split(' ').collect::<Vec<_>>()).await };
    let success = [json!({ "message": "success" })];
    assert_eq!(tokenbus(nats, "setup", &["setup", "--json"]).await.json(), success);
    let made = run(&format!("api-keys create --account {ACCOUNT} --json")).await.json();
    let id = made[0]["id"].as_str().expect("a key has an id").to_owned();
    assert!(run("api-keys list --json").await.json().iter().any(|key| key["id"] == id.as_str()));
    let revoke = format!("api-keys revoke {id} --json");
    assert_eq!(run(&revoke).await.json(), success);
    run(&revoke).await.fails(1, "is revoked already");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = folder.path().join("keys");
    let keys = keys.to_str().expect("a plain path");
    let first = run(&format!("keys generate --out {keys} --json")).await.json();
    let text = std::fs::read_to_string(keys).expect("a keyring");
    assert!(text.contains(first[0]["id"].as_str().expect("a key has an id")));
    run(&format!("keys generate --out {keys} --json")).await.fails(1, "never overwritten");

    let bus = Bus::of(nats).await;
    bus.fill("OAUTH_COMMANDS", &format!("ms.integration.oauth.{ACCOUNT}.odd.dead.exchange")).await;
    eventually("there is a dead letter", async || !run("dead list --json").await.json().is_empty()).await;
    let listed = run("dead list --json").await.json();
    let number = &listed[0]["number"];
    run(&format!("dead retry {number}")).await.fails(1, "start the login again");
    assert_eq!(run(&format!("dead drop {number} --json")).await.json(), success);
    run(&format!("dead drop {number} --json")).await.fails(1, "no dead letter");
    assert_eq!(run("dead list").await.out, "no dead letters\n");
}

/// `tokenbus providers list | head`: the reader has closed the pipe.
#[test]
fn commands_end_quietly_when_nothing_reads_their_output() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("broken.toml"), "name = ").expect("a file");
    let keys = folder.path().join("keys").display().to_string();
    for line in [
        "openapi",
        "providers list",
        "providers list --json",
        "providers show slack",
        "providers check config/providers/slack.toml",
        "doctor",
        "doctor --json",
        &format!("keys generate --out {keys}"),
    ] {
        let closed = || {
            let (reader, writer) = std::io::pipe().expect("a pipe");
            drop(reader);
            writer
        };
        let mut command = std::process::Command::new(PROGRAM);
        command.args(line.split(' ')).env("TOKENBUS_OAUTH__PROVIDERS_DIR", folder.path()).stdout(closed());
        command.env("TOKENBUS_NATS__URL", "nats://127.0.0.1:1");
        let output = command.output().expect("the program starts");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {errors}");
        // The list names the broken file.
        assert!(errors.is_empty() || line.starts_with("providers list"), "{line}: {errors}");
        assert!(!errors.contains("Broken pipe") && !errors.contains("panicked"), "{line}: {errors}");
        let _ = std::fs::remove_file(&keys);
        assert_eq!(command.stderr(closed()).status().expect("the program starts").code(), Some(0), "{line}");
        let _ = std::fs::remove_file(&keys);
    }
}
