//! A build of the program with both roles in one process, on servers of its own ([`server`](super::server)), and the requests
//! that a load sends to it.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use url::Url;

use crate::load;
use crate::provider::{Provider, Scripted};
use crate::server::{PASSWORD, Servers, USER};
use crate::support::child::Running;
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;

pub(crate) const INTEGRATION: &str = "odd";

/// Servers and settings of a run.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    /// One server, or a cluster of three.
    pub(crate) nodes: usize,
    /// The servers' `sync_interval`.
    pub(crate) sync_interval: &'static str,
    /// Settings in addition to those of every run, without the prefix of the variables.
    pub(crate) settings: &'static [(&'static str, &'static str)],
}

impl Shape {
    /// One server that syncs each write before it answers, as the shipped configuration says.
    pub(crate) const SYNCED: Self = Self { nodes: 1, sync_interval: "always", settings: &[] };
    /// The same with events that the server acknowledges before they are on the disk.
    pub(crate) const EVENTS_ASYNC: Self = Self { settings: &[("EVENTS__SYNC", "false")], ..Self::SYNCED };
}

/// A program, its servers and a provider.
pub(crate) struct Program {
    url: Url,
    key: String,
    http: reqwest::Client,
    servers: Servers,
    process: Running,
    pid: u32,
    provider: Provider,
    answered: Answered,
    settings: HashMap<String, String>,
    folder: TempDir,
}

/// The time at which the provider made its answer, by the answer's access token.
type Answered = Arc<Mutex<HashMap<String, Instant>>>;

/// CPU seconds that program and servers have used so far.
#[derive(Clone, Copy)]
pub(crate) struct Cpu {
    program: f64,
    servers: f64,
}

impl Program {
    /// Starts the build on new servers.
    pub(crate) async fn start(build: &Path, shape: Shape) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let servers = Servers::start(folder.path(), shape.nodes, shape.sync_interval).await;
        let settings = settings(&servers.url, folder.path(), shape);
        run(build, &settings, &["keys", "generate", "--out", &settings["TOKENBUS_SECRETS__KEYS_FILE"]]).await;
        run(build, &settings, &["setup"]).await;
        let key = api_key(&servers.connect().await, "0123456789ab", ACCOUNT).await;
        let mut process = Running::start(build, &folder.path().join("log"), |command| {
            command.envs(&settings).args(["serve", "--role", "all"]);
        });
        let url = process.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        let http = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
        let (provider, answered) = provider().await;
        let pid = process.pid();
        let program = Self { url, key, http, servers, process, pid, provider, answered, settings, folder };
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

    /// Where the program listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.url.socket_addrs(|| None).expect("an address").remove(0)
    }

    /// An API key for a further account, with twelve hexadecimal digits of its own.
    pub(crate) async fn key_of(&self, id: &str, account: &str) -> String {
        api_key(&self.client().await, id, account).await
    }

    /// Begins a login with that key, and returns the callback's path and query.
    pub(crate) async fn login(&self, key: &str, name: &str) -> String {
        let path = format!("hub/integrations/{INTEGRATION}/oauth-login/{name}");
        let ask = || request(&self.http, key, self.endpoint(&path));
        let (mut status, mut body) = ask().await;
        // A busy machine; what is measured begins later.
        while status == StatusCode::SERVICE_UNAVAILABLE {
            (status, body) = ask().await;
        }
        assert_eq!(status, StatusCode::OK, "{body}");
        let url = body["oauth_url"].as_str().and_then(|url| Url::parse(url).ok()).expect("a URL");
        let (_, state) = url.query_pairs().find(|(name, _)| name == "state").expect("a state");
        format!("/hub/integrations/oauth-callback?code=code&state={state}")
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
            callbacks.push(self.endpoint(&self.login(&self.key, &name).await));
        }
        self.send(move |number| callbacks[number].clone())
    }

    /// Reads tokens of the connections `c0` to `c<of - 1>` in turn.
    pub(crate) fn reads(&self, of: usize) -> load::Send {
        let base = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-token/"));
        self.send(move |number| base.join(&format!("c{}", number * 7 % of)).expect("a URL"))
    }

    /// The same on the bus, as a node does it.
    pub(crate) async fn bus_reads(&self, of: usize) -> load::Send {
        let (client, subject) = (self.client().await, format!("ms.oauth.{ACCOUNT}.token"));
        Arc::new(move |number| {
            let (client, subject) = (client.clone(), subject.clone());
            let question = json!({ "integration_id": INTEGRATION, "connection_id": format!("c{}", number * 7 % of) });
            Box::pin(async move {
                let answer = client.request(subject, question.to_string().into()).await;
                answer.is_ok_and(|answer| answer.headers.is_none_or(|it| it.get("Nats-Service-Error-Code").is_none()))
            })
        })
    }

    /// Refreshes the connections `c0` to `c<of - 1>` in turn.
    pub(crate) fn refreshes(&self, of: usize) -> load::Send {
        let base = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-refresh-token/"));
        self.send(move |number| base.join(&format!("c{}", number % of)).expect("a URL"))
    }

    /// A client of the servers.
    pub(crate) async fn client(&self) -> async_nats::Client {
        self.servers.connect().await
    }

    /// The time at which the provider made the answer with that access token.
    pub(crate) fn answered(&self, access_token: &str) -> Option<Instant> {
        self.answered.lock().expect("no thread panics with the lock").get(access_token).copied()
    }

    fn send(&self, url: impl Fn(usize) -> Url + Send + Sync + 'static) -> load::Send {
        let (http, key) = (self.http.clone(), self.key.clone());
        Arc::new(move |number| {
            let (http, key, url) = (http.clone(), key.clone(), url(number));
            Box::pin(async move { request(&http, &key, url).await.0 == StatusCode::OK })
        })
    }

    /// CPU time of program and servers. That of a program that has ended counts as zero.
    pub(crate) fn cpu(&self) -> Cpu {
        Cpu { program: cpu_seconds(self.pid), servers: self.servers.pids().map(cpu_seconds).sum() }
    }

    /// CPU time of this process: the bench's clients, and its provider.
    pub(crate) fn own_cpu() -> f64 {
        cpu_seconds(std::process::id())
    }

    /// Resident memory of the program, in MiB.
    pub(crate) fn memory(&self) -> f64 {
        resident(self.pid)
    }

    /// The same of a worker alone on the same servers, as soon as it is ready.
    pub(crate) async fn memory_of_worker(&self, build: &Path) -> f64 {
        let log = self.folder.path().join("worker.log");
        let worker = Running::start(build, &log, |command| {
            command.envs(&self.settings).env("TOKENBUS_LOG__FILTER", "info").args(["serve", "--role", "worker"]);
        });
        let is_ready = async || std::fs::read_to_string(&log).is_ok_and(|log| log.contains("ready for commands"));
        eventually("the worker is ready", is_ready).await;
        resident(worker.pid())
    }

    /// Ends the program, and returns a client of its servers.
    pub(crate) async fn end(&mut self) -> async_nats::Client {
        self.process.kill().await;
        self.client().await
    }
}

