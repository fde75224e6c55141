//! The gateway as a separate process, without a bus: TLS, SIGHUP and its access log.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rcgen::{CertificateParams, KeyPair};
use reqwest::{Certificate, Client, StatusCode};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{sleep, timeout};
use url::Url;

use crate::support::child::{Running, signal};
use crate::support::tokenbus::PROGRAM;
use crate::support::wait::PATIENCE;

/// A process of the program, and its files.
struct Process {
    running: Running,
    folder: TempDir,
}

impl Process {
    /// Starts `serve` in that role with an unreachable bus and these settings, named without `TOKENBUS_`.
    fn start(folder: TempDir, role: &str, settings: &[(&str, &str)]) -> Self {
        let running = Running::start(Path::new(PROGRAM), &folder.path().join("log"), |command| {
            configure(command, settings);
            command.args(["serve", "--role", role]);
        });
        Self { running, folder }
    }

    async fn url(&mut self) -> Url {
        self.running.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log file")
    }

    async fn wait_for_log(&self, text: &str) {
        eventually(async || self.log().contains(text), || format!("`{text}` is not in\n{}", self.log())).await;
    }
}

fn configure(command: &mut Command, settings: &[(&str, &str)]) {
    command.env("TOKENBUS_NATS__URL", "nats://127.0.0.1:1").env("TOKENBUS_HTTP__LISTEN", "127.0.0.1:0");
    command.envs(settings.iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value)));
}

async fn eventually(mut happens: impl AsyncFnMut() -> bool, otherwise: impl Fn() -> String) {
    let polling = async {
        while !happens().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(PATIENCE, polling).await.is_ok(), "{}", otherwise());
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Writes a new certificate for loopback and its key. Returns a client that only trusts this certificate.
fn renew(folder: &Path) -> Client {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("a name");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    std::fs::write(folder.join("key"), key.serialize_pem()).expect("the folder can be written");
    std::fs::write(folder.join("cert"), &pem).expect("the folder can be written");
    let certificate = Certificate::from_pem(pem.as_bytes()).expect("a certificate");
    Client::builder().no_proxy().tls_certs_only([certificate]).build().expect("an HTTP client")
}

async fn status(client: &Client, url: &Url) -> Option<StatusCode> {
    client.get(url.join("healthz").expect("a path")).send().await.ok().map(|answer| answer.status())
}

#[tokio::test]
async fn the_gateway_serves_tls_and_reloads_certificates_while_it_runs() {
    let folder = folder();
    let client = renew(folder.path());
    let [cert, key] = ["cert", "key"].map(|name| folder.path().join(name).display().to_string());
    let mut edge = Process::start(folder, "edge", &[("HTTP__TLS_CERT", &cert), ("HTTP__TLS_KEY", &key)]);
    let url = edge.url().await;
    assert_eq!(url.scheme(), "https");
    let answer = client.get(url.join("healthz").expect("a path")).send().await.expect("TLS");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    let mut plain = url.clone();
    plain.set_scheme("http").expect("a scheme");
    assert_ne!(status(&client, &plain).await, Some(StatusCode::OK), "plain HTTP on the same port");

    // With a broken file the old certificate stays in use and the log says why; a valid file is loaded at once.
    std::fs::write(&cert, "nothing").expect("the folder can be written");
    signal(edge.running.pid(), "HUP");
    edge.wait_for_log("certificate not loaded; keeping the old one: http.tls_cert: no PEM certificate").await;
    assert_eq!(status(&client, &url).await, Some(StatusCode::OK));
    let newer = renew(edge.folder.path());
    signal(edge.running.pid(), "HUP");
    eventually(async || status(&newer, &url).await == Some(StatusCode::OK), || edge.log()).await;
    // Files are reloaded without a signal, too.
    let newest = renew(edge.folder.path());
    eventually(async || status(&newest, &url).await == Some(StatusCode::OK), || edge.log()).await;
    assert!(!edge.log().contains("PRIVATE KEY"));
}

#[tokio::test]
async fn sighup_ends_no_role() {
    for role in ["edge", "worker", "all"] {
        let folder = folder();
        let keys = folder.path().join("keys");
        let made = Command::new(PROGRAM).args(["keys", "generate", "--out"]).arg(&keys).stdout(Stdio::null()).status();
        assert!(made.await.expect("the program starts").success());
        let mut process = Process::start(
            folder,
            role,
            &[("SECRETS__KEYS_FILE", &keys.display().to_string()), ("LOG__FILTER", "info")],
        );
        process.wait_for_log("NATS").await;
        for times in 1..=2 {
            signal(process.running.pid(), "HUP");
            let heard = async || process.log().matches("SIGHUP").count() == times;
            eventually(heard, || format!("{role}: {}", process.log())).await;
        }
        signal(process.running.pid(), "TERM");
        let ended = process.running.ended().await;
        assert!(ended.success(), "{role}: {ended}\n{}", process.log());
    }
}

#[tokio::test]
async fn f2_access_logs_name_the_client_and_drop_the_query() {
    let trusted = [("HTTP__TRUSTED_PROXIES", "[127.0.0.1]"), ("LOG__FILTER", "info")];
    let mut edge = Process::start(folder(), "edge", &trusted);
    let url = edge.url().await;
    let client = Client::builder().no_proxy().build().expect("an HTTP client");
    for path in [
        "healthz?code=canary-query",
        "canary-nowhere?code=canary-query",
        "hub/integrations/oauth-callback?code=canary-code",
        "hub/integrations/canary-integration/oauth-token/canary-name?refresh_token=canary-token",
    ] {
        let request = client.get(url.join(path).expect("a path")).header("x-forwarded-for", "canary, 192.0.2.7");
        let request = request.header("user-agent", "canary-agent").header("cookie", "canary=1");
        request.send().await.expect("the gateway answers");
    }
    edge.wait_for_log("route=\"/hub/integrations/{integration_id}/oauth-token/{connection_id}\" status=401").await;
    let log = edge.log();
    for line in ["route=\"/healthz\" status=200", "route=\"unrouted\" status=404", "oauth-callback\" status=400"] {
        let found = log.lines().find(|found| found.contains(line));
        assert!(found.is_some_and(|found| found.contains(" client=192.0.2.7 ")), "`{line}` is not in\n{log}");
    }
    assert!(!log.contains("canary"), "{log}");
}

/// The error text of a start with that setting.
async fn start_error(settings: &[(&str, &str)]) -> String {
    let mut command = Command::new(PROGRAM);
    configure(&mut command, settings);
    let output = command.args(["serve", "--role", "edge"]).kill_on_drop(true).output();
    let output = timeout(PATIENCE, output).await.expect("it ends by itself").expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).expect("text")
}

