//! Configured events are sent, signed, until the receiver accepts them.

use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::{self, AckKind};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use futures_util::StreamExt as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::time::{Duration, sleep, timeout};

use crate::fleet::Fleet;
use crate::provider::{Provider, Received, Scripted};
use crate::support::nats::Nats;
use crate::support::tokenbus::{ACCOUNT, PROGRAM, settings};
use crate::support::wait::{PATIENCE, eventually};
use crate::world::World;

const SECRET: &str = "canary webhook secret, 32 bytes.";

/// The receiver's requests, once it has that many.
async fn requests_to(receiver: &Provider, count: usize) -> Vec<Received> {
    let poll = async {
        while receiver.received().len() < count {
            sleep(Duration::from_millis(20)).await;
        }
        receiver.received()
    };
    timeout(PATIENCE, poll).await.expect("the receiver gets its events")
}

/// Settings that send only `connected` events, to that receiver.
fn sent_to(receiver: &Provider) -> [(&'static str, String); 3] {
    [
        ("WEBHOOKS__URL", format!("{}/hook", receiver.url)),
        ("WEBHOOKS__SECRET", format!("whsec_{}", BASE64_STANDARD.encode(SECRET))),
        ("WEBHOOKS__EVENTS", "[connected]".to_owned()),
    ]
}

/// A world with one connection, whose event goes to that receiver.
async fn connected(receiver: &Provider) -> World {
    let settings = sent_to(receiver);
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let world = World::with_settings(Provider::generous().await, &settings).await;
    assert_eq!(world.connect("one").await.0, 200);
    world
}

/// The consumer of the webhook events.
async fn consumer(nats: &Nats) -> PullConsumer {
    let jetstream = jetstream::new(nats.connect("worker").await);
    jetstream.get_consumer_from_stream("webhook", "OAUTH_EVENTS").await.expect("workers made it")
}

/// Waits until no event is pending or waiting for a retry.
async fn wait_until_sent(nats: &Nats) {
    let consumer = consumer(nats).await;
    eventually("no webhook is pending", async || {
        let info = consumer.get_info().await.expect("the server says how it is");
        (info.num_ack_pending, info.num_pending) == (0, 0)
    })
    .await;
}

#[track_caller]
fn check_signature(received: &Received) {
    let header = |name: &str| received.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), received.body).as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(*header("webhook-signature"), expected);
}

#[tokio::test]
async fn an_event_is_sent_signed_and_repeated_until_accepted() {
    let receiver =
        Provider::start(|number, _| Scripted::new(if number == 0 { 500 } else { 204 }, "text/plain", "")).await;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(SECRET));
    let hook = format!("{}/hook", receiver.url);
    let more = [
        ("WEBHOOKS__URL", hook.as_str()),
        ("WEBHOOKS__SECRET", secret.as_str()),
        ("WEBHOOKS__EVENTS", "[connected, revoked]"),
    ];
    let world = World::with_settings(Provider::generous().await, &more).await;
    assert_eq!(world.connect("one").await.0, 200);
    let first = requests_to(&receiver, 2).await;
    assert_eq!(first[0].headers["webhook-id"], first[1].headers["webhook-id"], "a repetition has the same id");
    assert_eq!(first[0].body, first[1].body);
    let path = format!("{}/oauth-connections/one", crate::world::INTEGRATION);
    assert_eq!(world.tokenbus.call(reqwest::Method::DELETE, &path).await.0, 200);

    let all = requests_to(&receiver, 3).await;
    all.iter().for_each(check_signature);
    let names: Vec<Value> =
        all.iter().map(|received| serde_json::from_str::<Value>(&received.body).expect("JSON")).collect();
    let names: Vec<&Value> = names.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["connected", "connected", "revoked"], "and no other, as login_started or config_put");
    assert!(all.iter().all(|received| received.path == "/hook"
        && !received.body.contains("at-0")
        && !received.body.contains("rt-0")));
}

