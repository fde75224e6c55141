//! Ordinary JWTs as bearers: their account, which of them are refused, and how the issuer's keys are fetched.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reqwest::Method;
use serde_json::{Value, json};

use crate::ask::{Answer, ask, new_account};
use crate::issuer::{Signer, signer};
use crate::provider::{Provider, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::support::wait::eventually;
use crate::world::World;

const ISSUER: &str = "https://sso.example";
const SECRET: &str = "a-secret-of-thirty-two-bytes-or-more";
const REFUSED: &str = "the credential is not valid or has expired";

/// The issuer's published keys; `None` answers with an error.
type Published = Arc<Mutex<Option<Vec<Value>>>>;

/// A world that knows an issuer.
async fn world(published: &Published) -> World {
    slow_world(published, Duration::ZERO).await
}

/// The same with an issuer that answers after a delay.
async fn slow_world(published: &Published, takes: Duration) -> World {
    let published = Arc::clone(published);
    let provider = Provider::start(move |number, received| match received.path.as_str() {
        "/jwks" => match published.lock().unwrap().as_ref() {
            Some(keys) => Scripted::json(200, &json!({ "keys": keys })).after(takes),
            None => Scripted::json(500, &json!({})),
        },
        _ => Scripted::tokens(number),
    })
    .await;
    let url = format!("{}/jwks", provider.url);
    let settings = [
        ("AUTH__JWT__ISSUER", ISSUER),
        ("AUTH__JWT__AUDIENCE", "tokenbus"),
        ("AUTH__JWT__JWKS_URL", &url),
        ("AUTH__JWT__SECRET", SECRET),
        // Some tests ask until something happens.
        ("HTTP__ADDRESS_RATE", "0"),
        ("HTTP__CREDENTIAL_RATE", "0"),
    ];
    World::with_settings(provider, &settings).await
}

fn published(signers: &[&Signer]) -> Published {
    Arc::new(Mutex::new(Some(signers.iter().map(|signer| signer.public.clone()).collect())))
}

fn claims(account: &str) -> Value {
    let now = tokenbus::internals::system::now().as_second();
    json!({ "iss": ISSUER, "aud": ["tokenbus"], "sub": "ada", "exp": now + 300, "account": account })
}

async fn list(world: &World, jwt: &str) -> Answer {
    let request = world.tokenbus.request(Method::GET, "hub/integrations/oauth-connections");
    ask(request.header("authorization", format!("Bearer {jwt}"))).await
}

#[tokio::test]
async fn a_jwt_signed_by_any_supported_kind_of_key_acts_for_its_own_account() {
    let signers = [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA].map(|it| signer("k", it));
    let signers: Vec<Signer> =
        signers.into_iter().zip(["r", "e", "d"]).map(|(signer, id)| renamed(signer, id)).collect();
    let world = world(&published(&signers.iter().collect::<Vec<_>>())).await;
    assert_eq!(world.connect("one").await.0, 200);
    let hmac = EncodingKey::from_secret(SECRET.as_bytes());
    let of = |account: &str| {
        let claims = claims(account);
        let mut jwts: Vec<String> = signers.iter().map(|signer| signer.sign(&claims)).collect();
        jwts.push(jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &hmac).unwrap());
        jwts
    };
    for (account, connections) in [(ACCOUNT, 1), (&new_account(), 0)] {
        for jwt in of(account) {
            let answer = list(&world, &jwt).await;
            assert_eq!((answer.status, &answer.json()["results_total"]), (200, &json!(connections)), "{jwt}");
        }
    }
}

fn renamed(signer: Signer, id: &'static str) -> Signer {
    let mut public = signer.public.clone();
    public["kid"] = json!(id);
    Signer { id, public, ..signer }
}