#[tokio::test]
async fn invalid_settings_are_named() {
    let folder = folder();
    renew(folder.path());
    let path = |name: &str| -> PathBuf { folder.path().join(name) };
    std::fs::write(path("empty"), "").expect("the folder can be written");
    let [cert, key, empty, missing] = ["cert", "key", "empty", "missing"].map(|name| path(name).display().to_string());
    for (settings, expected) in [
        (&[("HTTP__TLS_CERT", cert.as_str())][..], "tokenbus: http.tls_cert and http.tls_key go together"),
        (&[("HTTP__TLS_CERT", &missing), ("HTTP__TLS_KEY", &key)], "tokenbus: http.tls_cert: cannot read /"),
        (&[("HTTP__TLS_CERT", &empty), ("HTTP__TLS_KEY", &key)], "tokenbus: http.tls_cert: no PEM certificate in /"),
        (&[("HTTP__TLS_CERT", &cert), ("HTTP__TLS_KEY", &cert)], "tokenbus: http.tls_key: no PEM private key in /"),
        (
            &[("HTTP__TRUSTED_PROXIES", "[10.0.0.0/33]")],
            "TOKENBUS_HTTP__TRUSTED_PROXIES: must be addresses or networks",
        ),
        (&[("NATS__CLIENT_CERT", &cert)], "tokenbus: `nats.client_cert` and `nats.client_key` go together"),
        (&[("NATS__CLIENT_CERT", &cert), ("NATS__CLIENT_KEY", &cert)], "tokenbus: `nats.client_key` holds no PEM"),
        (&[("NATS__CA", &missing)], "tokenbus: cannot read /"),
        (&[("NATS__CA", &empty)], "tokenbus: `nats.ca` holds no PEM certificate"),
    ] {
        let start_error = start_error(settings).await;
        assert!(start_error.contains(expected) && start_error.lines().count() == 1, "{expected}:\n{start_error}");
    }
}
