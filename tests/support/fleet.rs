//! Edge and workers as separate processes, each with its own NATS user, to be killed, stopped and brought back.

mod worker;

use std::cell::Cell;
use std::collections::HashMap;
use std::path::Path;
use std::process::{ExitStatus, Output};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenbus::Secret;
use tokenbus::internals::Replies;
use tokenbus::internals::gateway::{Backend, Call, RequestContext, StateOwner};
use tokenbus::internals::{Nats as Connection, Patience};
use tokio::task::JoinSet;
use url::Url;

use crate::support::child::Running;
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, read, run, settings};
pub(crate) use crate::support::wait::eventually;
pub(crate) use worker::Worker;

/// The integration that the tests use.
pub(crate) const INTEGRATION: &str = "odd";

/// A bus and an edge; starts workers.
pub(crate) struct Fleet {
    pub(crate) nats: Nats,
    /// Another account whose key may write configs, too.
    pub(crate) other_account: String,
    /// API keys with the role `admin`: of the usual account, and of the other one.
    pub(crate) admin_keys: [String; 2],
    url: Url,
    edge: Running,
    pub(crate) http: reqwest::Client,
    /// Settings of a worker.
    pub(crate) settings: HashMap<String, String>,
    provider_url: String,
    folder: TempDir,
    started: Cell<usize>,
}

/// An edge within the test, for commands that no HTTP request makes.
pub(crate) struct OwnEdge {
    pub(crate) bus: Arc<Backend>,
    _receives: JoinSet<()>,
}

impl Fleet {
    /// A bus and an edge, without a worker.
    pub(crate) async fn start(provider_url: &str) -> Self {
        Self::start_on(Nats::start().await, provider_url).await
    }

    /// The same on a bus that is there already.
    pub(crate) async fn start_on(nats: Nats, provider_url: &str) -> Self {
        let url = nats.url.clone();
        Self::start_with_edge_by(&url, nats, provider_url).await
    }

    /// The same with an edge that reaches the bus by this URL.
    pub(crate) async fn start_with_edge_by(nats_url: &str, nats: Nats, provider_url: &str) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let keys_file = folder.path().join("keys");
        let other_account = nkeys::KeyPair::new_account().public_key();
        let mut settings = settings(&nats, "worker", &keys_file);
        let admins = json!([ACCOUNT, other_account]).to_string();
        settings.insert("TOKENBUS_AUTH__ADMIN_ACCOUNTS".to_owned(), admins);
        let as_setup = as_user(&settings, &nats, "setup");
        run(&as_setup, &["keys", "generate", "--out", keys_file.to_str().expect("a plain path")]).await;
        run(&as_setup, &["setup"]).await;
        let admin_keys = [nats.api_key(ACCOUNT, "admin").await, nats.api_key(&other_account, "admin").await];

