//! An edge under an attacker's control: it has the edge's NATS user and the requests that pass through it.

mod recorded;

use async_nats::HeaderMap;
use async_nats::client::Request;
use futures_util::StreamExt as _;
use nkeys::KeyPair;
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::{
    Credential, Envelope, HEADER_COMMAND, HEADER_REPLY, HEADER_SENDER, Order, Origin, VERSION, Work, WorkerReply,
};
use tokenbus::internals::gateway::{BackendError, Call, RequestContext};
use tokenbus::internals::subject::{CommandSubject, Verb};
use tokenbus::internals::{seal, system};
use tokenbus::subject::{Account, ConnectionKey, ConnectionName, Integration};

use crate::fleet::{Fleet, INTEGRATION, OwnEdge, Worker, eventually};
use crate::jwt_nats::{Tenants, bearer, request, sign};
use crate::mint;
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::wire::Wire;

/// The attacker's edge, and a bus with two workers.
struct World {
    fleet: Fleet,
    tenants: Tenants,
    client: async_nats::Client,
    answers: async_nats::Subscriber,
    id: String,
    seal_to: String,
    /// Of all commands that this gateway makes.
    answer_key: seal::SharedKey,
    edge: OwnEdge,
    _provider: Provider,
    _workers: [Worker; 2],
}

/// A sealed command.
#[derive(Clone)]
struct Sealed {
    sender: String,
    message_id: String,
    envelope: Envelope,
}

impl World {
    async fn start() -> Self {
        let provider = Provider::generous().await;
        let (fleet, tenants) = (Fleet::start(&provider.url).await, Tenants::new());
        let settings = tenants.settings().map(|(name, value)| (format!("TOKENBUS_{name}"), value));
        let settings = settings.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
        let workers = [fleet.worker_with(&settings), fleet.worker_with(&settings)];
        for worker in &workers {
            worker.ready().await;
        }
        fleet.ready().await;
        assert_eq!(fleet.put(&fleet.admin_keys[0], &fleet.config()).await.0, 200);
        let state = fleet.login("one").await;
        assert_eq!(fleet.arrive(&state, "code").await.0, 200);

        let client = fleet.nats.connect("edge").await;
        let id = system::random_id();
        let answers = client.subscribe(format!("oauth.reply.{id}.*")).await.unwrap();
        client.flush().await.unwrap();
        let edge = fleet.own_edge().await;
        let mut world = Self {
            fleet,
            tenants,
            client,
            answers,
            id,
            seal_to: String::new(),
            answer_key: seal::SharedKey::random(),
            edge,
            _provider: provider,
            _workers: workers,
        };
        let (status, who) = world.call("whoami", Some(&world.key(0)), &json!({})).await;
        assert_eq!(status, 200, "{who}");
        who["seal_to"].as_str().unwrap().clone_into(&mut world.seal_to);
        world
    }

    /// An admin's API key in clear: of the usual account, or of the other one.
    fn key(&self, number: usize) -> String {
        format!("X-Api-Key {}", self.fleet.admin_keys[number])
    }

    /// Status and body of the answer to a call.
    async fn call(&self, call: &str, credential: Option<&str>, body: &Value) -> (u16, Value) {
        let credential = credential.map(|text| Credential::new(Secret::new(text)));
        let context = RequestContext { credential, ..RequestContext::default() };
        let call = Call::parse(call).expect("a call's name");
        match self.edge.bus.call(call, &context, body).await {
            Ok(answer) => (200, serde_json::from_slice(&answer).unwrap()),
            Err(BackendError::Refused { status, error, .. }) => (status, json!({ "error": error })),
            Err(error) => panic!("no worker answers: {error}"),
        }
    }

    /// A command sealed to the workers for that subject.
    fn seal(&self, subject: &CommandSubject, work: Work) -> Sealed {
        self.seal_as(&system::random_id(), subject, work)
    }

    fn seal_as(&self, id: &str, subject: &CommandSubject, work: Work) -> Sealed {
        self.seal_at(system::now(), id, subject, work)
    }

    fn seal_at(&self, time: jiff::Timestamp, id: &str, subject: &CommandSubject, work: Work) -> Sealed {
        let (id, subject) = (id.to_owned(), subject.subject());
        let (time, message_id) = (time.as_millisecond(), system::random_id());
        let answer_key = self.answer_key.to_text();
        let order = Order {
            subject,
            id: id.clone(),
            time,
            message_id: message_id.clone(),
            answer_key,
            origin: Origin::default(),
            work,
        };
        let order = serde_json::to_vec(&order).unwrap();
        let (sealed, sender) = seal::seal_order(&self.seal_to, &order).unwrap();
        Sealed { sender, message_id, envelope: Envelope { v: VERSION, id, sealed } }
    }

