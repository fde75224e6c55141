//! Chosen events reach a receiver, signed, until it takes them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use tokio::time::{Duration, sleep, timeout};

use crate::provider::{Asked, Provider, Said};
use crate::support::nats::Nats;
use crate::support::tokenbus::{PROGRAM, settings};
use crate::world::World;

const SECRET: &str = "canary webhook secret, 32 bytes.";

/// What the receiver got, once it got that many.
async fn received(receiver: &Provider, count: usize) -> Vec<Asked> {
    let poll = async {
        while receiver.asked().len() < count {
            sleep(Duration::from_millis(20)).await;
        }
        receiver.asked()
    };
    timeout(Duration::from_mins(1), poll).await.expect("the receiver gets its events")
}

#[track_caller]
fn check_signature(asked: &Asked) {
    let header = |name: &str| asked.headers.get(name).unwrap_or_else(|| panic!("no {name}"));
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).expect("a key");
    mac.update(format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), asked.body).as_bytes());
    let expected = format!("v1,{}", BASE64_STANDARD.encode(mac.finalize().into_bytes()));
    assert_eq!(*header("webhook-signature"), expected);
}

#[tokio::test]
async fn an_event_comes_signed_and_again_until_it_is_taken() {
    let receiver = Provider::start(|number, _| Said::new(if number == 0 { 500 } else { 204 }, "text/plain", "")).await;
    let secret = format!("whsec_{}", BASE64_STANDARD.encode(SECRET));
    let hook = format!("{}/hook", receiver.url);
    let more = [
        ("WEBHOOKS__URL", hook.as_str()),
        ("WEBHOOKS__SECRET", secret.as_str()),
        ("WEBHOOKS__EVENTS", "[connected, revoked]"),
    ];
    let world = World::with_settings(Provider::generous().await, &more).await;
    assert_eq!(world.connect("one").await.0, 200);
    let first = received(&receiver, 2).await;
    assert_eq!(first[0].headers["webhook-id"], first[1].headers["webhook-id"], "a repetition is told by its id");
    assert_eq!(first[0].body, first[1].body);
    let path = format!("{}/oauth-connections/one", crate::world::INTEGRATION);
    assert_eq!(world.tokenbus.call(reqwest::Method::DELETE, &path).await.0, 200);

    let all = received(&receiver, 3).await;
    all.iter().for_each(check_signature);
    let names: Vec<Value> = all.iter().map(|asked| serde_json::from_str::<Value>(&asked.body).expect("JSON")).collect();
    let names: Vec<&Value> = names.iter().map(|event| &event["event"]).collect();
    assert_eq!(names, ["connected", "connected", "revoked"], "and no other, as login_started or config_put");
    assert!(
        all.iter().all(|asked| asked.path == "/hook" && !asked.body.contains("at-0") && !asked.body.contains("rt-0"))
    );
}

#[tokio::test]
async fn c2_a_webhook_goes_to_no_private_address_and_only_signed() {
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
        ("https://receiver.example/hook", "canary-weak", "webhooks.secret must be"),
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
