//! Gateway and worker move to renewed NATS credentials while requests run that take long.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nkeys::KeyPair;
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use crate::fleet::Fleet;
use crate::provider::{Provider, Scripted};
use crate::support::child::{Running, signal};
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, read};
use crate::support::wait::eventually;
use crate::world::INTEGRATION;

/// A file with an nkey, and the nkey that replaces it.
struct User {
    keys: [KeyPair; 2],
    file: PathBuf,
}

impl User {
    fn new(folder: &Path, name: &str) -> Self {
        let user = Self { keys: [KeyPair::new_user(), KeyPair::new_user()], file: folder.join(name) };
        user.write(0);
        user
    }

    /// Writes that nkey into the file.
    fn write(&self, key: usize) {
        std::fs::write(&self.file, self.keys[key].seed().unwrap()).unwrap();
    }

    /// Both nkeys, as users in the server's configuration.
    fn accepted(&self) -> String {
        self.keys.each_ref().map(|key| format!("{{ nkey: {} }}", key.public_key())).join(", ")
    }

    /// Replaces user and password in the settings.
    fn log_in(&self, role: &str, settings: &mut HashMap<String, String>) {
        settings.remove("TOKENBUS_NATS__USER");
        settings.remove("TOKENBUS_NATS__PASSWORD");
        settings.insert("TOKENBUS_NATS__NKEY".to_owned(), self.file.display().to_string());
        settings.insert("TOKENBUS_NATS__INBOX_PREFIX".to_owned(), format!("_INBOX_{role}"));
    }
}

struct Gateway {
    url: Url,
    process: Running,
    log: PathBuf,
}

impl Gateway {
    async fn start(settings: &HashMap<String, String>, folder: &Path) -> Self {
        let log = folder.join("gateway.log");
        let mut process = Running::start(Path::new(PROGRAM), &log, |command| {
            command.envs(settings).args(["serve", "--role", "edge"]);
        });
        let url = process.line(|line| Url::parse(line.strip_prefix("listening on ")?).ok()).await;
        Self { url, process, log }
    }

    async fn get(&self, fleet: &Fleet, path: &str) -> (StatusCode, Value) {
        let request = fleet.http.get(self.url.join("hub/integrations/").unwrap().join(path).unwrap());
        let request = request.header("x-api-key", &fleet.admin_keys[0]).header("accept", "application/json");
        read(request.send().await.unwrap()).await
    }
}

/// The status of a refresh on the bus.
async fn refresh(nats: &Nats, connection: &str) -> String {
    let question = json!({ "integration_id": INTEGRATION, "connection_id": connection }).to_string();
    let request = async_nats::client::Request::new().payload(question.into()).timeout(Some(Duration::from_mins(1)));
    let node = nats.connect("demo").await;
    let answer = node.send_request(format!("ms.oauth.{ACCOUNT}.refresh"), request).await.unwrap();
    let code = answer.headers.as_ref().and_then(|headers| headers.get("Nats-Service-Error-Code"));
    code.map_or("200", |code| code.as_str()).to_owned()
}

#[tokio::test]
async fn o2_sighup_loses_no_answer_of_a_request_that_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let (of_edge, of_worker) = (User::new(folder.path(), "edge"), User::new(folder.path(), "worker"));
    let [edge, workers] = [&of_edge, &of_worker].map(User::accepted);
    let edits = [
        ("users: [{\n      user: edge,", format!("users: [{edge}, {{\n      user: edge,")),
        ("users: [\n      # The workers.", format!("users: [\n      {workers}\n      # The workers.")),
    ];
    let nats = Nats::edited(&edits.each_ref().map(|(from, to)| (*from, to.as_str())), &[]).await;
    // All but the first login take longer than a renewal.
    let script = |number, _: &_| Scripted::tokens(number).after(Duration::from_secs(if number == 0 { 0 } else { 2 }));
    let provider = Provider::start(script).await;
    let mut fleet = Fleet::start_on(nats, &provider.url).await;
    fleet.settings.insert("TOKENBUS_REFRESH__MIN_INTERVAL".to_owned(), "1ms".to_owned());
    let mut settings = fleet.settings.clone();
    settings.remove("TOKENBUS_SECRETS__KEYS_FILE");
    of_edge.log_in("edge", &mut settings);
    of_worker.log_in("worker", &mut fleet.settings);
    let (fleet, worker) = fleet.configure().await;
    let gateway = Gateway::start(&settings, folder.path()).await;
    let ready = async || gateway.get(&fleet, "../../readyz").await.0 == StatusCode::OK;
    eventually("the gateway is ready", ready).await;
    let (status, body) = fleet.arrive(&fleet.login("one").await, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let state = fleet.login("two").await;

    let log = || std::fs::read_to_string(&gateway.log).unwrap();
    let are_renewed =
        || [log(), worker.log()].iter().all(|log| log.contains("connected to NATS with the renewed credentials"));
    let renewal = async {
        eventually("the provider has both requests", async || provider.received().len() == 3).await;
        for (user, process) in [(&of_edge, &gateway.process), (&of_worker, &worker.process)] {
            user.write(1);
            signal(process.pid(), "HUP");
        }
        // Requests do not wait for the slow ones.
        while !are_renewed() {
            let (status, body) = gateway.get(&fleet, "oauth-connections").await;
            assert_eq!(status, StatusCode::OK, "{body}\n{}\n{}", log(), worker.log());
        }
    };
    let callback = format!("oauth-callback?code=slow&state={state}");
    let refresh_path = format!("{INTEGRATION}/oauth-refresh-token/one");
    let ((), login, refreshed, by_node) = tokio::join!(
        renewal,
        gateway.get(&fleet, &callback),
        gateway.get(&fleet, &refresh_path),
        refresh(&fleet.nats, "one"),
    );
    assert_eq!(login.0, StatusCode::OK, "{}\n{}", login.1, log());
    assert_eq!(refreshed.0, StatusCode::OK, "{}\n{}", refreshed.1, log());
    assert_eq!(by_node, "200");
    for log in [log(), worker.log()] {
        assert_eq!(log.matches("disconnected from NATS").count(), 1, "{log}");
        assert!(!log.contains("no connection"), "{log}");
    }

    // The server may still want to answer pulls of the connection before.
    of_worker.write(0);
    signal(worker.process.pid(), "HUP");
    let renewals = || worker.log().matches("connected to NATS with the renewed credentials").count();
    eventually("the worker uses its first nkey again", async || renewals() == 2).await;
    for number in 0..3 {
        let (status, body) = gateway.get(&fleet, &refresh_path).await;
        assert_eq!(status, StatusCode::OK, "{number}: {body}\n{}", worker.log());
    }
    assert!(!worker.log().contains("delivered=2"), "{}", worker.log());
}