    /// Puts a command on the queue as that user. Waits for an empty queue first, because a worker answers
    /// before it takes a command off the queue, and the server refuses a second one on the same subject.
    async fn send(&self, client: &async_nats::Client, subject: &str, sealed: &Sealed) {
        self.fleet.idle().await;
        let mut headers = HeaderMap::new();
        let Sealed { sender, message_id, envelope } = sealed;
        headers.insert("Nats-Msg-Id", message_id.as_str());
        headers.insert(HEADER_SENDER, sender.as_str());
        headers.insert(HEADER_REPLY, format!("oauth.reply.{}.{}", self.id, envelope.id));
        let payload = serde_json::to_vec(envelope).unwrap();
        let request = Request::new().headers(headers).payload(payload.into());
        let ack = client.send_request(subject.to_owned(), request).await.expect("JetStream answers");
        let ack: Value = serde_json::from_slice(&ack.payload).unwrap();
        assert!(ack.get("error").is_none(), "{ack}");
    }

    /// The answer to a command for that subject.
    async fn command(&mut self, subject: &CommandSubject, work: Work) -> WorkerReply {
        let sealed = self.seal(subject, work);
        self.answer(subject, &sealed).await
    }

    async fn answer(&mut self, subject: &CommandSubject, sealed: &Sealed) -> WorkerReply {
        self.send(&self.client, &subject.subject(), sealed).await;
        let answer = tokio::time::timeout(std::time::Duration::from_mins(1), self.answers.next()).await;
        let payload = answer.expect("an answer comes").unwrap().payload;
        seal::open_answer(&self.answer_key, (&subject.subject(), &sealed.envelope.id), &payload).expect("it opens")
    }

    /// Waits for that many dead letters and returns their reasons.
    async fn given_up(&self, count: usize) -> Vec<String> {
        let list = async || self.fleet.cli(&["dead", "list", "--json"]).await;
        eventually("the commands become dead letters", async || list().await.lines().count() == count).await;
        let letters = list().await;
        let read = |line: &str| serde_json::from_str::<Value>(line).unwrap()["letter"]["reason"].to_string();
        letters.lines().map(read).collect()
    }

    fn config_put(&self, credential: &str) -> Work {
        let config = Secret::new(self.fleet.config().to_string().replace("\"Odd\"", "\"Stolen\""));
        Work::Put { credential: Credential::new(Secret::new(credential)), config }
    }
}

fn config_subject(account: &str, verb: Verb) -> CommandSubject {
    CommandSubject::config(Integration::parse(INTEGRATION).unwrap(), Account::parse(account).unwrap(), verb)
}

fn connection(name: &str) -> ConnectionKey {
    ConnectionKey {
        account: Account::parse(ACCOUNT).unwrap(),
        integration: Integration::parse(INTEGRATION).unwrap(),
        name: ConnectionName::parse(name).unwrap(),
    }
}

/// The credential of a signed request as it is sent to workers.
fn signed(user: &KeyPair, jwt: &str, method: &str, target: &str) -> String {
    let request = request(jwt, method, target);
    let headers = sign(user, &request);
    let values: Vec<&str> = headers.iter().map(|(_, value)| value.as_str()).collect();
    [&values[..], &[method, target, request.body_hash.as_str()]].concat().join(" ")
}

