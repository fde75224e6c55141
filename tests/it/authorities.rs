//! Authorities that a worker needs and does not find, or reads again.

use std::collections::HashMap;
use std::path::Path;

use tokio::process::Command;

use crate::fleet::as_user;
use crate::support::child::{Running, signal};
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};
use crate::support::wait::eventually;

/// Output and success of a command.
async fn output(settings: &HashMap<String, String>, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).envs(settings).kill_on_drop(true);
    let output = tokio::time::timeout(crate::support::wait::PATIENCE, command.output()).await;
    let output = output.expect("the command ends").expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

#[tokio::test]
async fn o10_missing_and_broken_authorities_are_named_at_start_and_by_doctor() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let settings = settings(&nats, "worker", &folder.path().join("keys"));
    run(&settings, &["keys", "generate", "--out", &path("keys")]).await;
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    std::fs::write(path("broken.pem"), broken).expect("it is written");
    for (variables, expected) in [
        (
            vec![("SSL_CERT_FILE", path("none")), ("SSL_CERT_DIR", path("none"))],
            "install its package `ca-certificates`",
        ),
        (vec![("TOKENBUS_OAUTH__CA", path("broken.pem"))], "certificate 1 in"),
        (vec![("TOKENBUS_OAUTH__CA", path("none"))], "oauth.ca: cannot read"),
    ] {
        let mut settings = settings.clone();
        settings.extend(variables.into_iter().map(|(name, value)| (name.to_owned(), value)));
        for command in [&["serve", "--role", "worker"][..], &["doctor", "--role", "worker"]] {
            let (is_success, text) = output(&settings, command).await;
            assert!(!is_success && text.contains(expected), "{command:?}: {expected} is not in {text}");
        }
    }
}

#[tokio::test]
async fn o10_sighup_reads_authorities_again_even_if_their_file_is_the_same() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mut settings = settings(&nats, "worker", &folder.path().join("keys"));
    run(&settings, &["keys", "generate", "--out", &path("keys")]).await;
    run(&as_user(&settings, &nats, "setup"), &["setup"]).await;
    let authority = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
    let authority = authority.self_signed(&rcgen::KeyPair::generate().expect("a key")).expect("a certificate");
    std::fs::write(path("ca.pem"), authority.pem()).expect("it is written");
    settings.insert("TOKENBUS_OAUTH__CA".to_owned(), path("ca.pem"));
    let log = folder.path().join("log");
    let worker = Running::start(Path::new(PROGRAM), &log, |command| {
        command.envs(&settings).args(["serve", "--role", "worker"]);
    });
    let log = || std::fs::read_to_string(&log).expect("a log");
    eventually("the worker is ready", async || log().contains("ready for commands and calls")).await;
    // The check of the file finds no change, so it loads nothing.
    let loaded = "loaded the authorities of providers again";
    assert!(!log().contains(loaded), "{}", log());
    signal(worker.pid(), "HUP");
    eventually("the authorities are loaded again", async || log().contains(loaded)).await;
}
