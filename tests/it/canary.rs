//! Runs every flow with marked secrets, then searches every place that must not contain them.

mod callers;
mod flows;

use std::path::PathBuf;

use async_nats::Subscriber;
use futures_util::StreamExt as _;
use reqwest::Method;
use serde_json::json;

use self::flows::{
    ACCESS, BASIC, CODE, Flows, HOOK, HOOK_SECRET, JWT_SECRET, MODES, NEXT, REFRESH, SECRET, STRANGE, is_hook,
};
use crate::ask::{ask, new_account};
use crate::bus::{BUCKETS, Bus};
use crate::http_bound::{click, next_page};
use crate::marks::{Marks, Search};
use crate::provider::Received;
use crate::support::tokenbus::ACCOUNT;

/// Puts configs with a secret of each kind. Returns the private key in PEM and in bytes.
async fn configs(flows: &mut Flows) -> (String, Vec<u8>) {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).expect("a key");
    let revocation_url = format!("{}/revoke", flows.world.provider.url);
    let mut plain = flows.world.config();
    (plain["client_secret"], plain["client_secrets"]) = (json!(SECRET), json!([NEXT]));
    plain["revocation_url"] = json!(revocation_url);
    let (mut basic, mut signed) = (plain.clone(), plain.clone());
    (basic["integration_id"], basic["client_secret"]) = (json!("basic"), json!(BASIC));
    basic["token_auth_method"] = json!("client_secret_basic");
    (signed["integration_id"], signed["client_key"]) = (json!("signed"), json!(key.serialize_pem()));
    (signed["token_auth_method"], signed["client_key_alg"]) = (json!("private_key_jwt"), json!("ES256"));
    signed.as_object_mut().expect("an object").remove("client_secrets");
    for (integration, config) in [("odd", &plain), ("basic", &basic), ("signed", &signed)] {
        assert_eq!(flows.put(integration, config).await, 200, "{integration}");
        for (field, value) in [
            ("token_url", json!(format!("http://{SECRET}"))),
            ("pkce", json!(SECRET)),
            ("client_key", json!(key.serialize_pem().replace("END", "EN"))),
            ("variables", json!({ "v": { "pattern": SECRET } })),
        ] {
            let mut wrong = config.clone();
            wrong[field] = value;
            assert_eq!(flows.put(integration, &wrong).await, 400, "{integration} {field}");
        }
    }
    let der = key.serialize_der();
    // PKCS #8 of P-256: the private value itself.
    (key.serialize_pem(), der[36..68].to_vec())
}

/// Logins with every kind of answer from the provider, in JSON and as a page; then refreshes and deletions.
async fn logins_and_refreshes(flows: &mut Flows) {
    for integration in ["odd", "basic", "signed"] {
        for (number, (mode, status)) in MODES.into_iter().enumerate() {
            flows.set_mode(mode);
            let html = number % 2 == 1;
            assert_eq!(flows.connect(integration, "login", html).await, status, "{integration} {mode}");
            flows.set_mode("tokens");
            assert_eq!(flows.connect(integration, mode, !html).await, 200, "{integration} {mode}");
            flows.get(&format!("{integration}/oauth-token/{mode}"), 200).await;
            flows.set_mode(mode);
            let request = flows.with_key(Method::GET, &format!("{integration}/oauth-refresh-token/{mode}"));
            flows.ask(request).await;
            let request = flows.with_key(Method::GET, &format!("{integration}/oauth-token/{mode}?min_valid=86400"));
            flows.ask(request).await;
            let path = format!("{integration}/oauth-connections/{mode}");
            let request = flows.with_key(Method::DELETE, &path);
            assert_eq!(flows.ask(request).await.status, 200, "{path}");
        }
        flows.set_mode("tokens");
        assert_eq!(flows.connect(integration, "kept", false).await, 200, "{integration}");
        let path = format!("{integration}/oauth-refresh-token/kept?refresh_token={}", STRANGE[3].1);
        flows.get(&path, 400).await;
    }
    flows.get("oauth-connections", 200).await;
    flows.get("basic/oauth-connections?limit=1", 200).await;
    flows.get("oauth-config", 200).await;
    flows.get("odd/oauth-config", 200).await;
}