#[tokio::test]
async fn every_invalid_jwt_is_401() {
    let (rsa, stranger) = (signer("k", Algorithm::RS256), signer("k", Algorithm::RS256));
    let world = world(&published(&[&rsa])).await;
    assert_eq!(list(&world, &rsa.sign(&claims(ACCOUNT))).await.status, 200);
    let now = tokenbus::internals::system::now().as_second();
    let with = |field: &str, value: Value| {
        let mut claims = claims(ACCOUNT);
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(field)
        } else {
            claims.as_object_mut().unwrap().insert(field.to_owned(), value)
        };
        rsa.sign(&claims)
    };
    // The public key as a shared secret, and no signature at all.
    let confused = EncodingKey::from_secret(rsa.public["n"].as_str().unwrap().as_bytes());
    let header = Header { kid: Some("k".to_owned()), ..Header::new(Algorithm::HS256) };
    let good = rsa.sign(&claims(ACCOUNT));
    let (_, rest) = good.split_once('.').unwrap();
    for (case, jwt) in [
        ("confusion", jsonwebtoken::encode(&header, &claims(ACCOUNT), &confused).unwrap()),
        ("none", format!("eyJhbGciOiJub25lIn0.{}.", rest.split_once('.').unwrap().0)),
        ("none, signed", format!("eyJhbGciOiJub25lIiwia2lkIjoiayJ9.{rest}")),
        ("another key of that id", stranger.sign(&claims(ACCOUNT))),
        ("unknown key id", rsa.sign_as(Some("other"), &claims(ACCOUNT))),
        ("expired", with("exp", json!(now - 31))),
        ("no expiry", with("exp", Value::Null)),
        ("not yet valid", with("nbf", json!(now + 300))),
        ("another issuer", with("iss", json!("https://sso.example.org"))),
        ("another audience", with("aud", json!("other"))),
        ("no account", with("account", Value::Null)),
        ("no account's key", with("account", json!("*"))),
        ("cut", good[..good.len() - 4].to_owned()),
        ("a NATS user's, without that being configured", "eyJhbGciOiJlZDI1NTE5LW5rZXkifQ.e30.AAAA".to_owned()),
    ] {
        let answer = list(&world, &jwt).await;
        assert_eq!((answer.status, answer.error().as_str()), (401, REFUSED), "{case}");
    }
    let log = world.tokenbus.log();
    assert!(log.contains("the signature is wrong") && !log.contains(rest), "{log}");
}

#[tokio::test]
async fn a_role_only_counts_for_listed_accounts() {
    let signer = signer("k", Algorithm::ES256);
    let world = world(&published(&[&signer])).await;
    let put = async |account: &str, role: &str, name: &str| {
        let mut claims = claims(account);
        claims["role"] = json!([role]);
        let mut config = world.config();
        config["name"] = json!(name);
        let request = world.tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config").json(&config);
        ask(request.header("authorization", format!("Bearer {}", signer.sign(&claims)))).await
    };
    put(&new_account(), "admin", "Theirs").await.assert_error(401, "only admins");
    put(ACCOUNT, "member", "Theirs").await.assert_error(401, "only admins");
    let done = put(ACCOUNT, "admin", "Ours").await;
    assert_eq!(done.status, 200, "{}", done.text);
    let config = crate::ask::get(&world.tokenbus, &world.tokenbus.key, "odd/oauth-config").await;
    assert_eq!(config.json()["name"], "Ours");
    let events = crate::bus::Bus::of(&world.tokenbus.nats).await.events("config_put").await;
    assert_eq!(events.last().unwrap()["actor"], "jwt:ada", "{events:?}");
}

#[tokio::test]
async fn a_new_key_is_fetched_and_unknown_key_ids_do_not_cause_repeated_fetches() {
    let (old, new) = (signer("old", Algorithm::ES256), signer("new", Algorithm::ES256));
    let published = published(&[&old]);
    let world = world(&published).await;
    assert_eq!(list(&world, &old.sign(&claims(ACCOUNT))).await.status, 200);
    *published.lock().unwrap() = Some(vec![new.public.clone()]);
    let began = std::time::Instant::now();
    let jwt = new.sign(&claims(ACCOUNT));
    while list(&world, &jwt).await.status != 200 {
        assert!(began.elapsed() < Duration::from_mins(1), "the new key is never found");
        for made_up in 0..20 {
            let jwt = new.sign_as(Some(&format!("made-up-{made_up}")), &claims(ACCOUNT));
            assert_eq!(list(&world, &jwt).await.status, 401);
        }
    }
    let fetched = world.provider.received().iter().filter(|received| received.path == "/jwks").count();
    let most = 2 + began.elapsed().as_secs() / 10;
    assert!(fetched as u64 <= most, "{fetched} fetches, {most} would do");
}

