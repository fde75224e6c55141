//! Time to verify a credential, in one thread: new JWTs of each kind, a cached JWT, and a request's signature; and the speed
//! that token reads lose to sealing. `cargo bench --bench credentials`.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench that cannot continue panics with the reason"
)]

#[path = "../tests/support/fleet.rs"]
mod fleet;
#[path = "../tests/support/issuer.rs"]
mod issuer;
#[path = "../tests/support/mint.rs"]
mod mint;
#[path = "../tests/it/provider.rs"]
mod provider;
#[path = "../tests/support/support.rs"]
mod support;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fleet::{Fleet, INTEGRATION};
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nkeys::KeyPair;
use serde_json::json;
use support::tokenbus::ACCOUNT;
use tokenbus::Secret;
use tokenbus::internals::auth::Rules;
use tokenbus::internals::auth::VerificationKeys;
use tokenbus::internals::auth::{AccountJwt, SelfConsistent};
use tokenbus::internals::auth::{Jwt, MAX_JWT_BYTES};
use tokenbus::internals::auth::{VerifiedJwt, VerifiedJwts};
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{Call, RequestContext};
use tokenbus::internals::seal::SharedKey;
use tokenbus::internals::signed::{self, SignedRequest};
use tokenbus::internals::system;
use tokenbus::subject::Account;

const ROUNDS: usize = 2_000;
/// Upper limit for a verification, even of a JWT not seen before.
const LIMIT: Duration = Duration::from_micros(150);
/// Size of a question with a JWT as credential.
const QUESTION_BYTES: usize = 1_500;
/// Size of an answer with a JWT as access token.
const ANSWER_BYTES: usize = 1_500;
/// Clients that read tokens, one call at a time each.
const READERS: usize = 16;
/// Windows of sealed reads, and as many of clear ones.
const WINDOWS: usize = 15;
/// Long enough for thousands of reads.
const WINDOW: Duration = Duration::from_secs(1);
/// Largest share of the reads a second that sealing may cost.
const MOST_LOST: f64 = 0.15;
const ISSUER: &str = "https://sso.example";

#[tokio::main]
async fn main() {
    let now = system::now();
    let account = KeyPair::new_account();
    nats(&account, now);
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA] {
        let signer = issuer::signer("k", algorithm);
        let set = json!({ "keys": [signer.public] }).to_string();
        let keys = VerificationKeys::parse(set.as_bytes()).expect("a set of keys");
        ordinary(&format!("{algorithm:?}"), &signer.sign(&claims(&account, now)), &keys, now);
    }
    sealing();
    reads().await;
    let secret = "a-secret-of-thirty-two-bytes-or-more";
    let key = EncodingKey::from_secret(secret.as_bytes());
    let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims(&account, now), &key).expect("a JWT");
    ordinary("HS256", &jwt, &VerificationKeys::secret(&Secret::new(secret)), now);
}

/// Measures a NATS user's JWT, new and cached, and a request's signature.
fn nats(key: &KeyPair, now: Timestamp) {
    let (operator, user) = (KeyPair::new_operator(), KeyPair::new_user());
    let id = Account::parse(&key.public_key()).expect("an account");
    let jwt = mint::account(&operator, key, &json!({}));
    let account = AccountJwt::verify(&jwt, &id, &[operator.public_key()], now).expect("an account's JWT");
    let jwt = mint::user(key, &user, &json!({ "nats": { "bearer_token": true } }));
    let verify = || {
        let jwt = Jwt::parse(&jwt, MAX_JWT_BYTES).expect("a JWT");
        account.own_user(SelfConsistent::verify(&jwt, now).expect("a signed JWT"), now).expect("a user")
    };
    show("NATS user JWT", &verify);

    let verified = VerifiedJwts::new(Duration::from_mins(1));
    let proven = verify();
    verified.put(&jwt, VerifiedJwt::NatsUser(Arc::new(proven.clone())), Timestamp::MAX, now);
    show("any JWT, cached", &|| verified.get(&jwt, now).expect("it is cached"));

    let request = SignedRequest {
        jwt: Secret::new(jwt.as_str()),
        timestamp: now.as_second(),
        nonce: system::random_id(),
        method: "GET".to_owned(),
        target: Secret::new("/hub/integrations/slack/oauth-token/workspace1"),
        body_hash: signed::hash(b""),
    };
    let signature = user.sign(request.text().expose().as_bytes()).expect("a signature");
    show("a request's signature", &|| {
        proven.verify_signature(request.text().expose().as_bytes(), &signature).expect("it fits");
    });
}

