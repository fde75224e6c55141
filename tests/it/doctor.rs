//! `tokenbus doctor`: its findings, its advice and its exit code.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Value, json};
use tokio::process::Command;

use crate::bus::Bus;
use crate::cli_connections::tokenbus;
use crate::nats_operator::ROOT;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, Tokenbus, run, settings};
use crate::support::wait::PATIENCE;

/// Exit code, standard output and standard error of `tokenbus doctor` with these arguments.
async fn doctor(settings: &HashMap<String, String>, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(PROGRAM);
    let output = command.arg("doctor").args(arguments).envs(settings).output().await.expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// The status of each check, by name.
async fn statuses(settings: &HashMap<String, String>, role: &str) -> (Option<i32>, HashMap<String, String>, Value) {
    let (code, printed, errors) = doctor(settings, &["--role", role, "--json"]).await;
    let report: Value = serde_json::from_str(&printed).unwrap_or_else(|error| panic!("{error}: {printed} {errors}"));
    assert_eq!(report["ok"], code == Some(0), "{report}");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let checks = report["checks"].as_array().expect("a list");
    let found = checks.iter().map(|check| (text(&check["check"]), text(&check["status"]))).collect();
    (code, found, report)
}

#[tokio::test]
async fn doctor_reports_no_problem_on_a_healthy_setup() {
    let tokenbus = Tokenbus::start(&[]).await;
    for (user, role) in [
        ("worker", "all"),
        ("worker", "worker"),
        ("setup", "setup"),
        ("edge", "edge"),
        ("operator", "operator"),
        ("admin", "admin"),
    ] {
        let settings = settings(&tokenbus.nats, user, &tokenbus.keys_file());
        let (code, found, report) = statuses(&settings, role).await;
        assert_eq!(code, Some(0), "{user} as {role}: {report}");
        assert!(!found.values().any(|status| status == "failed" || status == "warning"), "{role}: {report}");
        assert_eq!(found.contains_key("keyring"), user == "worker", "{report}");
        assert_eq!(found.contains_key("streams"), !["edge", "admin"].contains(&user), "{report}");
        let (code, printed, errors) = doctor(&settings, &["--role", role]).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{printed}");
        assert!(printed.ends_with("all is well\n") && !printed.contains('\x1b'), "{printed}");
    }
}

#[tokio::test]
async fn doctor_names_each_problem_and_its_remedy() {
    let nats = Nats::edited(&[ROOT], &["root"]).await;
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let settings = settings(&nats, "worker", &keys);

    // Before `tokenbus setup`.
    let (code, found, report) = statuses(&settings, "worker").await;
    assert_eq!((code, found["keyring"].as_str(), found["streams"].as_str()), (Some(1), "failed", "failed"), "{report}");
    assert!(report.to_string().contains("tokenbus keys generate") && report.to_string().contains("tokenbus setup"));
    let (code, _, report) = statuses(&self::settings(&nats, "edge", &keys), "edge").await;
    assert_eq!(code, Some(1));
    assert!(report.to_string().contains("no worker answers"), "{report}");

    // One stream differs, and a key in use is missing from the keyring.
    run(&settings, &["keys", "generate", "--out", keys.to_str().unwrap()]).await;
    let root = async_nats::jetstream::new(nats.connect("root").await);
    let other = json!({ "name": "OAUTH_DEAD", "subjects": ["oauth.dead.>"], "max_msgs": 7 });
    root.client().request("$JS.API.STREAM.CREATE.OAUTH_DEAD", other.to_string().into()).await.unwrap();
    let (code, found, report) = statuses(&settings, "worker").await;
    assert_eq!((code, found["streams"].as_str(), found["keyring"].as_str()), (Some(1), "failed", "ok"), "{report}");
    assert!(report.to_string().contains("stream OAUTH_DEAD exists with"), "{report}");
}

#[tokio::test]
async fn e2_doctor_finds_a_missing_key_and_other_replicas() {
    let tokenbus = Tokenbus::start(&[]).await;
    let folder = tempfile::tempdir().unwrap();
    let others = folder.path().join("others");
    let mut settings = settings(&tokenbus.nats, "worker", &others);
    run(&settings, &["keys", "generate", "--out", others.to_str().unwrap()]).await;
    settings.insert("TOKENBUS_NATS__REPLICAS".to_owned(), "3".to_owned());
    let bus = Bus::of(&tokenbus.nats).await;
    let mut meta = bus.messages("KV_oauth_meta").await.into_iter();
    let entry = meta.find(|entry| entry.subject.ends_with(".keys")).expect("the keys in use");
    let used: Vec<String> = serde_json::from_slice(&entry.payload).unwrap();
    let (code, found, report) = statuses(&settings, "worker").await;
    assert_eq!((code, found["keys in use"].as_str(), found["streams"].as_str()), (Some(1), "failed", "failed"));
    assert!(report.to_string().contains(&used[0]) && report.to_string().contains("other replicas"), "{report}");
}

#[tokio::test]
async fn doctor_distinguishes_invalid_settings_from_an_absent_server() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "[nats]\nurll = \"x\"\n").unwrap();
    let none = HashMap::new();
    let (code, printed, _) = doctor(&none, &["--config", file.path().to_str().unwrap()]).await;
    assert_eq!(code, Some(1));
    assert!(printed.starts_with("✗ settings") && printed.contains("nats.urll: unknown setting"), "{printed}");

    let nearly = HashMap::from([("TOKENBUS_NATS_URL".to_owned(), "nats://127.0.0.1:1".to_owned())]);
    let (code, printed, _) = doctor(&nearly, &["--role", "edge"]).await;
    assert!(code == Some(1) && printed.contains("section and key: TOKENBUS_NATS__URL"), "{printed}");

    let away = HashMap::from([("TOKENBUS_NATS__URL".to_owned(), "nats://127.0.0.1:1".to_owned())]);
    let (code, printed, said) = doctor(&away, &["--role", "edge"]).await;
    assert_eq!(code, Some(1));
    let verdicts = format!("{printed}{said}").matches("checks failed").count();
    assert!(verdicts == 1 && said.ends_with("checks failed\n"), "one verdict, at the end: {printed}{said}");
    assert!(printed.contains("✗ NATS") && printed.contains("→ start nats-server"), "{printed}");
}

