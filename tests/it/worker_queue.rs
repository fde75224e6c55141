//! Commands on the queue that cannot be executed, or that their sender must not send.

use async_nats::HeaderMap;
use futures_util::StreamExt;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::{Credential, Envelope, HEADER_REPLY, HEADER_SENDER, Order, Origin, VERSION, Work};
use tokenbus::internals::gateway::RequestContext;
use tokenbus::internals::seal::{SharedKey, open_answer, seal_order};
use tokenbus::internals::system::{now, random_id};

use crate::fleet::{Fleet, INTEGRATION, no_credential};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;

const CANARY: &str = "canary-of-the-queue";

/// A command built by hand with the edge's password.
struct Forged {
    subject: String,
    id: String,
    reply: Option<String>,
    sealed_for: String,
    sealed_id: String,
    version: u8,
    work: Work,
    answer_key: SharedKey,
}

impl Forged {
    fn new(subject: String, work: Work) -> Self {
        let id = random_id();
        Self {
            sealed_for: subject.clone(),
            sealed_id: id.clone(),
            subject,
            id,
            reply: None,
            version: VERSION,
            work,
            answer_key: SharedKey::random(),
        }
    }

    async fn send(self, edge: &async_nats::Client, seal_to: &str) {
        let Self { subject, id, reply, sealed_for, sealed_id, version, work, answer_key } = self;
        let order = Order {
            subject: sealed_for,
            id: sealed_id,
            time: now().as_millisecond(),
            message_id: id.clone(),
            answer_key: answer_key.to_text(),
            origin: Origin::default(),
            work,
        };
        let order = serde_json::to_vec(&order).unwrap();
        let (sealed, sender) = seal_order(seal_to, &order).unwrap();
        let envelope = serde_json::to_vec(&Envelope { v: version, id: id.clone(), sealed }).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id);
        headers.insert(HEADER_SENDER, sender);
        if let Some(reply) = reply {
            headers.insert(HEADER_REPLY, reply);
        }
        queue(edge, &subject, headers, envelope).await;
    }
}

async fn queue(edge: &async_nats::Client, subject: &str, headers: HeaderMap, payload: Vec<u8>) {
    let answer = edge.request_with_headers(subject.to_owned(), headers, payload.into()).await.unwrap();
    let ack: Value = serde_json::from_slice(&answer.payload).unwrap();
    assert_eq!(ack["stream"], "OAUTH_COMMANDS", "{ack}");
}

fn subject(account: &str, name: &str) -> String {
    format!("ms.integration.oauth.{account}.{INTEGRATION}.{name}.exchange")
}

fn work(query: &str, credential: Option<&str>) -> Work {
    let credential = credential.map(|key| Credential::new(Secret::new(format!("X-Api-Key {key}"))));
    Work::Exchange { query: Secret::new(query), cookies: Vec::new(), credential }
}

async fn scene() -> (Provider, Fleet, crate::fleet::Worker, async_nats::Client, String) {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let key = Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0]));
    let caller = RequestContext { credential: Some(Credential::new(key)), ..no_credential() };
    let seal_to = fleet.own_edge().await.seal_to(&caller).await;
    let edge = fleet.nats.connect("edge").await;
    (provider, fleet, worker, edge, seal_to)
}

