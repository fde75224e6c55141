//! Whose account a connection is, and the grants of one account that several connections share.

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::{INTEGRATION, World, parameter};

/// The account that logs in next at the provider.
#[derive(Clone, Default)]
struct Person(Arc<Mutex<&'static str>>);

impl Person {
    fn is(&self, name: &'static str) {
        *self.0.lock().expect("no panic with the lock") = name;
    }

    fn name(&self) -> &'static str {
        *self.0.lock().expect("no panic with the lock")
    }
}

/// A provider that says who logged in, at `/me`. Each login gets tokens with that name in them.
async fn provider(person: &Person) -> Provider {
    let person = person.clone();
    Provider::start(move |number, received| match received.path.as_str() {
        "/me" => {
            let token = received.authorization.as_deref().unwrap_or_default();
            let name = token.strip_prefix("Bearer at-").and_then(|rest| rest.split('-').next());
            match name {
                // The API works again for Eve's tokens once somebody else has logged in.
                Some("eve") if person.name() == "eve" => Scripted::json(500, &json!({})),
                Some("nobody") | None => Scripted::json(401, &json!({})),
                Some(name) => {
                    Scripted::json(200, &json!({ "user": { "id": name, "email": format!("{name}@x.example") } }))
                }
            }
        }
        "/sites" => Scripted::json(200, &json!([{ "id": "site-1", "note": { "deep": 1 } }])),
        "/revoke" if person.name() == "outage" => Scripted::json(503, &json!({})),
        "/revoke" => Scripted::json(200, &json!({})),
        _ => {
            let name = person.name();
            let token = |kind: &str| format!("{kind}-{name}-{number}");
            let answer = json!({ "access_token": token("at"), "refresh_token": token("rt"), "expires_in": 3600 });
            Scripted::json(200, &answer)
        }
    })
    .await
}

async fn world(person: &Person, more: &Value) -> World {
    let world = World::with_settings(provider(person).await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    configure(&world, INTEGRATION, more).await;
    world
}

async fn configure(world: &World, integration: &str, more: &Value) {
    let mut config = world.config();
    config["integration_id"] = integration.into();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    config["identity"] = json!({ "url": format!("{}/me", world.provider.url), "id": "user.id", "label": "user.email" });
    for (name, value) in more.as_object().expect("an object") {
        config[name] = value.clone();
    }
    world.tokenbus.configure(&config).await;
}

fn revoked(world: &World) -> Vec<String> {
    let is_revocation = |received: &Received| received.path == "/revoke";
    let received = world.provider.received().into_iter().filter(is_revocation);
    let mut tokens: Vec<String> = received.filter_map(|received| received.form().remove("token")).collect();
    tokens.sort();
    tokens
}

async fn delete(world: &World, path: &str) -> StatusCode {
    world.tokenbus.call(Method::DELETE, &format!("{INTEGRATION}/oauth-connections/{path}")).await.0
}

async fn connect_at(world: &World, integration: &str, name: &str) {
    let url = world.tokenbus.login(integration, name).await;
    let callback = world.callback(&[("code", "code"), ("state", &parameter(&url, "state"))]);
    assert_eq!(world.tokenbus.arrive(&callback).await.0, StatusCode::OK);
}

#[tokio::test]
async fn h13_a_connection_says_whose_account_it_is() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    let mut config = world.config();
    config["metadata_request"] = json!({ "url": format!("{}/sites", world.provider.url), "paths": ["0.id", "0.note"] });
    configure(&world, INTEGRATION, &json!({ "metadata_request": config["metadata_request"] })).await;
    let (status, connection) = world.connect("w").await;
    assert_eq!(status, StatusCode::OK, "{connection}");
    let ada = json!({ "id": "ada", "label": "ada@x.example" });
    assert_eq!((&connection["identity"], &connection["metadata"]), (&ada, &json!({ "0.id": "site-1" })));
    assert_eq!(world.read("w").await.1["identity"], ada);
    let (_, list) = world.tokenbus.call(Method::GET, "oauth-connections").await;
    assert_eq!(list["results"][0]["identity"], ada);
    let (_, refreshed) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-refresh-token/w")).await;
    assert_eq!((&refreshed["identity"], &refreshed["access_token"]), (&ada, &json!("at-ada-3")), "{refreshed}");
    // The identity goes with the connection, and events never have it.
    assert_eq!(delete(&world, "w").await, StatusCode::OK);
    let bus = Bus::of(&world.tokenbus.nats).await;
    let events = bus.messages("OAUTH_EVENTS").await;
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
    assert!(!events.is_empty());
    for event in events {
        assert!(!text(&event.payload).contains("ada"), "{}", text(&event.payload));
    }
    let subject = format!("ms.integration.oauth.{ACCOUNT}.{INTEGRATION}.w");
    let tombstone = bus.last("OAUTH", &subject).await.expect("a deleted connection has a tombstone");
    assert!(!text(&tombstone.payload).contains("ada"), "{}", text(&tombstone.payload));
}

