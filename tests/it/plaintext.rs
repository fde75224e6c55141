//! Plaintext beyond loopback: refused at start, unless a setting allows it.

use std::path::Path;

use tokio::process::Command;
use tokio::time::timeout;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::support::wait::PATIENCE;

/// Addresses for documentation (RFC 5737, RFC 3849), which no machine has.
const SERVERS: [&str; 5] = [
    "nats://192.0.2.1:4222",
    "192.0.2.1",
    "nats://[2001:db8::1]:4222",
    "nats://nats.example:4222",
    "nats://127.0.0.1:4222,nats://192.0.2.1:4222",
];

/// Exit code and error text of a command that ends by itself.
async fn ends(command: &str, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut program = Command::new(PROGRAM);
    program.args(command.split(' ')).env("TOKENBUS_HTTP__LISTEN", "127.0.0.1:0").kill_on_drop(true);
    program.envs(settings.iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value)));
    let output = timeout(PATIENCE, program.output()).await;
    let output = output.unwrap_or_else(|_| panic!("{command} {settings:?} keeps running")).expect("it starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[tokio::test]
async fn h19_nats_beyond_loopback_needs_tls_or_a_setting() {
    for server in SERVERS {
        for command in ["serve --role edge", "setup"] {
            let (code, errors) = ends(command, &[("NATS__URL", server)]).await;
            assert_eq!(code, Some(1), "{command} {server}: {errors}");
            assert!(errors.contains("`nats.url`") && errors.contains("`nats.allow_plaintext`"), "{server}: {errors}");
        }
    }
    // The user of the system account, for account JWTs, connects by the same settings.
    for allowed in [("NATS__URL", "tls://192.0.2.1:4222"), ("NATS__ALLOW_PLAINTEXT", "true")] {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut gateway = Running::start(Path::new(PROGRAM), &folder.path().join("log"), |command| {
            command.env("TOKENBUS_NATS__URL", SERVERS[0]).env(format!("TOKENBUS_{}", allowed.0), allowed.1);
            command.env("TOKENBUS_HTTP__LISTEN", "127.0.0.1:0").args(["serve", "--role", "edge"]);
        });
        gateway.line(|line| line.contains("listening").then_some(())).await;
    }
}

#[tokio::test]
async fn h19_http_beyond_loopback_needs_a_certificate_or_a_setting() {
    let nats = Nats::start().await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let bus = [("NATS__URL", nats.url.as_str())];
    for (role, setting) in [("edge", "HTTP__LISTEN"), ("all", "HTTP__LISTEN"), ("worker", "HTTP__METRICS_LISTEN")] {
        for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:8080"] {
            let (code, errors) = ends(&format!("serve --role {role}"), &[bus[0], (setting, address)]).await;
            let name = setting.to_lowercase().replace("__", ".");
            assert_eq!(code, Some(1), "{role} {address}: {errors}");
            assert!(errors.contains(&format!("`{name}`")) && errors.contains("`http.allow_plaintext`"), "{errors}");
        }
    }
    let mut gateway = Running::start(Path::new(PROGRAM), &folder.path().join("log"), |command| {
        command.envs(settings(&nats, "edge", Path::new(""))).env("TOKENBUS_HTTP__LISTEN", "0.0.0.0:0");
        command.env("TOKENBUS_HTTP__ALLOW_PLAINTEXT", "true").args(["serve", "--role", "edge"]);
    });
    gateway.line(|line| line.contains("listening on http://0.0.0.0:").then_some(())).await;
}
