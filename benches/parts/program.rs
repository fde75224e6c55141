//! A build of the program with both roles in one process, on a server of its own. The server's configuration has one account
//! with one user that may do everything, so that builds with different NATS users run on it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use url::Url;

use crate::load;
use crate::provider::Provider;
use crate::support::child::Running;
use crate::support::nats::{binary, ports};
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;

pub(crate) const INTEGRATION: &str = "odd";
/// User and password of the one NATS user.
const USER: &str = "worker";
const PASSWORD: &str = "bench";

/// A program, its server and a provider.
pub(crate) struct Program {
    url: Url,
    key: String,
    http: reqwest::Client,
    server: Running,
    process: Running,
    server_url: String,
    provider: Provider,
    _folder: TempDir,
}

/// CPU seconds that processes have used so far.
#[derive(Clone, Copy)]
pub(crate) struct Cpu(f64);

impl Program {
    /// Starts the build. The server syncs each write before it answers, as the shipped configuration says.
    pub(crate) async fn start(build: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (server, server_url) = serve(folder.path()).await;
        let settings = settings(&server_url, folder.path());
        run(build, &settings, &["keys", "generate", "--out", &settings["TOKENBUS_SECRETS__KEYS_FILE"]]).await;
        run(build, &settings, &["setup"]).await;
        let key = api_key(&connect(&server_url).await).await;
        let mut process = Running::start(build, &folder.path().join("log"), |command| {
            command.envs(&settings).args(["serve", "--role", "all"]);
        });
        let url = process.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let provider = Provider::generous().await;
        let program = Self { url, key, http, server, process, server_url, provider, _folder: folder };
        eventually("the program is ready", async || program.request("readyz").await.0 == StatusCode::OK).await;
        program.configure().await;
        program
    }

    async fn configure(&self) {
        let provider = &self.provider.url;
        let config = json!({
            "integration_id": INTEGRATION, "name": "Odd", "scopes": "read,write", "client_id": "client",
            "client_secret": "secret", "auth_url": format!("{provider}/authorize"),
            "token_url": format!("{provider}/token"), "redirect_url": self.endpoint("hub/integrations/oauth-callback"),
        });
        let url = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-config"));
        let answer = self.http.put(url).header("x-api-key", &self.key).json(&config).send().await;
        assert_eq!(answer.expect("the program answers").status(), StatusCode::OK);
    }

    fn endpoint(&self, path: &str) -> Url {
        self.url.join(path).expect("a path makes a URL")
    }

    async fn request(&self, path: &str) -> (StatusCode, Value) {
        request(&self.http, &self.key, self.endpoint(path)).await
    }

    /// Begins logins. Returns their callbacks, to be sent.
    pub(crate) async fn callbacks(&self, names: impl Iterator<Item = String>) -> load::Send {
        let mut callbacks = Vec::new();
        for name in names {
            let path = format!("hub/integrations/{INTEGRATION}/oauth-login/{name}");
            let (mut status, mut body) = self.request(&path).await;
            // A busy machine; what is measured begins later.
            while status == StatusCode::SERVICE_UNAVAILABLE {
                (status, body) = self.request(&path).await;
            }
            assert_eq!(status, StatusCode::OK, "{body}");
            let url = body["oauth_url"].as_str().and_then(|url| Url::parse(url).ok()).expect("a URL");
            let (_, state) = url.query_pairs().find(|(name, _)| name == "state").expect("a state");
            let callback = self.endpoint("hub/integrations/oauth-callback");
            let query = [("code", "code"), ("state", state.as_ref())];
            callbacks.push(Url::parse_with_params(callback.as_str(), query).expect("a callback is a URL"));
        }
        self.send(move |number| callbacks[number].clone())
    }

    /// Reads tokens of the connections `c0` to `c<of - 1>` in turn.
    pub(crate) fn reads(&self, of: usize) -> load::Send {
        let base = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-token/"));
        self.send(move |number| base.join(&format!("c{}", number * 7 % of)).expect("a URL"))
    }

    /// Refreshes the connections `c0`, `c1` and so on.
    pub(crate) fn refreshes(&self) -> load::Send {
        let base = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-refresh-token/"));
        self.send(move |number| base.join(&format!("c{number}")).expect("a URL"))
    }

    fn send(&self, url: impl Fn(usize) -> Url + Send + Sync + 'static) -> load::Send {
        let (http, key) = (self.http.clone(), self.key.clone());
        Arc::new(move |number| {
            let (http, key, url) = (http.clone(), key.clone(), url(number));
            Box::pin(async move { request(&http, &key, url).await.0 == StatusCode::OK })
        })
    }