#[tokio::test]
async fn a_redirect_is_a_failure_and_any_2xx_a_success_even_with_a_long_body() {
    let receiver = Provider::start(|number, _| match number {
        0 => {
            let mut redirect = Scripted::new(307, "text/plain", "");
            redirect.headers.push(("location", "/elsewhere".to_owned()));
            redirect
        }
        _ => Scripted::new(201, "text/plain", "x".repeat(1024 * 1024)),
    })
    .await;
    let world = connected(&receiver).await;
    requests_to(&receiver, 2).await;
    wait_until_sent(&world.tokenbus.nats).await;
    let paths: Vec<String> = receiver.received().into_iter().map(|received| received.path).collect();
    assert_eq!(paths, ["/hook", "/hook"], "followed nowhere, and taken once");
}

#[tokio::test]
async fn an_event_whose_worker_was_killed_while_sending_is_sent_again_with_the_same_id() {
    let receiver = Provider::start(|number, _| {
        let wait = Duration::from_secs(if number == 0 { 3_600 } else { 0 });
        Scripted::new(204, "text/plain", "").after(wait)
    })
    .await;
    let mut world = connected(&receiver).await;
    requests_to(&receiver, 1).await;
    world.tokenbus.crash_and_restart().await;
    let both = requests_to(&receiver, 2).await;
    both.iter().for_each(check_signature);
    assert_eq!(both[0].headers["webhook-id"], both[1].headers["webhook-id"]);
    assert_eq!(both[0].body, both[1].body);
    wait_until_sent(&world.tokenbus.nats).await;
}

/// Simulates ten hours of deliveries: the test itself takes those between the first and the last.
#[tokio::test]
async fn an_event_that_is_never_accepted_becomes_a_dead_letter() {
    let receiver = Provider::start(|_, _| Scripted::new(503, "text/plain", "canary: what receivers say")).await;
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    let settings = sent_to(&receiver).map(|(name, value)| (format!("TOKENBUS_{name}"), value));
    let settings = settings.each_ref().map(|(name, value)| (name.as_str(), value.as_str()));
    let mut second = fleet.worker_with(&settings);
    second.ready().await;
    assert_eq!(fleet.arrive(&fleet.login("one").await, "code").await.0, 200);
    requests_to(&receiver, 1).await;
    second.kill().await;

    let consumer = consumer(&fleet.nats).await;
    let mut delivered = 1;
    while delivered < tokenbus::internals::MAX_WEBHOOK_DELIVERIES - 1 {
        // One at a time, so that the last message put back is left for the worker.
        let batch = consumer.batch().max_messages(1).expires(PATIENCE).messages().await;
        let message = batch.expect("workers may pull").next().await.expect("in time").expect("a message");
        delivered = message.info().expect("a delivery").delivered;
        message.double_ack_with(AckKind::Nak(None)).await.expect("it is put back");
    }

    let third = fleet.worker_with(&settings);
    wait_until_sent(&fleet.nats).await;
    let letters = fleet.cli(&["dead", "list", "--json"]).await;
    let letter: Value = serde_json::from_str(&letters).unwrap_or_else(|_| panic!("one letter: {letters}"));
    let letter = &letter["letter"];
    assert_eq!(letter["reason"], "webhook: the receiver answered 503");
    assert_eq!(letter["delivered"], tokenbus::internals::MAX_WEBHOOK_DELIVERIES);
    assert!(letter["subject"].as_str().is_some_and(|subject| subject.ends_with(".odd.one.connected")), "{letter}");
    assert!(third.log().contains("given up"), "{}", third.log());
}

#[tokio::test]
async fn the_consumer_of_a_removed_webhook_is_deleted_once_its_events_are() {
    let receiver = Provider::start(|_, _| Scripted::new(204, "text/plain", "")).await;
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    first.kill().await;
    let settings = sent_to(&receiver).map(|(name, value)| (format!("TOKENBUS_{name}"), value));
    let kept = [("TOKENBUS_EVENTS__MAX_AGE", "3s")];
    let settings: Vec<_> = settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).chain(kept).collect();
    let mut second = fleet.worker_with(&settings);
    second.ready().await;
    let began = tokio::time::Instant::now();
    eventually("twice that time passes", async || began.elapsed() > Duration::from_secs(6)).await;
    assert_eq!(fleet.arrive(&fleet.login("one").await, "code").await.0, 200);
    requests_to(&receiver, 1).await;
    wait_until_sent(&fleet.nats).await;

    second.kill().await;
    let _third = fleet.worker().await;
    let jetstream = jetstream::new(fleet.nats.connect("worker").await);
    eventually("the server deletes the consumer", async || {
        jetstream
            .get_consumer_from_stream::<jetstream::consumer::pull::Config, _, _>("webhook", "OAUTH_EVENTS")
            .await
            .is_err()
    })
    .await;
}