#[tokio::test]
async fn h13_an_identity_that_cannot_be_had_costs_no_login_and_is_asked_for_again() {
    let person = Person::default();
    person.is("nobody");
    let world = world(&person, &json!({})).await;
    let (status, connection) = world.connect("w").await;
    assert_eq!((status, &connection["identity"]), (StatusCode::OK, &Value::Null), "{connection}");
    let bus = Bus::of(&world.tokenbus.nats).await;
    let missing = bus.events("facts_missing").await;
    assert_eq!((&missing[0]["reason"], &missing[0]["provider_status"]), (&json!("identity"), &json!(401)));
    person.is("ada");
    let refresh = format!("{INTEGRATION}/oauth-refresh-token/w");
    // This refresh asks with the old token. The next one has one of Ada's.
    assert_eq!(world.tokenbus.call(Method::GET, &refresh).await.1["identity"], Value::Null);
    let (_, refreshed) = world.tokenbus.call(Method::GET, &refresh).await;
    assert_eq!(refreshed["identity"]["id"], "ada", "{refreshed}");
    let asked = world.provider.received().iter().filter(|received| received.path == "/me").count();
    world.tokenbus.call(Method::GET, &refresh).await;
    assert_eq!(world.provider.received().iter().filter(|received| received.path == "/me").count(), asked);
}

#[tokio::test]
async fn h13_a_login_as_another_person_is_refused_where_the_config_says_so() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({ "reconnect": "same_identity" })).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    person.is("bob");
    let (status, body) = world.connect("w").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "identity_mismatch", "{body}");
    assert!(body["error"].as_str().is_some_and(|error| error.starts_with("the connection is of")), "{body}");
    assert_eq!(revoked(&world), ["at-bob-2", "rt-bob-2"], "the new grant only");
    person.is("nobody");
    let (status, body) = world.connect("w").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(revoked(&world).len(), 2, "it may be the grant of the connection that stays");
    let (_, connection) = world.read("w").await;
    assert_eq!(connection["access_token"], "at-ada-0");
    let failed = Bus::of(&world.tokenbus.nats).await.events("exchange_failed").await;
    let reasons: Vec<&Value> = failed.iter().map(|event| &event["reason"]).collect();
    assert_eq!(reasons, ["identity_mismatch", "identity_unknown"]);
    person.is("ada");
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
}

#[tokio::test]
async fn h13_the_same_id_at_another_provider_is_another_account() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({ "reconnect": "same_identity" })).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    let other = provider(&person).await;
    let config = world.config().to_string().replace(&world.provider.url, &other.url);
    let mut config: Value = serde_json::from_str(&config).expect("JSON");
    config["identity"] = json!({ "url": format!("{}/me", other.url), "id": "user.id" });
    config["reconnect"] = "same_identity".into();
    world.tokenbus.configure(&config).await;
    let (status, body) = world.connect("w").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "identity_mismatch", "{body}");
    assert_eq!(other.received().iter().filter(|received| received.path == "/token").count(), 1);
}

#[tokio::test]
async fn h13_no_login_replaces_a_connection_of_an_unknown_account() {
    let person = Person::default();
    person.is("nobody");
    let world = world(&person, &json!({ "reconnect": "same_identity" })).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    let exchanges = || world.provider.received().iter().filter(|received| received.path == "/token").count();
    person.is("ada");
    let (status, body) = world.connect("w").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "identity_unknown", "{body}");
    assert!(body["error"].as_str().is_some_and(|error| error.starts_with("the provider does not")), "{body}");
    assert_eq!(exchanges(), 1, "the code is not sent");
    assert_eq!(delete(&world, "w").await, StatusCode::OK);
    assert_eq!(world.connect("w").await.0, StatusCode::OK);

    // Eve's token answers for her by the time of the second login.
    person.is("eve");
    assert_eq!(world.connect("v").await.1["identity"], Value::Null);
    person.is("ada");
    let (status, body) = world.connect("v").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "identity_mismatch", "{body}");
}

