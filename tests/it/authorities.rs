//! Authorities that a worker needs and does not find.

use std::collections::HashMap;

use tokio::process::Command;

use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, run, settings};

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
