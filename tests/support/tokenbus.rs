//! The program itself, on a real nats-server.

use super::child::Running;
use super::nats::Nats;
use super::wait::eventually;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use tempfile::TempDir;
use tokio::process::Command;
use url::Url;

/// The program.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_tokenbus");

/// The tenant that `nats/tenants.conf` ships, with the user `demo`. Its admin key may write configs.
pub(crate) const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

/// `tokenbus serve`, edge and worker in one process, with its bus.
pub(crate) struct Tokenbus {
    /// Its address.
    pub(crate) url: Url,
    /// The bus.
    pub(crate) nats: Nats,
    /// An API key of [`ACCOUNT`] with the role `admin`.
    pub(crate) admin_key: String,
    /// An API key of [`ACCOUNT`] without a role.
    pub(crate) key: String,
    settings: HashMap<String, String>,
    as_admin: HashMap<String, String>,
    http: reqwest::Client,
    process: Running,
    folder: TempDir,
}

impl Tokenbus {
    /// Starts a bus, declares streams and buckets, makes the keys, and serves. Further settings are named as in the
    /// environment, without `TOKENBUS_`.
    pub(crate) async fn start(more: &[(&str, &str)]) -> Self {
        Self::start_on(Nats::start().await, more).await
    }

    /// The same on a bus that is there already.
    pub(crate) async fn start_on(nats: Nats, more: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys_file = folder.path().join("keys");
        let [settings, as_setup, as_admin] = ["worker", "setup", "admin"].map(|user| {
            let mut settings = settings(&nats, user, &keys_file);
            settings.extend(more.iter().map(|(name, value)| (format!("TOKENBUS_{name}"), (*value).to_owned())));
            settings
        });

        let keys = keys_file.to_str().expect("a path of plain letters");
        run(&as_setup, &["keys", "generate", "--out", keys]).await;
        run(&as_setup, &["setup"]).await;
        let admin_key = nats.api_key(ACCOUNT, "admin").await;
        let key = nats.api_key(ACCOUNT, "member").await;

        let (process, url) = serve(&settings, folder.path()).await;
        nats.serves_nodes().await;
        // No idle connections: the gateway closes one after a minute, and a test that blocks its runtime misses that.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
        Self { url, nats, admin_key, key, settings, as_admin, http, process, folder }
    }

    /// Ends the program with SIGKILL and starts it again on the same bus, with a new address.
    pub(crate) async fn crash_and_restart(&mut self) {
        self.process.kill().await;
        self.start_again().await;
    }

    /// Starts the program again after [`Tokenbus::kill`].
    pub(crate) async fn start_again(&mut self) {
        (self.process, self.url) = serve(&self.settings, self.folder.path()).await;
        self.nats.serves_nodes().await;
    }

    /// Ends the program with SIGKILL.
    pub(crate) async fn kill(&mut self) {
        self.process.kill().await;
    }

    /// Ends the program with SIGKILL and the bus with it, then starts the program alone.
    pub(crate) async fn restart_without_nats(&mut self) {
        self.process.kill().await;
        self.nats.kill().await;
        (self.process, self.url) = listen(&self.settings, self.folder.path()).await;
    }

    /// Serves on another bus with the same keyring, after [`Tokenbus::kill`].
    pub(crate) async fn serve_on(&mut self, nats: Nats) {
        let replicas = if nats.others() > 0 { "3" } else { "1" };
        for (user, own) in [("worker", &mut self.settings), ("admin", &mut self.as_admin)] {
            own.extend(settings(&nats, user, &self.folder.path().join("keys")));
            own.insert("TOKENBUS_NATS__REPLICAS".to_owned(), replicas.to_owned());
        }
        self.nats = nats;
        self.start_again().await;
    }

    /// Waits until the program is ready.
    pub(crate) async fn ready(&self) {
        ready(&self.url).await;
        self.nats.serves_nodes().await;
    }

    /// An API key of any account.
    pub(crate) async fn api_key(&self, account: &str, role: &str) -> String {
        self.nats.api_key(account, role).await
    }

    /// Runs one of the program's commands with an admin's settings and returns its output.
    pub(crate) async fn tool(&self, arguments: &[&str]) -> String {
        run(&self.as_admin, arguments).await
    }

    /// The keyring's file.
    pub(crate) fn keys_file(&self) -> std::path::PathBuf {
        self.folder.path().join("keys")
    }