#[tokio::test]
async fn h13_a_login_of_another_account_leaves_no_deleted_grant_alive() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    for (next, asked) in [("ada", 0), ("bob", 2)] {
        person.is("ada");
        assert_eq!(world.connect("w").await.0, StatusCode::OK);
        person.is("outage");
        assert_eq!(delete(&world, "w").await, StatusCode::OK);
        let before = revoked(&world).len();
        person.is(next);
        assert_eq!(world.connect("w").await.0, StatusCode::OK);
        assert_eq!(revoked(&world).len(), before + asked, "{next}: one account's grants may end together");
        assert_eq!(delete(&world, "w").await, StatusCode::OK);
    }
    let replaced = Bus::of(&world.tokenbus.nats).await.events("grant_replaced").await;
    assert_eq!(replaced.iter().map(|event| &event["reason"]).collect::<Vec<_>>(), ["revoked_at_provider"]);
}

#[tokio::test]
async fn h13_a_replaced_grant_of_another_account_is_revoked() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    assert_eq!(revoked(&world), [""; 0], "many providers end all grants of an account when one is revoked");
    person.is("bob");
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    assert_eq!(revoked(&world), ["at-ada-2", "rt-ada-2"]);
    let replaced = Bus::of(&world.tokenbus.nats).await.events("grant_replaced").await;
    assert_eq!(replaced[0]["reason"], "revoked_at_provider");
    configure(&world, INTEGRATION, &json!({ "revoke_replaced": true })).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    assert_eq!(revoked(&world).len(), 4, "each login is a grant of its own");
}

#[tokio::test]
async fn h13_a_grant_that_another_connection_shares_is_not_revoked() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    // Another integration with the same client.
    configure(&world, "other", &json!({})).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    connect_at(&world, "other", "v").await;
    person.is("bob");
    assert_eq!(world.connect("u").await.0, StatusCode::OK);

    assert_eq!(delete(&world, "w").await, StatusCode::OK);
    assert_eq!(revoked(&world), [""; 0]);
    let events = Bus::of(&world.tokenbus.nats).await.events("revoked").await;
    assert_eq!(events[0]["reason"], "shared");
    // Bob shares his grant with no connection.
    assert_eq!(delete(&world, "u").await, StatusCode::OK);
    assert_eq!(revoked(&world).len(), 2);
    person.is("ada");
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    assert_eq!(delete(&world, "w?revoke=true").await, StatusCode::OK);
    assert_eq!(revoked(&world).len(), 4, "asked for");
}

#[tokio::test]
async fn h13_the_same_id_in_another_realm_is_another_account() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    let realms = json!({
        "token_url": format!("{}/${{realm}}/token", world.provider.url),
        "variables": { "realm": { "values": ["a", "b"] } },
    });
    configure(&world, INTEGRATION, &realms).await;
    let connect = async |name: &str, realm: &str| {
        let url = world.tokenbus.login(INTEGRATION, &format!("{name}?var.realm={realm}")).await;
        let callback = world.callback(&[("code", "code"), ("state", &parameter(&url, "state"))]);
        world.tokenbus.arrive(&callback).await
    };
    assert_eq!(connect("w", "a").await.0, StatusCode::OK);
    assert_eq!(connect("v", "b").await.0, StatusCode::OK);
    // The connection of realm b does not share the grant.
    assert_eq!(delete(&world, "w").await, StatusCode::OK);
    assert_eq!(revoked(&world), ["at-ada-0", "rt-ada-0"]);
    // A login of realm a replaces a grant of another account.
    assert_eq!(connect("v", "a").await.0, StatusCode::OK);
    assert_eq!(revoked(&world).len(), 4);
    let mut strict = realms;
    strict["reconnect"] = "same_identity".into();
    configure(&world, INTEGRATION, &strict).await;
    let (status, body) = connect("v", "b").await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert_eq!(body["reason"], "identity_mismatch", "{body}");
    assert_eq!(connect("v", "a").await.0, StatusCode::OK);
}

#[tokio::test]
async fn h13_a_connection_of_a_deleted_config_keeps_a_shared_grant() {
    let person = Person::default();
    person.is("ada");
    let world = world(&person, &json!({})).await;
    configure(&world, "other", &json!({})).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    connect_at(&world, "other", "v").await;
    let request = world.tokenbus.request(Method::DELETE, "hub/integrations/other/oauth-config");
    let answer = request.header("x-api-key", &world.tokenbus.admin_key).send().await.expect("tokenbus answers");
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(delete(&world, "w").await, StatusCode::OK);
    assert_eq!(revoked(&world), [""; 0]);
}