#[tokio::test]
async fn malformed_commands_become_dead_letters_without_content() {
    let (provider, fleet, worker, edge, seal_to) = scene().await;
    queue(&edge, &subject(ACCOUNT, "g0"), HeaderMap::new(), format!("{{ {CANARY}").into_bytes()).await;
    let forged = |name: &str| Forged::new(subject(ACCOUNT, name), work(&format!("code={CANARY}&state=x"), None));
    Forged { version: VERSION + 1, ..forged("g1") }.send(&edge, &seal_to).await;
    Forged { sealed_for: subject(ACCOUNT, "elsewhere"), ..forged("g2") }.send(&edge, &seal_to).await;
    Forged { sealed_id: random_id(), ..forged("g3") }.send(&edge, &seal_to).await;
    Forged { sealed_for: subject(ACCOUNT, "g4").replace("exchange", "put"), ..forged("g4") }
        .send(&edge, &seal_to)
        .await;
    let to_another_key = nkeys::XKey::new().public_key();
    forged("g5").send(&edge, &to_another_key).await;
    fleet.idle().await;

    let printed = fleet.cli(&["dead", "list", "--json"]).await;
    let mut letters: Vec<Value> = printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    letters.sort_by_key(|letter| letter["letter"]["subject"].to_string());
    let subjects: Vec<&str> = letters.iter().map(|letter| letter["letter"]["subject"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..6).map(|number| subject(ACCOUNT, &format!("g{number}"))).collect();
    assert_eq!(subjects, expected);
    let reason = |number: usize| letters[number]["letter"]["reason"].as_str().unwrap().to_owned();
    assert!(reason(0).contains("not valid JSON"), "{}", reason(0));
    assert!(reason(1).contains("version"), "{}", reason(1));
    for number in [2, 3, 4] {
        assert!(reason(number).contains("another subject, id or verb"), "{}", reason(number));
    }
    let log = worker.log();
    assert_eq!(log.matches("command given up").count(), 6, "{log}");
    assert!(log.lines().filter(|line| line.contains("command given up")).all(|line| line.contains("ERROR")), "{log}");
    for text in [&printed, &log] {
        assert!(!text.contains(CANARY), "{text}");
    }
    assert_eq!(provider.received().len(), 0);

    let state = fleet.login("g0").await;
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn dead_letters_are_listed_explained_and_dropped_by_the_admin() {
    let (_provider, fleet, _worker, edge, _) = scene().await;
    assert!(fleet.cli(&["dead", "list"]).await.contains("no dead letters"));
    for name in ["d0", "d1"] {
        queue(&edge, &subject(ACCOUNT, name), HeaderMap::new(), CANARY.into()).await;
    }
    fleet.idle().await;
    let table = fleet.cli(&["dead", "list"]).await;
    assert!(table.contains(&subject(ACCOUNT, "d0")) && table.contains(&subject(ACCOUNT, "d1")), "{table}");
    assert!(!table.contains(CANARY), "{table}");

    let printed = fleet.cli(&["dead", "list", "--json"]).await;
    let first: Value = serde_json::from_str(printed.lines().next().unwrap()).unwrap();
    let number = first["number"].to_string();
    let (code, said) = fleet.cli_failing(&["dead", "retry", &number]).await;
    assert!(code == Some(1) && said.contains("start the login again"), "{code:?} {said}");
    assert!(fleet.cli(&["dead", "drop", &number]).await.contains("dropped"));
    let (code, said) = fleet.cli_failing(&["dead", "drop", &number]).await;
    assert_eq!(code, Some(1), "{said}");
    let (code, said) = fleet.cli_failing(&["dead", "retry", &number]).await;
    assert!(code == Some(1) && said.contains("no dead letter"), "{code:?} {said}");
    let left = fleet.cli(&["dead", "list", "--json"]).await;
    assert_eq!(left.lines().count(), 1, "{left}");
    assert_ne!(left.lines().next(), printed.lines().next());
}

#[tokio::test]
async fn e6_answers_go_only_to_reply_subjects_of_our_form() {
    let (_provider, fleet, worker, edge, seal_to) = scene().await;
    let mut replies = edge.subscribe("oauth.reply.*.*").await.unwrap();
    edge.flush().await.unwrap();
    let config = fleet.stored_config().await;
    let configs = fleet.record(&format!("config.{INTEGRATION}")).await;
    for (number, reply) in [
        "oauth.reply.short.short".to_owned(),
        format!("$KV.oauth_configs.{INTEGRATION}"),
        format!("oauth.record.config.{INTEGRATION}"),
        format!("oauth.reply.{}.{}.x", random_id(), random_id()),
        "oauth.reply.*.*".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        let forged = Forged::new(subject(ACCOUNT, &format!("r{number}")), work("code=c&state=unknown", None));
        Forged { reply: Some(reply), ..forged }.send(&edge, &seal_to).await;
    }
    fleet.idle().await;
    let ours = format!("oauth.reply.{}.{}", random_id(), random_id());
    let forged = Forged::new(subject(ACCOUNT, "ours"), work("code=c&state=unknown", None));
    Forged { reply: Some(ours.clone()), ..forged }.send(&edge, &seal_to).await;
    let answer = replies.next().await.unwrap();
    assert_eq!(answer.subject.as_str(), ours);
    fleet.idle().await;
    assert_eq!((fleet.stored_config().await, fleet.record(&format!("config.{INTEGRATION}")).await), (config, configs));
    assert!(!worker.log().contains("command given up"), "{}", worker.log());
}

/// The answer to a command built by hand.
async fn answer_to(edge: &async_nats::Client, seal_to: &str, forged: Forged) -> Value {
    let reply = format!("oauth.reply.{}.{}", random_id(), random_id());
    let mut replies = edge.subscribe(reply.clone()).await.unwrap();
    edge.flush().await.unwrap();
    let (subject, id, key) = (forged.subject.clone(), forged.id.clone(), forged.answer_key.clone());
    Forged { reply: Some(reply), ..forged }.send(edge, seal_to).await;
    let answer = open_answer(&key, (&subject, &id), &replies.next().await.unwrap().payload);
    json!(answer.expect("it opens"))
}

#[tokio::test]
async fn e9_the_edge_can_only_act_for_the_credentials_account() {
    let (provider, fleet, _worker, edge, seal_to) = scene().await;
    let before = fleet.stored_config().await;
    let [own, others] = &fleet.admin_keys;
    let (key, mut config) = (Secret::new(format!("X-Api-Key {own}")), fleet.config());
    config["token_url"] = json!("http://127.0.0.1:9/stolen");
    for (verb, work) in [
        ("put", Work::Put { credential: Credential::new(key.clone()), config: Secret::new(config.to_string()) }),
        ("delete", Work::Delete { credential: Credential::new(key.clone()) }),
    ] {
        let subject = format!("ms.integration.oauth.config.{INTEGRATION}.{}.{verb}", fleet.other_account);
        let answer = answer_to(&edge, &seal_to, Forged::new(subject, work)).await;
        assert_eq!(answer["status"], 401, "{verb}: {answer}");
    }
    assert_eq!(fleet.stored_config().await, before);

    let state = fleet.login("workspace1").await;
    let query = format!("code=c&state={state}");
    let foreign_subject = Forged::new(subject(&fleet.other_account, "workspace1"), work(&query, None));
    let foreign_credential = Forged::new(subject(ACCOUNT, "workspace1"), work(&query, Some(others)));
    let wrong_name = Forged::new(subject(ACCOUNT, "workspace2"), work(&query, None));
    for forged in [foreign_subject, foreign_credential, wrong_name] {
        let answer = answer_to(&edge, &seal_to, forged).await;
        assert_eq!(answer["status"], 401, "{answer}");
    }
    assert_eq!(provider.received().len(), 0);
    let (status, body) = fleet.arrive(&state, "c").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}