#[tokio::test]
async fn e9_calls_with_forged_or_foreign_credentials_are_refused() {
    let world = World::start().await;
    let one = json!({ "integration_id": INTEGRATION, "connection_id": "one" });
    assert_eq!(world.call("token", Some(&world.key(0)), &one).await.0, 200);
    let account = world.tenants.account(&json!({}));
    let own = bearer(&account);
    let victim = json!({ "nats": { "bearer_token": true, "issuer_account": ACCOUNT } });
    let forged = mint::user(&account, &KeyPair::new_user(), &victim);
    let (head, _) = own.rsplit_once('.').unwrap();
    let key = &world.fleet.admin_keys[0];
    let end = if key.ends_with('A') { "B" } else { "A" };
    for credential in [
        None,
        Some(String::new()),
        Some(format!("X-Api-Key {}{end}", &key[..key.len() - 1])),
        Some(key.clone()),
        Some(format!("Bearer {key}")),
        Some(format!("Bearer {forged}")),
        Some(format!("Bearer {head}.{}", "A".repeat(86))),
        Some(format!("NATS {own}")),
        Some(format!("Account {ACCOUNT}")),
    ] {
        for call in ["whoami", "token", "refresh", "delete", "list", "login", "config", "configs"] {
            let (status, body) = world.call(call, credential.as_deref(), &one).await;
            assert_eq!(status, 401, "{call} {credential:?}: {body}");
        }
    }
    // A captured credential only works for its own account, regardless of the call's fields.
    for credential in [format!("Bearer {own}"), world.key(1)] {
        for call in ["token", "refresh", "delete"] {
            assert_eq!(world.call(call, Some(&credential), &one).await.0, 404, "{call}");
        }
        let of_another = json!({ "integration_id": INTEGRATION, "connection_id": "one", "account": ACCOUNT });
        assert_eq!(world.call("token", Some(&credential), &of_another).await.0, 400);
        let (_, list) = world.call("list", Some(&credential), &json!({})).await;
        assert_eq!(list["results_total"], 0, "{list}");
    }
    assert_eq!(world.fleet.stored("one").await.0.unwrap()["status"], "active");
}

#[tokio::test]
async fn e9_a_captured_signed_request_works_once_and_only_as_signed() {
    let mut world = World::start().await;
    let (account, user) = (world.tenants.account(&json!({})), KeyPair::new_user());
    let jwt = mint::user(&account, &user, &json!({}));
    let target = format!("/hub/integrations/{INTEGRATION}/oauth-token/one");
    let one = json!({ "integration_id": INTEGRATION, "connection_id": "one" });
    let captured = signed(&user, &jwt, "GET", &target);
    for (call, body) in [
        ("token", json!({ "integration_id": INTEGRATION, "connection_id": "two" })),
        ("token", json!({ "integration_id": "other", "connection_id": "one" })),
        ("token", json!({ "integration_id": INTEGRATION, "connection_id": "one", "min_valid": 86400 })),
        ("refresh", one.clone()),
        ("delete", one.clone()),
        ("login", one.clone()),
        ("list", json!({ "limit": 100 })),
        ("whoami", json!({})),
    ] {
        let (status, body) = world.call(call, Some(&captured), &body).await;
        assert_eq!(status, 401, "{call}: {body}");
    }
    // The edge cannot change a signed request that it forwards, either.
    for changed in [
        captured.replace("oauth-token/one", "oauth-token/two"),
        captured.replace(" GET ", " DELETE "),
        captured.replacen("NATS ", "Bearer ", 1),
        captured.rsplit_once(' ').unwrap().0.to_owned(),
    ] {
        assert_eq!(world.call("token", Some(&changed), &one).await.0, 401, "{changed}");
    }
    // In a command that the edge built itself.
    let credential = Credential::new(Secret::new(captured.as_str()));
    let subject = config_subject(&account.public_key(), Verb::Delete);
    let answer = world.command(&subject, Work::Delete { credential }).await;
    assert_eq!(answer.status, 401, "{:?}", answer.body);

    assert_eq!(world.call("token", Some(&captured), &one).await.0, 404, "the request itself still works");
    for _ in 0..8 {
        assert_eq!(world.call("token", Some(&captured), &one).await.0, 401, "a worker took it again");
    }
}

#[tokio::test]
async fn e9_only_an_admins_credential_of_its_account_changes_a_config() {
    let mut world = World::start().await;
    let account = world.tenants.account(&json!({}));
    let (config, bearer) = (world.fleet.stored_config().await, format!("Bearer {}", bearer(&account)));
    let user = KeyPair::new_user();
    let jwt = mint::user(&account, &user, &json!({}));
    let target = format!("/hub/integrations/{INTEGRATION}/oauth-config");
    let deletion = signed(&user, &jwt, "DELETE", &target);
    let (other, own) = (world.fleet.other_account.clone(), account.public_key());
    for (subject_account, credential) in [
        (ACCOUNT, String::new()),
        (ACCOUNT, "X-Api-Key tb_0123456789ab_x".to_owned()),
        (ACCOUNT, bearer.clone()),
        // An admin of another account than the subject's, and a member of the subject's account.
        (ACCOUNT, world.key(1)),
        (other.as_str(), world.key(0)),
        (own.as_str(), bearer),
        (own.as_str(), deletion),
    ] {
        for verb in [Verb::Put, Verb::Delete] {
            let work = if verb == Verb::Put {
                world.config_put(&credential)
            } else {
                Work::Delete { credential: Credential::new(Secret::new(credential.as_str())) }
            };
            let answer = world.command(&config_subject(subject_account, verb), work).await;
            assert_eq!(answer.status, 401, "{verb} {subject_account}: {:?}", answer.body);
        }
    }
    assert_eq!(world.fleet.stored_config().await, config);
}