    /// CPU time of program and server.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu(cpu_seconds(self.process.pid()) + cpu_seconds(self.server.pid()))
    }

    /// Ends the program, and returns a client of its server.
    pub(crate) async fn end(&mut self) -> async_nats::Client {
        self.process.kill().await;
        connect(&self.server_url).await
    }
}

impl Cpu {
    /// Milliseconds that `program` has used since then, for each of so many requests.
    pub(crate) fn milliseconds_each(self, program: &Program, requests: usize) -> f64 {
        (program.cpu().0 - self.0) * 1e3 / requests as f64
    }
}

async fn request(http: &reqwest::Client, key: &str, url: Url) -> (StatusCode, Value) {
    let request = http.get(url).header("x-api-key", key).header("accept", "application/json");
    let answer = request.send().await.expect("the program answers");
    let (status, text) = (answer.status(), answer.text().await.expect("a whole answer"));
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

async fn serve(folder: &Path) -> (Running, String) {
    let config: PathBuf = folder.join("server.conf");
    let text = format!(
        "server_name: bench\n\
         jetstream {{ store_dir: \"{}\", sync_interval: always, cipher: chachapoly, key: bench_key, max_file_store: 12GB }}\n\
         accounts {{ OAUTH {{ jetstream: enabled, users: [{{ user: {USER}, password: {PASSWORD} }}] }} }}\n",
        folder.join("store").display()
    );
    std::fs::write(&config, text).expect("the folder can be written");
    let server = Running::start(Path::new(binary()), &folder.join("server.log"), |command| {
        command.arg("-c").arg(&config).args(["-a", "127.0.0.1", "-p", "-1", "--ports_file_dir"]).arg(folder);
    });
    let url = ports(folder).await;
    (server, url)
}

async fn connect(server_url: &str) -> async_nats::Client {
    let options = async_nats::ConnectOptions::with_user_and_password(USER.to_owned(), PASSWORD.to_owned());
    options.connect(server_url).await.expect("the server lets its user in")
}

fn settings(server_url: &str, folder: &Path) -> HashMap<String, String> {
    let keys_file = folder.join("keys").display().to_string();
    let admins = format!("[\"{ACCOUNT}\"]");
    let pairs = [
        ("NATS__URL", server_url),
        ("NATS__USER", USER),
        ("NATS__PASSWORD", PASSWORD),
        ("HTTP__LISTEN", "127.0.0.1:0"),
        ("HTTP__ADDRESS_RATE", "0"),
        ("HTTP__CREDENTIAL_RATE", "0"),
        ("OAUTH__ALLOW_INSECURE_URLS", "true"),
        ("OAUTH__ALLOWED_HOSTS", "[\"127.0.0.1\"]"),
        ("OAUTH__MAX_PENDING_LOGINS", "100000"),
        ("AUTH__ADMIN_ACCOUNTS", &admins),
        ("SECRETS__KEYS_FILE", &keys_file),
        // One account at one integration may have an eighth of the commands.
        ("WORKER__CONCURRENCY", "1024"),
        ("REFRESH__MIN_INTERVAL", "1ms"),
        ("REFRESH__CONCURRENCY", "1024"),
        ("REFRESH__RATE", "1000000"),
        ("LOG__FILTER", "warn"),
    ];
    pairs.into_iter().map(|(name, value)| (format!("TOKENBUS_{name}"), value.to_owned())).collect()
}

async fn run(build: &Path, settings: &HashMap<String, String>, arguments: &[&str]) {
    let output = tokio::process::Command::new(build).args(arguments).envs(settings).output().await;
    let output = output.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {errors}", build.display());
}

/// Writes an API key of an admin into the bucket.
async fn api_key(client: &async_nats::Client) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (id, secret) = ("0123456789ab", encode(&rand::random::<[u8; 32]>()));
    let stored = json!({
        "hash": encode(&Sha256::digest(secret.as_bytes())), "account": ACCOUNT, "role": "admin", "name": "",
        "created": "2026-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z",
    });
    let jetstream = async_nats::jetstream::new(client.clone());
    let sent = jetstream.publish(format!("$KV.oauth_api_keys.{id}"), stored.to_string().into()).await;
    sent.expect("sent").await.expect("the bucket takes it");
    format!("tb_{id}_{secret}")
}

/// User and system time of a process, in seconds. The kernel counts in hundredths.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