#[tokio::test]
async fn c2_a_webhook_is_always_signed_and_never_sent_to_a_private_address() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().expect("a temporary folder"));
    let keys = folder.path().join("keys");
    let mut settings = settings(&nats, "worker", &keys);
    let generate = ["keys", "generate", "--out", keys.to_str().expect("a plain path")];
    crate::support::tokenbus::run(&settings, &generate).await;
    let good = format!("whsec_{}", BASE64_STANDARD.encode(SECRET));
    for (url, secret, expected) in [
        ("https://10.0.0.1/hook", good.as_str(), "webhooks.url: the host has no public address"),
        ("https://169.254.169.254/", good.as_str(), "webhooks.url: the host has no public address"),
        ("http://receiver.example/hook", good.as_str(), "webhooks.url: only https is allowed"),
        ("https://receiver.example/hook", "canary-weak", "webhooks.secret: a webhook's secret must be"),
    ] {
        settings.insert("TOKENBUS_WEBHOOKS__URL".to_owned(), url.to_owned());
        settings.insert("TOKENBUS_WEBHOOKS__SECRET".to_owned(), secret.to_owned());
        let mut command = tokio::process::Command::new(PROGRAM);
        let output = command.args(["serve", "--role", "worker"]).envs(&settings).kill_on_drop(true).output();
        let output = timeout(Duration::from_mins(1), output).await.expect("it ends at once").expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected) && !said.contains("canary"), "{said}");
    }
}

#[tokio::test]
async fn an_account_has_a_receiver_of_its_own_and_two_secrets_during_a_change() {
    let accept = |_: usize, _: &Received| Scripted::new(204, "text/plain", "");
    let (of_all, of_account, other) =
        (Provider::start(accept).await, Provider::start(accept).await, Provider::start(accept).await);
    let [recent, previous] = ["a recent secret of 32 bytes long", SECRET];
    let encoded = |secret: &str| format!("whsec_{}", BASE64_STANDARD.encode(secret));
    let own = format!("ACCOUNTS__{ACCOUNT}__WEBHOOKS");
    let others = format!("ACCOUNTS__{}__WEBHOOKS", crate::ask::new_account());
    let more = [
        ("WEBHOOKS__URL".to_owned(), format!("{}/hook", of_all.url)),
        ("WEBHOOKS__SECRET".to_owned(), encoded(SECRET)),
        ("WEBHOOKS__EVENTS".to_owned(), "[connected]".to_owned()),
        (format!("{own}__URL"), format!("{}/hook", of_account.url)),
        (format!("{own}__SECRET"), encoded(recent)),
        (format!("{own}__PREVIOUS_SECRET"), encoded(previous)),
        (format!("{own}__EVENTS"), "[connected, login_started]".to_owned()),
        (format!("{others}__URL"), format!("{}/hook", other.url)),
        (format!("{others}__SECRET"), encoded(recent)),
    ];
    let more: Vec<(&str, &str)> = more.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let world = World::with_settings(Provider::generous().await, &more).await;
    assert_eq!(world.connect("one").await.0, 200);

    let events = requests_to(&of_account, 2).await;
    for event in &events {
        let header = |name: &str| event.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), event.body);
        let signatures = [recent, previous].map(|secret| {
            let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
            mac.update(signed.as_bytes());
            format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()))
        });
        assert_eq!(*header("webhook-signature"), signatures.join(" "));
    }
    let kinds = |events: &[Received]| {
        let kind = |event: &Received| serde_json::from_str::<Value>(&event.body).expect("JSON")["event"].clone();
        events.iter().map(kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&events), ["login_started", "connected"]);
    let all = requests_to(&of_all, 1).await;
    assert_eq!(kinds(&all), ["connected"]);
    check_signature(&all[0]);
    assert!(other.received().is_empty(), "another account's receiver gets nothing");
}