        let mut as_edge = as_user(&settings, &nats, "edge");
        as_edge.remove("TOKENBUS_SECRETS__KEYS_FILE");
        if let Some(url) = as_edge.insert("TOKENBUS_NATS__URL".to_owned(), nats_url.to_owned())
            && url != nats_url
        {
            // The edge then uses no other URL that the server names.
            as_edge.remove("TOKENBUS_NATS__ALLOW_PLAINTEXT");
        }
        let mut edge = Running::start(Path::new(PROGRAM), &folder.path().join("edge.log"), |command| {
            command.envs(&as_edge).args(["serve", "--role", "edge"]);
        });
        let url = edge.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        // No idle connections: the gateway closes one after a minute, and a test that blocks its runtime misses that.
        let http = reqwest::Client::builder().no_proxy().pool_max_idle_per_host(0).build().expect("an HTTP client");
        let provider_url = provider_url.to_owned();
        let started = Cell::new(0);
        Self { nats, other_account, admin_keys, url, edge, http, settings, provider_url, folder, started }
    }

    /// A bus, an edge, and the worker that applied the provider's config.
    pub(crate) async fn configured(provider_url: &str) -> (Self, Worker) {
        Self::start(provider_url).await.configure().await
    }

    /// The same with the worker that applied the provider's config.
    pub(crate) async fn configure(self) -> (Self, Worker) {
        let fleet = self;
        let worker = fleet.worker().await;
        let (status, body) = fleet.put(&fleet.admin_keys[0], &fleet.config()).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        // A worker answers before it acks. One that a test kills in between would leave the command to the next worker.
        fleet.idle().await;
        (fleet, worker)
    }

    /// A setting of the workers, by its name in the environment.
    pub(crate) fn setting(&self, name: &str) -> &str {
        self.settings.get(name).map_or("", String::as_str)
    }

    /// Another worker, ready.
    pub(crate) async fn worker(&self) -> Worker {
        let worker = self.worker_with(&[]);
        worker.ready().await;
        worker
    }

    /// Starts a worker that kills itself at that failpoint. Waits until it and the edge are ready.
    pub(crate) async fn worker_dying_at(&self, place: &str) -> Worker {
        self.worker_failing("FAIL_KILL_AT", place).await
    }

    /// Starts a worker that pauses at that failpoint. Waits until it and the edge are ready.
    pub(crate) async fn worker_stopping_at(&self, place: &str) -> Worker {
        self.worker_failing("FAIL_STOP_AT", place).await
    }

    async fn worker_failing(&self, how: &str, place: &str) -> Worker {
        let worker = self.worker_with(&[(how, place)]);
        worker.ready().await;
        self.ready().await;
        worker
    }

    /// Starts another worker.
    pub(crate) fn worker_with(&self, environment: &[(&str, &str)]) -> Worker {
        let number = self.started.replace(self.started.get() + 1);
        let log = self.folder.path().join(format!("worker{number}.log"));
        let process = Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(&self.settings).envs(environment.iter().copied()).args(["serve", "--role", "worker"]);
        });
        Worker { process, log }
    }

    pub(crate) fn edge_pid(&self) -> u32 {
        self.edge.pid()
    }

    /// What the edge has logged.
    pub(crate) fn edge_log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("edge.log")).unwrap_or_default()
    }

    /// The edge's exit status.
    pub(crate) async fn edge_ended(&mut self) -> ExitStatus {
        self.edge.ended().await
    }

    /// Waits until the edge reaches the bus and a worker, and a worker serves nodes.
    pub(crate) async fn ready(&self) {
        eventually("the edge is ready", async || {
            let answer = self.http.get(self.endpoint("readyz")).send().await;
            answer.is_ok_and(|answer| answer.status() == StatusCode::OK)
        })
        .await;
        self.nats.serves_nodes().await;
    }

    /// The integration's config.
    pub(crate) fn config(&self) -> Value {
        json!({
            "integration_id": INTEGRATION, "name": "Odd", "scopes": "read,write", "client_id": "client",
            "client_secret": "canary-client-secret",
            "auth_url": format!("{}/authorize", self.provider_url),
            "token_url": format!("{}/token", self.provider_url),
            "redirect_url": self.endpoint("hub/integrations/oauth-callback"),
        })
    }

    /// Puts the integration's config with that key.
    pub(crate) async fn put(&self, key: &str, config: &Value) -> (StatusCode, Value) {
        let url = self.endpoint(&format!("hub/integrations/{INTEGRATION}/oauth-config"));
        read(self.http.put(url).header("x-api-key", key).json(config).send().await.expect("the edge answers")).await
    }

    /// A call with the usual key.
    pub(crate) async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.get_as(&self.admin_keys[0], path).await
    }

    /// A call with that key.
    pub(crate) async fn get_as(&self, key: &str, path: &str) -> (StatusCode, Value) {
        let url = self.endpoint(&format!("hub/integrations/{path}"));
        let answer = self.http.get(url).header("x-api-key", key).send().await;
        read(answer.expect("the edge answers")).await
    }

    /// A request with that key and a JSON body.
    pub(crate) async fn request(&self, method: Method, path: &str, key: &str, body: &Value) -> (StatusCode, Value) {
        let request = self.http.request(method, self.endpoint(path)).header("x-api-key", key);
        read(request.json(body).send().await.expect("the edge answers")).await
    }

    /// The status of a list of connections with that key.
    pub(crate) async fn list_with(&self, key: &str) -> u16 {
        self.get_as(key, "oauth-connections").await.0.as_u16()
    }

    /// Begins a login and returns its state.
    pub(crate) async fn login(&self, connection: &str) -> String {
        let (status, body) = self.get(&format!("{INTEGRATION}/oauth-login/{connection}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        state_of(&body)
    }

    /// Sends the callback with which a provider returns the browser, with an API key, so that the answer has the tokens.
    pub(crate) fn arrive(&self, state: &str, code: &str) -> impl Future<Output = (StatusCode, Value)> + Send + use<> {
        let url = self.endpoint("hub/integrations/oauth-callback");
        let query = [("code", code), ("state", state)];
        let url = Url::parse_with_params(url.as_str(), query).expect("a callback is a URL");
        let request = self.http.get(url).header("accept", "application/json").header("x-api-key", &self.admin_keys[0]);
        async move { read(request.send().await.expect("the edge answers")).await }
    }

    /// An edge within the test.
    pub(crate) async fn own_edge(&self) -> OwnEdge {
        self.own_edge_with(Duration::from_secs(20)).await
    }

    /// The same with this deadline.
    pub(crate) async fn own_edge_with(&self, deadline: Duration) -> OwnEdge {
        let mut settings = tokenbus::internals::config::load(None).expect("the defaults are whole").nats;
        self.nats.url.clone_into(&mut settings.url);
        "edge".clone_into(&mut settings.user);
        settings.password = Secret::new(self.nats.password("edge"));
        let connection = Connection::connect(&settings, "test", Patience::Once).await.expect("the bus is there");
        let bus = Arc::new(Backend::new(connection, Replies::new(), deadline));
        let mut receives = JoinSet::new();
        let receiving = Arc::clone(&bus);
        receives.spawn(async move { drop(receiving.receive().await) });
        OwnEdge { bus, _receives: receives }
    }

    /// `tokenbus` with these arguments, as the NATS user that the command needs; it must succeed.
    pub(crate) async fn cli(&self, arguments: &[&str]) -> String {
        run(&as_user(&self.settings, &self.nats, user_for(arguments)), arguments).await
    }

    /// The same with any result.
    pub(crate) async fn cli_output(&self, arguments: &[&str]) -> Output {
        let settings = as_user(&self.settings, &self.nats, user_for(arguments));
        let output = tokio::process::Command::new(PROGRAM).args(arguments).envs(&settings).output().await;
        output.expect("the program starts")
    }

    /// The same with any result: exit code and errors.
    pub(crate) async fn cli_failing(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.cli_output(arguments).await;
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Waits until no command is queued or under way.
    pub(crate) async fn idle(&self) {
        let setup = self.jetstream("setup").await;
        eventually("the queue is empty", async || {
            let stream = setup.get_stream("OAUTH_COMMANDS").await;
            stream.is_ok_and(|stream| stream.cached_info().state.messages == 0)
        })
        .await;
    }

    /// Number of deliveries by the consumer of that verb.
    pub(crate) async fn deliveries(&self, verb: &str) -> u64 {
        let setup = self.jetstream("setup").await;
        let info = setup.get_stream_no_info("OAUTH_COMMANDS").await.expect("a name");
        let info = info.consumer_info(verb).await.expect("the verb has a consumer");
        info.delivered.consumer_sequence
    }

    /// Audit events, oldest first, without those of the setup, once no command is under way: callers have their answer earlier.
    pub(crate) async fn events(&self) -> Vec<Value> {
        self.idle().await;
        let mut events = self.messages("OAUTH_EVENTS").await;
        let of_setup = ["login_started", "config_put", "api_key_created", "store_set_up"];
        events.retain(|event| !of_setup.iter().any(|name| event["event"] == *name));
        events
    }

    /// The connection in the bucket, and how often the bucket was written.
    pub(crate) async fn stored(&self, connection: &str) -> (Option<Value>, u64) {
        let key = format!("$KV.oauth_connections.{ACCOUNT}.{INTEGRATION}.{connection}");
        let stream = self.jetstream("setup").await.get_stream("KV_oauth_connections").await.expect("the bucket");
        let found = stream.get_last_raw_message_by_subject(&key).await.ok();
        let found = found.filter(|message| message.headers.get("KV-Operation").is_none());
        let value = found.and_then(|message| serde_json::from_slice(&message.payload).ok());
        (value, stream.cached_info().state.last_sequence)
    }

    /// The stored config.
    pub(crate) async fn stored_config(&self) -> Value {
        let stream = self.jetstream("setup").await.get_stream("KV_oauth_configs").await.expect("the bucket");
        let found = stream.get_last_raw_message_by_subject(&format!("$KV.oauth_configs.{INTEGRATION}")).await;
        serde_json::from_slice(&found.expect("the config is stored").payload).expect("a config is JSON")
    }

    /// Sequences of the newest record of a subject below `ms.integration.oauth.`, and of the stream's newest.
    pub(crate) async fn record(&self, path: &str) -> (Option<u64>, u64) {
        let stream = self.jetstream("worker").await.get_stream("OAUTH").await.expect("the stream");
        let found = stream.get_last_raw_message_by_subject(&format!("ms.integration.oauth.{path}")).await.ok();
        (found.map(|message| message.sequence), stream.cached_info().state.last_sequence)
    }

    /// The path of a connection's record.
    pub(crate) fn path(connection: &str) -> String {
        format!("{ACCOUNT}.{INTEGRATION}.{connection}")
    }

    pub(crate) async fn jetstream(&self, user: &str) -> jetstream::Context {
        Nats::jetstream(self.nats.connect(user).await)
    }

    async fn messages(&self, stream: &str) -> Vec<Value> {
        let stream = self.jetstream("setup").await.get_stream(stream).await.expect("the stream");
        let mut found = Vec::new();
        for sequence in 1..=stream.cached_info().state.last_sequence {
            let message = stream.get_raw_message(sequence).await.expect("nothing is deleted from it");
            found.push(serde_json::from_slice(&message.payload).expect("JSON"));
        }
        found
    }

    pub(crate) fn endpoint(&self, path: &str) -> Url {
        self.url.join(path).expect("a path makes a URL")
    }
}

impl OwnEdge {
    /// The account of a state's login.
    pub(crate) async fn owner(&self, state: &str) -> StateOwner {
        let answer =
            self.bus.call(Call::State, &no_credential(), &json!({ "state": state })).await.expect("a worker answers");
        serde_json::from_slice(&answer).expect("an owner")
    }

    /// The workers' public curve key, as this caller receives it.
    pub(crate) async fn seal_to(&self, context: &RequestContext) -> String {
        let answer = self.bus.call(Call::Whoami, context, &json!({})).await.expect("a worker answers");
        let who: Value = serde_json::from_slice(&answer).expect("JSON");
        who["seal_to"].as_str().expect("the key is in `seal_to`").to_owned()
    }
}

/// A request without a credential.
pub(crate) fn no_credential() -> RequestContext {
    RequestContext::default()
}

/// The state in the answer to a login.
pub(crate) fn state_of(login: &Value) -> String {
    let url = login["oauth_url"].as_str().and_then(|url| Url::parse(url).ok()).expect("a login answers with a URL");
    let state = url.query_pairs().find(|(name, _)| name == "state").map(|(_, value)| value.into_owned());
    state.expect("an authorization request has a state")
}

fn user_for(arguments: &[&str]) -> &'static str {
    if arguments.first() == Some(&"setup") { "setup" } else { "admin" }
}

pub(crate) fn as_user(settings: &HashMap<String, String>, nats: &Nats, user: &str) -> HashMap<String, String> {
    let mut settings = settings.clone();
    settings.insert("TOKENBUS_NATS__USER".to_owned(), user.to_owned());
    settings.insert("TOKENBUS_NATS__PASSWORD".to_owned(), nats.password(user).to_owned());
    settings
}