#[tokio::test]
async fn h13_an_id_token_says_whose_account_it_is() {
    let nonce: Arc<Mutex<String>> = Arc::default();
    let sent = Arc::clone(&nonce);
    let provider = Provider::start(move |number, _| {
        let encode = |part: &Value| BASE64_URL_SAFE_NO_PAD.encode(part.to_string());
        let claims = json!({
            "iss": "https://id.example/t-1", "tid": "t-1", "aud": "client", "exp": 4_000_000_000_u64,
            "sub": "u-1", "email": "ada@x.example", "hd": "x.example", "nonce": *sent.lock().expect("no panic"),
        });
        let id_token = format!("{}.{}.x", encode(&json!({ "alg": "none" })), encode(&claims));
        Scripted::json(200, &json!({ "access_token": format!("at-{number}"), "id_token": id_token }))
    })
    .await;
    let world = World::with(provider).await;
    let mut config = world.config();
    config["variables"] = json!({ "host": { "values": ["id.example"], "default": "id.example", "metadata": true } });
    config["identity"] = json!({ "issuer": "https://${host}/{tid}", "id": "sub", "label": "email" });
    config["metadata_request"] = json!({ "paths": ["hd", "org"] });
    world.tokenbus.configure(&config).await;
    for (own_nonce, expected) in [(true, json!({ "id": "u-1", "label": "ada@x.example" })), (false, Value::Null)] {
        let login = world.login("w").await;
        let asked = parameter(&login.oauth_url, "nonce");
        assert_ne!(asked, login.state);
        *nonce.lock().expect("no panic with the lock") = if own_nonce { asked } else { "another".to_owned() };
        let (status, body) = world.tokenbus.arrive(&world.callback(&[("code", "c"), ("state", &login.state)])).await;
        let has_domain = body["metadata"]["hd"] == "x.example";
        assert_eq!((status, &body["identity"], has_domain), (StatusCode::OK, &expected, own_nonce), "{body}");
    }
}

#[tokio::test]
async fn h13_the_callback_page_says_as_whom() {
    let person = Person::default();
    person.is("<b>ada");
    let world = world(&person, &json!({})).await;
    let login = world.login("w").await;
    let url = world.callback(&[("code", "c"), ("state", &login.state)]);
    let browser = reqwest::Client::builder().no_proxy().build().expect("an HTTP client");
    let page = browser.get(url).header("accept", "text/html").send().await.expect("a page");
    let page = page.text().await.expect("a page is text");
    assert!(page.contains("is connected as &lt;b&gt;ada@x.example"), "{page}");
    assert!(!page.contains("at-"), "{page}");
}

#[tokio::test]
async fn an_upgrade_replaces_the_token_and_is_tried_again_if_it_fails() {
    let provider = Provider::start(|number, received| match received.path.as_str() {
        "/upgrade" if number == 1 => Scripted::json(500, &json!({})),
        "/upgrade" => Scripted::json(200, &json!({ "access_token": "long-lived", "expires_in": 5_000_000 })),
        _ => Scripted::json(200, &json!({ "access_token": format!("at-{number}"), "expires_in": 3600 })),
    })
    .await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let mut config = world.config();
    config["upgrade"] = json!({
        "url": format!("{}/upgrade", world.provider.url), "method": "POST",
        "params": { "grant_type": "exchange", "client_secret": "${client_secret}", "token": "${access_token}" },
    });
    world.tokenbus.configure(&config).await;
    let (status, body) = world.connect("w").await;
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("at-0")), "{body}");
    let failed = Bus::of(&world.tokenbus.nats).await.events("upgrade_failed").await;
    assert_eq!(failed[0]["reason"], "provider_error");
    let (status, body) = world.connect("v").await;
    assert_eq!((status, &body["access_token"]), (StatusCode::OK, &json!("long-lived")), "{body}");
    assert_eq!(body["expires_in"], 5_000_000);

    // The schedule, or a caller, tries it again as it would a refresh.
    let refresh = |name: &str| format!("{INTEGRATION}/oauth-refresh-token/{name}");
    let (_, body) = world.tokenbus.call(Method::GET, &refresh("w")).await;
    assert_eq!((&body["access_token"], &body["refresh_token"]), (&json!("long-lived"), &Value::Null), "{body}");
    let sent = world.provider.received().pop().expect("the upgrade").form();
    assert_eq!((sent["token"].as_str(), sent["client_secret"].as_str()), ("at-0", "canary-client-secret"));
    // Nothing renews a token that was upgraded.
    assert_ne!(world.tokenbus.call(Method::GET, &refresh("w")).await.0, StatusCode::OK);
}