/// Invalid requests that a browser, a caller or a thief might send.
async fn refusals(flows: &mut Flows) {
    for (name, error) in [("access_denied", 400), (CODE, 400)] {
        let state = flows.login("odd/oauth-login/refused").await;
        let query = [("error", name), ("error_description", CODE), ("error_uri", CODE), ("state", &state)];
        let request = flows.callback(&query, true);
        assert_eq!(flows.ask(request).await.status, error);
        for (html, status) in [(true, 400), (false, 401)] {
            let request = flows.callback(&[("code", CODE), ("state", &state)], html);
            assert_eq!(flows.ask(request).await.status, status);
        }
    }
    let [key, malformed, token, state, cookie, ticket] = STRANGE.map(|(_, value)| value);
    let pending = flows.login("odd/oauth-login/pending").await;
    let foreign = flows.world.tokenbus.api_key(&new_account(), "member").await;
    flows.marks.add("foreign key", secret_of(&foreign));
    let (bearer, nats, basic) = (format!("Bearer {token}"), format!("NATS {token}"), format!("Basic {token}"));
    let credentials = [
        ("x-api-key", key),
        ("x-api-key", malformed),
        ("x-api-key", &foreign),
        ("authorization", &bearer),
        ("authorization", &nats),
        ("authorization", &basic),
    ];
    for (name, value) in credentials {
        for html in [false, true] {
            let doubled = [("code", CODE), ("state", &pending), ("code", CODE)];
            let requests = [
                flows.callback(&[("code", CODE), ("state", state)], html),
                flows.callback(&[("code", CODE), ("state", &pending), ("state", state)], html),
                flows.callback(&doubled, html),
                flows.world.tokenbus.request(Method::GET, "hub/integrations/odd/oauth-token/kept"),
                flows.world.tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config").body(SECRET),
                flows.world.tokenbus.request(Method::DELETE, "hub/integrations/odd/oauth-config"),
                flows.world.tokenbus.request(Method::GET, &format!("hub/integrations/oauth-start?ticket={ticket}")),
            ];
            for request in requests {
                let cookies = format!("__Host-tokenbus-x={cookie}; session={cookie}");
                flows.ask(request.header(name, value).header("cookie", cookies)).await;
            }
        }
    }
    bound_login(flows).await;
    let request = flows.with_key(Method::DELETE, "odd/oauth-config");
    flows.ask(request).await;
}

/// The secret part of an API key, after the public id. It may itself contain the separator.
fn secret_of(key: &str) -> &str {
    key.splitn(3, '_').nth(2).expect("a key has three parts")
}

/// A login bound to its browser: ticket and cookie are secrets, too.
async fn bound_login(flows: &mut Flows) {
    let request = flows.with_key(Method::GET, "odd/oauth-login/bound?bind=browser");
    let answer = flows.ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    let link = url::Url::parse(body["oauth_url"].as_str().expect("a link")).expect("a URL");
    let ticket = crate::world::parameter(&link, "ticket");
    flows.marks.add("ticket", &ticket);
    let page = flows.world.tokenbus.request(Method::GET, &format!("hub/integrations/oauth-start?ticket={ticket}"));
    // The page carries the ticket, so it is not among the answers that hold no secret.
    assert_eq!(ask(page).await.status, 200);
    let start = ask(click(&link)).await;
    assert_eq!(start.status, 200, "{}", start.text);
    let cookie = start.header("set-cookie").split(';').next().unwrap_or_default().to_owned();
    flows.marks.add("cookie", cookie.split_once('=').expect("a cookie has a value").1);
    let state = crate::world::parameter(&next_page(&start.text), "state");
    flows.marks.add("state", &state);
    for (cookie, status) in [("", 401), (cookie.as_str(), 200)] {
        let request = flows.callback(&[("code", CODE), ("state", &state)], true).header("cookie", cookie);
        assert_eq!(flows.ask(request).await.status, status);
    }
}

