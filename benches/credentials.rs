//! Time to verify a credential, in one thread: new JWTs of each kind, a cached JWT, and a request's signature; and what
//! sealing adds to a call. `cargo bench --bench credentials`.

#![expect(dead_code, reason = "the bench uses only a part of the tests' modules")]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that cannot continue panics with the reason"
)]

#[path = "../tests/support/issuer.rs"]
mod issuer;
#[path = "../tests/support/mint.rs"]
mod mint;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use nkeys::KeyPair;
use serde_json::json;
use tokenbus::Secret;
use tokenbus::internals::auth::Rules;
use tokenbus::internals::auth::VerificationKeys;
use tokenbus::internals::auth::{AccountJwt, SelfConsistent};
use tokenbus::internals::auth::{Jwt, MAX_JWT_BYTES};
use tokenbus::internals::auth::{VerifiedJwt, VerifiedJwts};
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
/// CPU time of a token read in gateway, server and worker together, before calls were sealed.
const READ_CPU: Duration = Duration::from_micros(250);
/// Largest share of that time that sealing may take.
const MOST_SHARE: f64 = 0.15;
const ISSUER: &str = "https://sso.example";

fn main() {
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
    let cost = show("sealing of a token read", &|| (once(&question), once(&answer)));
    let share = cost.as_secs_f64() / READ_CPU.as_secs_f64();
    println!("sealing of a token read: {:.1} % of a read's CPU time", share * 100.0);
    assert!(share < MOST_SHARE, "a token read loses less than {MOST_SHARE} of its speed");
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