#[tokio::test]
async fn without_the_issuers_keys_its_jwts_are_503_and_shared_secret_jwts_work() {
    let signer = signer("k", Algorithm::ES256);
    let world = world(&Arc::new(Mutex::new(None))).await;
    list(&world, &signer.sign(&claims(ACCOUNT))).await.assert_error(503, "cannot be checked now");
    let hmac = EncodingKey::from_secret(SECRET.as_bytes());
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(ACCOUNT), &hmac).unwrap();
    assert_eq!(list(&world, &jwt).await.status, 200);
}

/// An unauthenticated caller that waits for keys holds a permit for calls.
#[tokio::test]
async fn g3_an_issuer_that_hangs_delays_one_caller_and_the_others_are_refused() {
    let rsa = signer("k", Algorithm::RS256);
    let world = slow_world(&published(&[&rsa]), Duration::from_secs(4)).await;
    let jwt = rsa.sign(&claims(ACCOUNT));
    let first = list(&world, &jwt);
    let others = async {
        let received = async || world.provider.received().iter().any(|received| received.path == "/jwks");
        eventually("the issuer receives a request", received).await;
        join_all((0..20).map(|_| list(&world, &jwt))).await
    };
    tokio::pin!(first);
    let others = tokio::select! {
        answer = &mut first => panic!("{} before those who only wait are answered", answer.status),
        others = others => others,
    };
    for answer in others {
        assert_eq!(answer.status, 503, "{}", answer.text);
    }
}

#[tokio::test]
async fn h18_a_jwt_of_another_type_is_401() {
    let signer = signer("k", Algorithm::ES256);
    let world = world(&published(&[&signer])).await;
    let answer = async |typ: Option<&str>| {
        let kid = Some("k".to_owned());
        let header = Header { kid, typ: typ.map(str::to_owned), ..Header::new(Algorithm::ES256) };
        list(&world, &jsonwebtoken::encode(&header, &claims(ACCOUNT), &signer.key).unwrap()).await
    };
    for typ in [None, Some("JWT"), Some("jwt"), Some("at+jwt"), Some("AT+JWT"), Some("application/at+jwt")] {
        assert_eq!(answer(typ).await.status, 200, "{typ:?}");
    }
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "application/logout+jwt", "JOSE", "", "at+jwt "] {
        let answer = answer(Some(typ)).await;
        assert_eq!((answer.status, answer.error().as_str()), (401, REFUSED), "{typ}");
    }
}

#[tokio::test]
async fn h18_a_key_set_without_usable_keys_replaces_nothing() {
    let signer = signer("k", Algorithm::ES256);
    let published = published(&[&signer]);
    let world = world(&published).await;
    let jwt = |sub: &str| {
        let mut claims = claims(ACCOUNT);
        claims["sub"] = json!(sub);
        signer.sign(&claims)
    };
    assert_eq!(list(&world, &jwt("first")).await.status, 200);
    let mut for_encryption = signer.public.clone();
    for_encryption["use"] = json!("enc");
    for useless in [vec![], vec![for_encryption, json!({ "kty": "unknown" })]] {
        *published.lock().unwrap() = Some(useless);
        let fetches = || world.provider.received().iter().filter(|received| received.path == "/jwks").count();
        let before = fetches();
        eventually("the useless set is fetched", async || {
            let unknown = signer.sign_as(Some("unknown"), &claims(ACCOUNT));
            assert_eq!(list(&world, &unknown).await.status, 401);
            fetches() > before
        })
        .await;
        // Not a JWT that is remembered.
        let answer = list(&world, &jwt(&before.to_string())).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert!(world.tokenbus.log().contains("without a usable key"), "{}", world.tokenbus.log());
}