/// Commands that cannot be read become dead letters.
async fn dead_letters(flows: &Flows, bus: &Bus) {
    let subject = format!("ms.integration.oauth.{ACCOUNT}.odd.dead.exchange");
    let body = format!("{{ \"code\": \"{CODE}\", {SECRET}");
    bus.client.request(subject, body.into()).await.expect("JetStream takes it");
    while bus.messages("OAUTH_DEAD").await.is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(flows.world.tokenbus.tool(&["dead", "list"]).await.contains(".odd.dead."));
}

/// A place to search: its name, its content, and true if access tokens belong there.
type Place = (&'static str, Vec<u8>, bool);

async fn places(flows: &Flows, bus: &Bus, pushes: &mut Subscriber) -> Vec<Place> {
    let tokenbus = &flows.world.tokenbus;
    let metrics = ask(tokenbus.request(Method::GET, "metrics")).await;
    assert!(metrics.text.contains("tokenbus_"), "{}", metrics.text);
    let mut places = vec![
        ("log", tokenbus.log().into_bytes(), false),
        ("metrics", metrics.text.into_bytes(), false),
        ("answers", flows.shown.clone(), false),
        ("dead letters as printed", tokenbus.tool(&["dead", "list", "--json"]).await.into_bytes(), false),
        ("pushes", Vec::new(), true),
        ("events as pushed", Vec::new(), false),
        ("webhooks", webhooks(flows), false),
        ("answers to nodes", flows.nodes.clone(), true),
    ];
    let end = "canary.end";
    bus.client.publish(format!("ms.oauth.{ACCOUNT}.event._._.end"), end.into()).await.expect("the bus is there");
    loop {
        let message = pushes.next().await.expect("the bus is there");
        // The calls of nodes and their answers are checked separately.
        let is_call = message.subject.starts_with("ms.oauth.") && message.subject.split('.').count() == 4;
        if is_call || message.subject.starts_with("_INBOX") {
            continue;
        }
        let text = format!("{} {:?} {:?}\n", message.subject, message.headers, message.payload);
        let is_record = message.subject.starts_with("ms.integration.oauth.");
        places[if is_record { 4 } else { 5 }].1.extend(text.into_bytes());
        if message.payload == end.as_bytes() {
            break;
        }
    }
    for stream in BUCKETS.into_iter().chain(["OAUTH", "OAUTH_COMMANDS", "OAUTH_SCHEDULE", "OAUTH_EVENTS", "OAUTH_DEAD"])
    {
        let mut all = Vec::new();
        for message in bus.messages(stream).await {
            all.extend(format!("{} {:?} {:?}\n", message.subject, message.headers, message.payload).into_bytes());
        }
        places.push((stream, all, stream == "OAUTH"));
    }
    places
}

fn found(places: &[Place], all: &Search, without_access: &Search) -> Vec<String> {
    let found = places.iter().filter_map(|(name, text, has_tokens)| {
        let search = if *has_tokens { without_access } else { all };
        search.find(text).map(|mark| format!("{name}: {mark}"))
    });
    found.collect()
}

/// The requests of the webhook receiver.
fn webhooks(flows: &Flows) -> Vec<u8> {
    let received = flows.world.provider.received().into_iter().filter(is_hook);
    received.flat_map(|received| format!("{:?} {}\n", received.headers, received.body).into_bytes()).collect()
}

/// Everything in the server's files.
fn files(store: PathBuf) -> Vec<(PathBuf, Vec<u8>)> {
    let (mut folders, mut files) = (vec![store], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the store is there").flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                files.push((entry.path(), std::fs::read(entry.path()).expect("a file can be read")));
            }
        }
    }
    files
}

