//! The production configuration of the server, and the settings for it, with the program itself.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command as Blocking;

use rcgen::ExtendedKeyUsagePurpose;
use serde_json::Value;

use crate::nats_tls::{authority, issue};
use crate::support::child::Running;
use crate::support::nats::{binary, generate, ports};
use crate::support::root;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, run};
use crate::support::wait::eventually;

#[tokio::test]
async fn the_production_configuration_serves_tls_with_client_certificates() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let ca = authority(folder.path(), "ca");
    issue(folder.path(), &ca, "server", ExtendedKeyUsagePurpose::ServerAuth);
    issue(folder.path(), &ca, "client", ExtendedKeyUsagePurpose::ClientAuth);
    let mut secrets = generate(folder.path());
    secrets.extend([
        ("NATS_SERVER_NAME".to_owned(), "tokenbus-1".to_owned()),
        ("NATS_TLS_CERT".to_owned(), path("server.pem")),
        ("NATS_TLS_KEY".to_owned(), path("server.key")),
        ("NATS_TLS_CA".to_owned(), path("ca.pem")),
    ]);
    let config = |name: &str| root().join("nats/production").join(name);
    for name in ["server.conf", "cluster.conf"] {
        let checked = Blocking::new(binary()).arg("-t").arg("-c").arg(config(name)).envs(&secrets).output().unwrap();
        assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
    }
    let _server = Running::start(Path::new(binary()), &folder.path().join("log"), |command| {
        command.arg("-c").arg(config("server.conf")).envs(&secrets).args(["-a", "127.0.0.1", "-p", "-1"]);
        command.arg("--ports_file_dir").arg(folder.path()).arg("-sd").arg(folder.path().join("store"));
    });
    let url = ports(folder.path()).await;
    let (_, address) = url.split_once("://").expect("a URL");
    let settings = |user: &str| -> HashMap<String, String> {
        let password = secrets[&format!("NATS_{}_PASSWORD", user.to_uppercase())].clone();
        let pairs = [
            ("NATS__URL", format!("tls://{address}")),
            ("NATS__USER", user.to_owned()),
            ("NATS__PASSWORD", password),
            ("NATS__CA", path("ca.pem")),
            ("NATS__CLIENT_CERT", path("client.pem")),
            ("NATS__CLIENT_KEY", path("client.key")),
            ("HTTP__LISTEN", "127.0.0.1:0".to_owned()),
            ("HTTP__METRICS_LISTEN", "127.0.0.1:0".to_owned()),
            ("SECRETS__KEYS_FILE", path("keys")),
        ];
        pairs.into_iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value)).collect()
    };
    let file = config("tokenbus.toml").display().to_string();
    let with_file = |arguments: &[&str]| [&["--config".to_owned(), file.clone()][..], &strings(arguments)].concat();
    let tool = async |user: &str, arguments: &[&str]| {
        let arguments = with_file(arguments);
        run(&settings(user), &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
    };
    tool("setup", &["keys", "generate", "--out", &path("keys")]).await;
    tool("setup", &["setup"]).await;
    let log = folder.path().join("worker.log");
    let _worker = Running::start(Path::new(PROGRAM), &log, |command| {
        command.args(with_file(&["serve", "--role", "worker"])).envs(settings("worker"));
    });
    let has_started = async || std::fs::read_to_string(&log).unwrap_or_default().contains("ready for commands");
    eventually("the worker is ready; otherwise see its log", has_started).await;
    for role in ["worker", "setup", "operator", "edge", "admin"] {
        let printed = tool(role, &["doctor", "--role", role]).await;
        assert!(printed.contains("TLS") && printed.ends_with("all is well\n"), "{role}: {printed}");
    }
    let made = tool("admin", &["api-keys", "create", "--account", ACCOUNT, "--json"]).await;
    let made: Value = serde_json::from_str(&made).expect("JSON");
    let scopes = made["scopes"].to_string();
    assert!(scopes.contains("tokens:read") && !scopes.contains("refresh_tokens:read"), "{made}");
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}