    /// Its log so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).expect("a log file")
    }

    /// A request without a credential.
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, self.endpoint(path))
    }

    /// The redirect URI at the program's current address.
    pub(crate) fn callback(&self) -> String {
        self.endpoint("hub/integrations/oauth-callback").into()
    }

    /// A URL of its HTTP interface.
    pub(crate) fn endpoint(&self, path: &str) -> Url {
        self.url.join(path).expect("a path makes a URL")
    }

    /// Puts an integration's config, as an admin.
    pub(crate) async fn configure(&self, config: &Value) {
        let integration = config["integration_id"].as_str().expect("a config names its integration");
        let url = self.endpoint(&format!("hub/integrations/{integration}/oauth-config"));
        let answer = self.http.put(url).header("x-api-key", &self.admin_key).json(config).send().await;
        let (status, body) = read(answer.expect("tokenbus answers")).await;
        assert_eq!((status, &body["message"]), (StatusCode::OK, &Value::from("success")), "{body}");
    }

    /// The authorization URL of a login.
    pub(crate) async fn login(&self, integration: &str, connection: &str) -> Url {
        let (status, body) = self.call(Method::GET, &format!("{integration}/oauth-login/{connection}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let url = body["oauth_url"].as_str().expect("a login answers with a URL");
        Url::parse(url).expect("the URL is one")
    }

    /// The status of a read below `/hub/integrations/`.
    pub(crate) async fn get(&self, path: &str) -> StatusCode {
        let url = self.endpoint(&format!("hub/integrations/{path}"));
        let answer = self.http.get(url).header("x-api-key", &self.key).send().await;
        answer.expect("tokenbus answers").status()
    }

    /// The answer to a call below `/hub/integrations/`, with the key that has no role.
    pub(crate) async fn call(&self, method: Method, path: &str) -> (StatusCode, Value) {
        let url = self.endpoint(&format!("hub/integrations/{path}"));
        let answer = self.http.request(method, url).header("x-api-key", &self.key).send().await;
        read(answer.expect("tokenbus answers")).await
    }

    /// The answer to the callback that a provider sent the browser to, with an API key, so that it has the tokens.
    pub(crate) async fn arrive(&self, callback: &Url) -> (StatusCode, Value) {
        self.arrive_with(&self.key, callback).await
    }

    /// The same with that key.
    pub(crate) async fn arrive_with(&self, key: &str, callback: &Url) -> (StatusCode, Value) {
        let request = self.http.get(callback.clone()).header("accept", "application/json");
        let answer = request.header("x-api-key", key).send().await;
        read(answer.expect("tokenbus answers")).await
    }
}

async fn serve(settings: &HashMap<String, String>, folder: &Path) -> (Running, Url) {
    let (process, url) = listen(settings, folder).await;
    ready(&url).await;
    (process, url)
}

/// Starts the program and waits until it listens.
async fn listen(settings: &HashMap<String, String>, folder: &Path) -> (Running, Url) {
    let mut process = Running::start(Path::new(PROGRAM), &folder.join("log"), |command| {
        command.envs(settings).args(["serve", "--role", "all"]);
    });
    let url = process.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
    (process, url)
}

/// Waits for the worker. The gateway listens earlier, and answers 503 until then.
async fn ready(url: &Url) {
    // No idle connections: the gateway closes one after a minute, and a test that blocks its runtime misses that.
    let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
    let readiness = url.join("readyz").expect("a path makes a URL");
    let is_ready =
        async || http.get(readiness.clone()).send().await.expect("tokenbus answers").status() == StatusCode::OK;
    eventually("tokenbus is ready; otherwise see its log", is_ready).await;
}

/// Settings of a process that connects as `user`.
pub(crate) fn settings(nats: &Nats, user: &str, keys_file: &Path) -> HashMap<String, String> {
    let password = nats.password(user);
    let keys_file = keys_file.display().to_string();
    let admins = format!("[\"{ACCOUNT}\"]");
    let pairs = [
        ("NATS__URL", nats.url.as_str()),
        ("NATS__USER", user),
        ("NATS__PASSWORD", password),
        ("HTTP__LISTEN", "127.0.0.1:0"),
        ("HTTP__SHUTDOWN_DELAY", "0"),
        ("OAUTH__ALLOW_INSECURE_URLS", "true"),
        ("OAUTH__ALLOWED_HOSTS", "[\"127.0.0.1\"]"),
        ("AUTH__ADMIN_ACCOUNTS", &admins),
        ("SECRETS__KEYS_FILE", &keys_file),
        ("REFRESH__MIN_INTERVAL", "1s"),
    ];
    // Without it a process uses no server of a cluster but the one that it is given.
    let cluster = (nats.others() > 0).then_some(("NATS__ALLOW_PLAINTEXT", "true"));
    let pairs = pairs.into_iter().chain(cluster);
    let mut settings: HashMap<String, String> =
        pairs.map(|(name, value)| (format!("TOKENBUS_{name}"), value.to_owned())).collect();
    if !nats.has_large_streams {
        settings.extend(small_streams());
    }
    settings
}

/// Settings with which all streams together fit into 1 GiB: the server reserves what they may store.
pub(crate) fn small_streams() -> [(String, String); 10] {
    let names =
        ["OAUTH", "COMMANDS", "EVENTS", "DEAD", "CONNECTIONS", "STATES", "CONFIGS", "API_KEYS", "META", "NONCES"];
    names.map(|name| (format!("TOKENBUS_NATS__MAX_BYTES__{name}"), "100MiB".to_owned()))
}

/// Runs one of the program's commands, which must succeed, and returns its output.
pub(crate) async fn run(settings: &HashMap<String, String>, arguments: &[&str]) -> String {
    let output = Command::new(PROGRAM).args(arguments).envs(settings).kill_on_drop(true).output().await;
    let output = output.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "tokenbus {arguments:?}: {errors}");
    String::from_utf8(output.stdout).expect("the program prints text")
}

/// Status and JSON body of an answer.
pub(crate) async fn read(answer: Response) -> (StatusCode, Value) {
    let status = answer.status();
    let text = answer.text().await.expect("a whole answer");
    let body = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status}, not JSON ({error}): {text}"));
    (status, body)
}