#[tokio::test]
async fn doctor_names_settings_with_which_nothing_would_start() {
    let folder = tempfile::tempdir().unwrap();
    let away = [("TOKENBUS_NATS__URL", "nats://127.0.0.1:1"), ("TOKENBUS_SECRETS__KEYS_FILE", "none")];
    let check = async |role: &str, settings: &[(&str, &str)], expected: &[&str]| {
        let settings: HashMap<_, _> =
            away.iter().chain(settings).map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (code, found, report) = statuses(&settings, role).await;
        assert_eq!((code, found["settings"].as_str()), (Some(1), "failed"), "{report}");
        for expected in expected {
            assert!(report.to_string().contains(expected), "{expected} is not in {report}");
        }
        let mut serve = Command::new(PROGRAM);
        serve.args(["serve", "--role", role]).envs(&settings).current_dir(folder.path());
        let refused = tokio::time::timeout(PATIENCE, serve.kill_on_drop(true).output()).await;
        let refused = refused.expect("it ends by itself").expect("the program starts");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(refused.status.code() == Some(1) && expected.iter().any(|expected| said.contains(expected)), "{said}");
    };
    let traces = ("TOKENBUS_TRACES__ENDPOINT", "https://127.0.0.1:1");
    check("edge", &[("TOKENBUS_HTTP__TLS_CERT", "cert.pem")], &["http.tls_"]).await;
    check("edge", &[traces, ("TOKENBUS_TRACES__SAMPLE", "7")], &["traces.sample"]).await;
    let audit = [("TOKENBUS_EVENTS__READS", "all"), ("TOKENBUS_EVENTS__SYNC", "false")];
    check("worker", &audit, &["events.reads"]).await;
    let keys = folder.path().join("keys");
    run(&HashMap::new(), &["keys", "generate", "--out", keys.to_str().unwrap()]).await;
    let keyring = ("TOKENBUS_SECRETS__KEYS_FILE", keys.to_str().unwrap());
    let both = [keyring, ("TOKENBUS_WEBHOOKS__URL", "https://example.com/"), ("TOKENBUS_AUTH__JWT__ISSUER", "x")];
    check("worker", &both, &["webhooks.secret", "auth.jwt needs `audience`"]).await;
    let operators = ("TOKENBUS_AUTH__NATS__ACCOUNTS_DIR", "accounts");
    check("worker", &[keyring, operators], &["auth.nats needs `operators`"]).await;
}