fn marks(flows: &Flows, key: &(String, Vec<u8>)) -> Marks {
    let mut marks = flows.marks.clone();
    for (name, value) in [("code", CODE), ("refresh token", REFRESH), ("client secret", SECRET), ("basic", BASIC)] {
        marks.add(name, value);
        // Every encoding leaves the beginning unchanged.
        marks.add(name, value.split_once('/').expect("a mark has parts").0);
    }
    for (name, value) in
        [("next secret", NEXT), ("JWT secret", JWT_SECRET), ("webhook secret", HOOK_SECRET), ("webhook's URL", HOOK)]
    {
        marks.add(name, value);
    }
    for (name, value) in STRANGE {
        marks.add(name, value);
    }
    marks.add("strange claims", "canary-strange-claims");
    let (pem, bytes) = key;
    marks.add("private key", bytes);
    marks.add("private key in PEM", pem.lines().nth(1).expect("a PEM has lines"));
    for key in [&flows.world.tokenbus.key, &flows.world.tokenbus.admin_key] {
        marks.add("key", secret_of(key));
    }
    let received = flows.world.provider.received();
    for Received { method: _, path: _, query: _, authorization, headers: _, content_type: _, body: _ } in &received {
        if let Some(header) = authorization {
            marks.add("authorization", header.trim_start_matches("Basic "));
        }
    }
    for form in received.iter().map(Received::form) {
        for name in ["code_verifier", "client_assertion"] {
            form.get(name).into_iter().for_each(|value| marks.add(name, value));
        }
    }
    marks
}

#[tokio::test]
async fn e3_e5_f1_no_secret_is_found_where_it_does_not_belong() {
    let mut flows = Flows::start().await;
    let tenant = flows.world.tokenbus.nats.connect("demo").await;
    let mut pushes = tenant.subscribe(">").await.expect("the bus is there");
    tenant.flush().await.expect("the bus is there");
    let bus = Bus::of(&flows.world.tokenbus.nats).await;
    let key = configs(&mut flows).await;
    logins_and_refreshes(&mut flows).await;
    callers::all(&mut flows).await;
    refusals(&mut flows).await;
    dead_letters(&flows, &bus).await;

    let mut without_access = marks(&flows, &key);
    let planted = "canary-planted-to-be-found";
    let mut all = without_access.clone();
    all.add("access token", ACCESS);
    all.add("access token", "canary-access-token");
    let before = places(&flows, &bus, &mut pushes).await;
    let empty: Vec<_> = before.iter().filter(|(_, text, _)| text.is_empty()).map(|(name, ..)| *name).collect();
    assert!(empty.iter().all(|name| *name == "OAUTH_COMMANDS"), "{empty:?}");
    assert!(String::from_utf8_lossy(&before[0].1).contains("DEBUG"), "the log's filter is in force");
    assert_eq!(found(&before, &all.search(), &without_access.search()), [""; 0]);

    // Checks that a secret on the bus would be found.
    all.add("planted", planted);
    without_access.add("planted", planted);
    let request = flows.with_key(Method::GET, &format!("oauth-connections?{planted}=1"));
    flows.ask(request.header("x-request-id", planted)).await;
    for subject in [format!("ms.oauth.{ACCOUNT}.event._._.{planted}"), format!("oauth.dead.{planted}._._._")] {
        bus.client.request(subject, "{}".into()).await.expect("JetStream takes it");
    }
    bus.record(&format!("oauth.record.{ACCOUNT}.odd.planted"), "planted", 0, planted).await;
    let (all, without_access) = (all.search(), without_access.search());
    let finds = found(&places(&flows, &bus, &mut pushes).await, &all, &without_access);
    for place in ["log", "answers", "pushes", "events as pushed", "OAUTH", "OAUTH_EVENTS", "OAUTH_DEAD"] {
        let expected = format!("{place}: planted, as it is");
        assert!(finds.contains(&expected), "{expected}: {finds:?}");
    }

    flows.world.tokenbus.nats.kill().await;
    let store = flows.world.tokenbus.nats.store();
    std::fs::write(store.join("planted"), format!("x{planted}x")).expect("the store can be written");
    let files = files(store);
    assert!(files.iter().map(|(_, text)| text.len()).sum::<usize>() > 4096, "the store is empty");
    let finds = files.iter().filter_map(|(path, text)| Some((path.file_name()?, all.find(text)?)));
    assert_eq!(finds.collect::<Vec<_>>(), [("planted".as_ref(), "planted, as it is")]);
}