/// Measures what a sealed call costs both sides together: the question and the answer, each sealed and opened once.
fn sealing() {
    let (key, question, answer) = (SharedKey::random(), [b'q'; QUESTION_BYTES], [b'a'; ANSWER_BYTES]);
    let once = |message: &[u8]| {
        let sealed = key.seal(b"call", message).expect("it seals");
        key.open(b"call", &sealed).expect("it opens")
    };
    show("sealing of a call and its answer", &|| (once(&question), once(&answer)));
}

/// Compares token reads by a gateway's sealed calls with the same reads by a node's clear calls. One worker answers both with
/// the same code, and windows of both alternate. Sealed calls also carry a credential, so their loss is an upper bound.
async fn reads() {
    let provider = provider::Provider::generous().await;
    let (fleet, _worker) = Fleet::configured(&provider.url).await;
    let state = fleet.login("one").await;
    assert_eq!(fleet.arrive(&state, "code").await.0, 200, "a connection");
    let edge = fleet.own_edge().await;
    let node = fleet.nats.connect("demo").await;
    let body = json!({ "integration_id": INTEGRATION, "connection_id": "one" });
    let credential = Some(Credential::new(Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0]))));
    let context = RequestContext { credential, ..RequestContext::default() };
    let (call, subject) = (Call::parse("token").expect("a call"), format!("ms.oauth.{ACCOUNT}.token"));
    let sealed = || async {
        edge.bus.call(call, &context, &body).await.expect("an answer to a sealed call");
    };
    let clear = || async {
        let answer = node.request(subject.clone(), body.to_string().into()).await.expect("an answer to a clear call");
        assert!(answer.headers.is_none_or(|headers| headers.get("Nats-Service-Error").is_none()), "a token");
    };
    let (mut rates, mut ratios) = ((Vec::new(), Vec::new()), Vec::new());
    for _ in 0..WINDOWS {
        let (sealed, clear) = (window(&sealed).await, window(&clear).await);
        rates.0.push(sealed);
        rates.1.push(clear);
        ratios.push(sealed / clear);
    }
    let lost = 1.0 - middle(ratios);
    println!("token reads, {READERS} clients: {:.0} sealed, {:.0} clear a second", middle(rates.0), middle(rates.1));
    println!("sealing costs {:.1} % of them, median of {WINDOWS} pairs of windows", lost * 100.0);
    assert!(lost < MOST_LOST, "sealing costs less than {:.0} % of token reads", MOST_LOST * 100.0);
}

/// Calls a second in one window.
async fn window(call: &impl AsyncFn()) -> f64 {
    let began = Instant::now();
    let readers = (0..READERS).map(|_| async {
        let mut calls = 0_u32;
        while began.elapsed() < WINDOW {
            call().await;
            calls += 1;
        }
        f64::from(calls)
    });
    let calls: f64 = futures_util::future::join_all(readers).await.into_iter().sum();
    calls / began.elapsed().as_secs_f64()
}

fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

fn ordinary(name: &str, jwt: &str, keys: &VerificationKeys, now: Timestamp) {
    let rules = Rules {
        issuer: ISSUER.to_owned(),
        audience: "tokenbus".to_owned(),
        account_claim: "account".to_owned(),
        role_claim: "role".to_owned(),
        leeway: Duration::from_secs(30),
    };
    let verify = || rules.verify(&Jwt::parse(jwt, MAX_JWT_BYTES).expect("a JWT"), keys, now).expect("it is valid");
    show(name, &verify);
}

fn claims(account: &KeyPair, now: Timestamp) -> serde_json::Value {
    let (account, end) = (account.public_key(), now.as_second() + 3600);
    json!({ "iss": ISSUER, "aud": "tokenbus", "sub": "ada", "exp": end, "account": account, "role": "admin" })
}

/// Prints and returns the median of many rounds, which must be below the limit.
fn show<T>(name: &str, verify: &dyn Fn() -> T) -> Duration {
    let mut times: Vec<Duration> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            black_box(verify());
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    let median = times.get(ROUNDS / 2).copied().unwrap_or_default();
    println!("{name}: {:.1} µs", median.as_secs_f64() * 1e6);
    assert!(median < LIMIT, "{name} takes less than {LIMIT:?}");
    median
}