#[tokio::test]
async fn o13_doctor_warns_of_a_proxy_protocol_that_no_proxy_may_speak() {
    let tokenbus = Tokenbus::start(&[]).await;
    let mut settings = settings(&tokenbus.nats, "edge", &tokenbus.keys_file());
    settings.insert("TOKENBUS_HTTP__PROXY_PROTOCOL".to_owned(), "true".to_owned());
    let (code, found, report) = statuses(&settings, "edge").await;
    assert_eq!((code, found["listeners"].as_str()), (Some(0), "warning"), "{report}");
    assert!(report.to_string().contains("http.trusted_proxies"), "{report}");
}

/// A user without JetStream gets no error about the server's version, and doctor does not wait at each stream.
#[tokio::test]
async fn doctor_explains_a_user_of_another_role() {
    let nats = Nats::start().await;
    for user in ["demo", "edge"] {
        let settings = settings(&nats, user, Path::new("none"));
        let (code, found, report) = statuses(&settings, "operator").await;
        assert_eq!((code, found["JetStream"].as_str()), (Some(1), "failed"), "{report}");
        assert_eq!(found["streams"], "skipped", "{report}");
        assert!(report.to_string().contains("no JetStream for this user"), "{report}");
        assert_eq!(doctor(&settings, &["--role", "operator"]).await.2.lines().count(), 1, "one line, without a log");
    }
    let mut settings = settings(&nats, "operator", Path::new("none"));
    let printed = tokenbus(&nats, "operator", &["api-keys", "list"]).await;
    printed.fails(1, "this NATS user may not call `oauth.admin.keys`, connect as `admin`");
    settings.insert("TOKENBUS_NATS__PASSWORD".to_owned(), "wrong".to_owned());
    let (_, printed, _) = doctor(&settings, &["--role", "operator"]).await;
    assert!(printed.contains("refuses this user: correct `nats.user`"), "{printed}");
}

/// An entry newer than the backup that `OAUTH` was restored from: a worker would refuse to start.
#[tokio::test]
async fn doctor_finds_a_record_stream_that_would_go_backwards() {
    let nats = Nats::edited(&[ROOT], &["root"]).await;
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let settings = settings(&nats, "worker", &keys);
    run(&settings, &["keys", "generate", "--out", keys.to_str().unwrap()]).await;
    run(&settings, &["setup"]).await;
    let (code, found, report) = statuses(&settings, "worker").await;
    assert_eq!((code, found["sequences"].as_str()), (Some(0), "ok"), "{report}");
    let root = async_nats::jetstream::new(nats.connect("root").await);
    let entry = json!({ "sequence": 7 }).to_string();
    root.publish("$KV.oauth_configs.odd", entry.into()).await.unwrap().await.unwrap();
    let (code, found, report) = statuses(&settings, "worker").await;
    assert_eq!((code, found["sequences"].as_str()), (Some(1), "failed"), "{report}");
    assert!(report.to_string().contains("--first-seq 1007"), "{report}");
}

#[tokio::test]
async fn doctor_warns_of_a_world_readable_keyring() {
    use std::os::unix::fs::PermissionsExt as _;
    let tokenbus = Tokenbus::start(&[]).await;
    let settings = settings(&tokenbus.nats, "worker", &tokenbus.keys_file());
    for (mode, expected) in [(0o600, None), (0o640, None), (0o644, Some("warning"))] {
        std::fs::set_permissions(tokenbus.keys_file(), std::fs::Permissions::from_mode(mode)).unwrap();
        let (code, found, report) = statuses(&settings, "worker").await;
        assert_eq!((code, found.get("keyring's file").map(String::as_str)), (Some(0), expected), "{mode:o}: {report}");
    }
}

/// A gateway with a worker's user would do harm when taken over.
#[tokio::test]
async fn e9_doctor_reports_a_gateway_with_too_many_permissions() {
    let tokenbus = Tokenbus::start(&[]).await;
    let (code, found, report) = statuses(&settings(&tokenbus.nats, "worker", Path::new("none")), "edge").await;
    assert_eq!((code, found["limits"].as_str()), (Some(0), "warning"), "{report}");
    assert!(report.to_string().contains("$JS.API.>"), "{report}");
}
