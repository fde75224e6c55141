//! Format and level of the log (`log.format`, `log.filter`).

use std::io::Write as _;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::task::JoinSet;

use crate::fleet::Fleet;
use crate::operators::{Gateway, program};
use crate::provider::Provider;
use crate::support::child::signal;
use crate::support::nats::Nats;
use crate::support::wait::eventually;

#[tokio::test]
async fn o17_every_line_of_the_log_is_json_if_configured() {
    let nats = Nats::start().await;
    let json = ("LOG__FORMAT", "json");
    for wrong in [
        ("HTTP__MAX_CONNECTIONS", "many"),
        ("NATS__CA", "/nowhere"),
        ("HTTP__LISTEN", "192.0.2.1:1"),
        ("LOG__FILTER", "=[x"),
        ("TRACES__SAMPLE", "2"),
        ("TRACES__ENDPOINT", "http://joe:s3cret@127.0.0.1:4317"),
    ] {
        let more = [json, ("HTTP__ALLOW_PLAINTEXT", "true"), ("TRACES__ENDPOINT", "http://127.0.0.1:4317"), wrong];
        let output = program(&nats, &more, &[]).output().await;
        let output = output.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && !text.contains("s3cret"), "{text}");
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
        assert!(lines.iter().any(|line| line["level"] == "ERROR"), "{text}");
    }
}

#[tokio::test]
async fn o17_a_panic_is_a_line_of_json() {
    let provider = Provider::generous().await;
    let (fleet, mut worker) = Fleet::configured(&provider.url).await;
    worker.kill().await;
    let failpoint = "exchange_1_callback_checked";
    let worker = fleet.worker_with(&[("TOKENBUS_LOG__FORMAT", "json"), ("FAIL_PANIC_AT", failpoint)]);
    worker.ready().await;
    fleet.ready().await;
    let mut callbacks = JoinSet::new();
    callbacks.spawn(fleet.arrive(&fleet.login("one").await, "code"));
    eventually("the log has the panic", async || worker.log().contains("panic: ")).await;
    let log = worker.log();
    let (whole, _) = log.rsplit_once('\n').expect("lines");
    let lines: Vec<Value> = whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let panic = lines.iter().find(|line| text(line, "message").contains(failpoint)).expect(&log);
    assert_eq!(panic["level"], "ERROR");
    assert!(text(panic, "place").contains(".rs:"), "{panic}");
}

#[tokio::test]
async fn o17_the_level_is_read_again_on_sighup() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("settings.toml");
    let write = |filter: &str| std::fs::write(&file, format!("[log]\nfilter = \"{filter}\"\n")).expect("it is written");
    write("info,tokenbus::http=warn");
    let name = file.to_str().expect("a path of plain letters").to_owned();
    // A secret's file is read once.
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s3cret").expect("it is written");
    let of_secret = ("CLI__API_KEY_FILE", secret.to_str().expect("a path of plain letters"));
    let more = [("HTTP__SHUTDOWN_DELAY", "0"), of_secret];
    let mut gateway = Gateway::start(&nats, &more, &["--config", &name]).await;
    std::fs::remove_file(&secret).expect("it is there");
    gateway.get("healthz?first").await;
    write("info");
    gateway.signal("HUP");
    let mut log = BufReader::new(gateway.child.stderr.take().expect("it is piped"));
    let mut seen = String::new();
    while !seen.contains("log.filter") {
        assert_ne!(log.read_line(&mut seen).await.expect("the log is text"), 0, "{seen}");
    }
    assert!(!seen.contains("route="), "{seen}");
    gateway.get("healthz").await;
    gateway.signal("TERM");
    log.read_to_string(&mut seen).await.expect("the log is text");
    assert!(seen.contains("route=\"/healthz\"") || seen.contains("/healthz"), "{seen}");
    gateway.ended().await;
}

#[tokio::test]
async fn o17_sighup_does_not_end_a_process_that_reads_its_settings() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pipe = folder.path().join("secret");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo runs").success());
    let name = pipe.to_str().expect("a path of plain letters");
    let mut program = program(&nats, &[("CLI__API_KEY_FILE", name), ("HTTP__SHUTDOWN_DELAY", "0")], &[]);
    let child = program.spawn().expect("the program starts");
    // Opens once the program reads.
    let opened = tokio::task::spawn_blocking(move || std::fs::File::options().write(true).open(pipe));
    let mut secret = opened.await.expect("no panic").expect("it can be written");
    signal(child.id().expect("the program runs"), "HUP");
    secret.write_all(b"s3cret").expect("the program still reads");
    drop(secret);
    let mut gateway = Gateway::of(child).await;
    gateway.signal("TERM");
    gateway.ended().await;
}