#[tokio::test]
async fn e9_a_captured_command_works_under_no_other_subject_or_id() {
    let world = World::start().await;
    let config = world.fleet.stored_config().await;
    // As if an admin's command had passed through: the edge only has this sealed form.
    let captured = world.seal(&config_subject(ACCOUNT, Verb::Put), world.config_put(&world.key(0)));
    let elsewhere =
        CommandSubject::config(Integration::parse("elsewhere").unwrap(), Account::parse(ACCOUNT).unwrap(), Verb::Put);
    // Under message ids of their own: the server refuses a copy under the same one.
    let copy = || Sealed { message_id: system::random_id(), ..captured.clone() };
    for subject in [
        elsewhere.subject(),
        config_subject(&world.fleet.other_account, Verb::Put).subject(),
        config_subject(ACCOUNT, Verb::Delete).subject(),
        CommandSubject::connection(&connection("one"), Verb::Exchange).subject(),
    ] {
        world.send(&world.client, &subject, &copy()).await;
    }
    // Under another id, and as a command of the workers.
    let renamed = Envelope { id: system::random_id(), ..captured.envelope.clone() };
    let renamed = Sealed { envelope: renamed, ..copy() };
    world.send(&world.client, &config_subject(ACCOUNT, Verb::Put).subject(), &renamed).await;
    world.given_up(5).await;
    let subject = config_subject(ACCOUNT, Verb::Put).subject();
    world.send(&world.client, &subject, &Sealed { sender: world.seal_to.clone(), ..copy() }).await;
    let reasons = world.given_up(6).await;
    assert_eq!(
        reasons.iter().filter(|reason| reason.contains("another subject, id or verb")).count(),
        5,
        "{reasons:?}"
    );
    assert_eq!(world.fleet.stored_config().await, config);
}

#[tokio::test]
async fn e9_only_workers_can_send_due_refreshes_and_revocations() {
    let world = World::start().await;
    let mut wire = Wire::connect(&world.fleet.nats, "edge").await;
    let admin = world.fleet.nats.connect("worker").await;
    for verb in [Verb::Refresh, Verb::Revoke] {
        let subject = CommandSubject::connection(&connection("one"), verb);
        assert!(!wire.may_publish(&subject.subject()).await, "the edge may publish {subject}");
        // Workers reject it even from a user who may publish it.
        let work = if verb == Verb::Refresh {
            Work::Refresh { actor: None, sequence: 1, slot_reserved: false }
        } else {
            Work::Revoke {
                actor: "user:x".to_owned(),
                login_id: "x".to_owned(),
                keep_grant: false,
                even_if_shared: false,
            }
        };
        world.send(&admin, &subject.subject(), &world.seal(&subject, work)).await;
    }
    let reasons = world.given_up(2).await;
    assert!(reasons.iter().all(|reason| reason.contains("only workers may send this")), "{reasons:?}");
    assert_eq!(world.fleet.stored("one").await.0.unwrap()["status"], "active");
}

#[tokio::test]
async fn e9_the_id_of_a_finished_login_returns_no_token() {
    let mut world = World::start().await;
    let stream = world.fleet.jetstream("worker").await.get_stream("OAUTH").await.unwrap();
    let subject = format!("ms.integration.oauth.{}", Fleet::path("one"));
    let record = stream.get_last_raw_message_by_subject(&subject).await.unwrap();
    let id = record.headers.get(HEADER_COMMAND).expect("a record names its command").as_str().to_owned();
    let exchange = CommandSubject::connection(&connection("one"), Verb::Exchange);
    for query in ["code=code&state=unknown", "code=code", ""] {
        let work = Work::Exchange { query: Secret::new(query), cookies: Vec::new(), credential: None };
        let sealed = world.seal_as(&id, &exchange, work);
        let answer = world.answer(&exchange, &sealed).await;
        assert!([400, 401].contains(&answer.status), "{query}: {}", answer.status);
        assert!(answer.body.get("access_token").is_none(), "{query}");
    }
    let events = world.fleet.events().await;
    assert_eq!(events.iter().filter(|event| event["event"] == "connected").count(), 1, "{events:?}");
}