impl Cpu {
    /// Milliseconds that program and servers have used since then, for each of so many requests.
    pub(crate) fn milliseconds_each(self, program: &Program, requests: usize) -> f64 {
        let now = program.cpu();
        (now.program - self.program + now.servers - self.servers) * 1e3 / requests as f64
    }

    /// The same of the servers alone.
    pub(crate) fn servers_milliseconds_each(self, program: &Program, requests: usize) -> f64 {
        (program.cpu().servers - self.servers) * 1e3 / requests as f64
    }

    /// Cores that program and servers have kept busy since `self`, so many seconds ago.
    pub(crate) fn cores(self, program: &Program, seconds: f64) -> [f64; 2] {
        let now = program.cpu();
        [now.program - self.program, now.servers - self.servers].map(|used| used / seconds)
    }
}

async fn request(http: &reqwest::Client, key: &str, url: Url) -> (StatusCode, Value) {
    let request = http.get(url).header("x-api-key", key).header("accept", "application/json");
    let answered = async {
        let answer = request.send().await?;
        Ok::<_, reqwest::Error>((answer.status(), answer.text().await?))
    };
    // A gateway that has too many connections closes some.
    let (status, text) = answered.await.unwrap_or_else(|error| (StatusCode::BAD_GATEWAY, error.to_string()));
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A provider that always issues tokens, and the times of its answers.
async fn provider() -> (Provider, Answered) {
    let answered = Answered::default();
    let times = Arc::clone(&answered);
    let provider = Provider::start(move |number, _| {
        let answer = Scripted::tokens(number);
        times.lock().expect("no thread panics with the lock").insert(format!("at-{number}"), Instant::now());
        answer
    });
    (provider.await, answered)
}

fn settings(servers: &str, folder: &Path, shape: Shape) -> HashMap<String, String> {
    let keys_file = folder.join("keys").display().to_string();
    let admins = format!("[\"{ACCOUNT}\"]");
    let pairs = [
        ("NATS__URL", servers),
        ("NATS__REPLICAS", if shape.nodes > 1 { "3" } else { "1" }),
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
    // Without it a process uses no server of a cluster but the ones that it is given.
    let cluster = (shape.nodes > 1).then_some(("NATS__ALLOW_PLAINTEXT", "true"));
    let pairs = pairs.into_iter().chain(cluster).chain(shape.settings.iter().copied());
    pairs.map(|(name, value)| (format!("TOKENBUS_{name}"), value.to_owned())).collect()
}

async fn run(build: &Path, settings: &HashMap<String, String>, arguments: &[&str]) {
    let output = tokio::process::Command::new(build).args(arguments).envs(settings).output().await;
    let output = output.expect("the program starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {errors}", build.display());
}

/// Writes an API key of an account's admin into the bucket.
async fn api_key(client: &async_nats::Client, id: &str, account: &str) -> String {
    let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let secret = encode(&rand::random::<[u8; 32]>());
    let stored = json!({
        "hash": encode(&Sha256::digest(secret.as_bytes())), "account": account, "role": "admin", "name": "",
        "created": "2026-01-01T00:00:00Z", "expires": "2999-01-01T00:00:00Z",
    });
    let jetstream = async_nats::jetstream::new(client.clone());
    let sent = jetstream.publish(format!("$KV.oauth_api_keys.{id}"), stored.to_string().into()).await;
    sent.expect("sent").await.expect("the bucket takes it");
    format!("tb_{id}_{secret}")
}

/// Resident memory of a process, in MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux has this line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// User and system time of a process, in seconds; zero for one that has ended. The kernel counts in hundredths.
fn cpu_seconds(pid: u32) -> f64 {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return 0.0 };
    let (_, fields) = stat.rsplit_once(')').expect("the name is in parentheses");
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}
