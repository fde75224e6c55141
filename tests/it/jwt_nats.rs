//! JWTs of NATS users over HTTP: as bearers, and in requests that the user signs.

use nkeys::KeyPair;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokenbus::Secret;
use tokenbus::internals::signed::{self, SignedRequest};

use crate::ask::{Answer, ask};
use crate::mint;
use crate::provider::Provider;
use crate::world::World;

const REFUSED: &str = "the credential is not valid or has expired";

/// An operator's tenants, with their JWTs in a folder.
pub(crate) struct Tenants {
    pub(crate) operator: KeyPair,
    folder: TempDir,
}

impl Tenants {
    pub(crate) fn new() -> Self {
        Self { operator: KeyPair::new_operator(), folder: tempfile::tempdir().unwrap() }
    }

    /// A new account, known to the operator.
    pub(crate) fn account(&self, more: &Value) -> KeyPair {
        let account = KeyPair::new_account();
        self.publish(&account, &mint::account(&self.operator, &account, more));
        account
    }

    pub(crate) fn publish(&self, account: &KeyPair, jwt: &str) {
        std::fs::write(self.folder.path().join(format!("{}.jwt", account.public_key())), jwt).unwrap();
    }

    /// The settings of a worker that trusts the operator.
    pub(crate) fn settings(&self) -> [(&'static str, String); 2] {
        let operators = format!("[\"{}\"]", self.operator.public_key());
        let folder = self.folder.path().to_str().unwrap().to_owned();
        [("AUTH__NATS__OPERATORS", operators), ("AUTH__NATS__ACCOUNTS_DIR", folder)]
    }

    async fn world(&self, more: &[(&str, &str)]) -> World {
        let settings = self.settings();
        let mut all: Vec<(&str, &str)> = settings.iter().map(|(name, value)| (*name, value.as_str())).collect();
        all.extend(more);
        World::with_settings(Provider::generous().await, &all).await
    }
}

/// A bearer's JWT of that account.
pub(crate) fn bearer(account: &KeyPair) -> String {
    mint::user(account, &KeyPair::new_user(), &json!({ "nats": { "bearer_token": true } }))
}

/// A request that the user has signed, for tests to modify.
pub(crate) fn request(jwt: &str, method: &str, target: &str) -> SignedRequest {
    SignedRequest {
        jwt: Secret::new(jwt),
        timestamp: tokenbus::internals::system::now().as_second(),
        nonce: tokenbus::internals::system::random_id(),
        method: method.to_owned(),
        target: Secret::new(target),
        body_hash: signed::hash(b""),
    }
}

/// The headers of a signed request.
pub(crate) fn sign(user: &KeyPair, request: &SignedRequest) -> Vec<(&'static str, String)> {
    use base64::Engine as _;
    let signature = user.sign(request.text().expose().as_bytes()).unwrap();
    vec![
        ("authorization", format!("NATS {}", request.jwt.expose())),
        (signed::HEADER_TIMESTAMP, request.timestamp.to_string()),
        (signed::HEADER_NONCE, request.nonce.clone()),
        (signed::HEADER_SIGNATURE, base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(signature)),
    ]
}

fn with(request: RequestBuilder, headers: &[(&'static str, String)]) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

async fn send(world: &World, path: &str, headers: &[(&'static str, String)]) -> Answer {
    ask(with(world.tokenbus.request(Method::GET, path), headers)).await
}

async fn as_bearer(world: &World, path: &str, jwt: &str) -> Answer {
    send(world, &format!("hub/integrations/{path}"), &[("authorization", format!("Bearer {jwt}"))]).await
}

#[tokio::test]
async fn a_bearer_acts_for_its_own_account_and_is_not_an_admin() {
    let tenants = Tenants::new();
    let [one, two] = [tenants.account(&json!({})), tenants.account(&json!({}))];
    let admins = format!("[\"{}\", \"{}\"]", one.public_key(), crate::support::tokenbus::ACCOUNT);
    let world = tenants.world(&[("AUTH__ADMIN_ACCOUNTS", &admins)]).await;
    let login = as_bearer(&world, "odd/oauth-login/mine", &bearer(&one)).await;
    assert_eq!(login.status, 200, "{}", login.text);
    let state = crate::world::state_of(&login.json()["oauth_url"]);
    let callback = format!("oauth-callback?code=canary-code&state={state}");
    let arrived = as_bearer(&world, &callback, &bearer(&one)).await;
    assert_eq!((arrived.status, &arrived.json()["access_token"]), (200, &json!("at-0")));
    let token = as_bearer(&world, "odd/oauth-token/mine", &bearer(&one)).await;
    assert_eq!((token.status, &token.json()["access_token"]), (200, &json!("at-0")));
    as_bearer(&world, "odd/oauth-token/mine", &bearer(&two)).await.assert_error(404, "no connection");
    let list = as_bearer(&world, "oauth-connections", &bearer(&two)).await;
    assert_eq!(list.json()["results_total"], 0);

    let put = world.tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config").json(&world.config());
    let put = put.header("authorization", format!("Bearer {}", bearer(&one)));
    ask(put).await.assert_error(401, "only admins");
}

#[tokio::test]
async fn an_invalid_user_jwt_is_401() {
    let tenants = Tenants::new();
    let account = tenants.account(&json!({}));
    let closed = tenants.account(&json!({ "limits": { "disallow_bearer": true } }));
    let foreign = KeyPair::new_account();
    tenants.publish(&foreign, &mint::account(&KeyPair::new_operator(), &foreign, &json!({})));
    let world = tenants.world(&[]).await;
    let user = KeyPair::new_user();
    let of = |more: Value| mint::user(&account, &user, &more);
    let good = of(json!({ "nats": { "bearer_token": true } }));
    assert_eq!(as_bearer(&world, "oauth-connections", &good).await.status, 200);
    let now = tokenbus::internals::system::now().as_second();
    for (case, jwt) in [
        ("no bearer", of(json!({}))),
        ("expired", of(json!({ "exp": now - 1, "nats": { "bearer_token": true } }))),
        ("not yet valid", of(json!({ "nbf": now + 300, "nats": { "bearer_token": true } }))),
        ("the account allows no bearers", bearer(&closed)),
        ("another operator's account", bearer(&foreign)),
        ("an unknown account", bearer(&KeyPair::new_account())),
        ("limited to other calls", of(json!({ "nats": { "bearer_token": true, "pub": { "allow": ["x"] } } }))),
        ("cut", good[..good.len() - 2].to_owned()),
        ("an ordinary one, without that being configured", "eyJhbGciOiJFUzI1NiJ9.e30.AAAA".to_owned()),
    ] {
        let answer = as_bearer(&world, "oauth-connections", &jwt).await;
        assert_eq!((answer.status, answer.error().as_str()), (401, REFUSED), "{case}");
    }
    let log = world.tokenbus.log();
    assert!(log.contains("must sign its requests") && !log.contains(&good), "{log}");
}

#[tokio::test]
async fn a_revoked_user_is_refused_once_the_account_jwt_is_reloaded() {
    let tenants = Tenants::new();
    let account = tenants.account(&json!({}));
    let world = tenants.world(&[("AUTH__CACHE_TTL", "1s")]).await;
    let jwt = bearer(&account);
    assert_eq!(as_bearer(&world, "oauth-connections", &jwt).await.status, 200);
    let revoked = json!({ "revocations": { "*": tokenbus::internals::system::now().as_second() } });
    tenants.publish(&account, &mint::account(&tenants.operator, &account, &revoked));
    let began = std::time::Instant::now();
    while as_bearer(&world, "oauth-connections", &jwt).await.status != 401 {
        assert!(began.elapsed().as_secs() < 60, "the revocation is never heard of");
    }
}

#[tokio::test]
async fn a_signed_request_works_once_and_only_as_signed() {
    let tenants = Tenants::new();
    let account = tenants.account(&json!({}));
    let world = tenants.world(&[]).await;
    let user = KeyPair::new_user();
    let jwt = mint::user(&account, &user, &json!({}));
    let target = "/hub/integrations/oauth-connections?limit=5";
    let headers = sign(&user, &request(&jwt, "GET", target));
    let first = send(&world, target, &headers).await;
    assert_eq!((first.status, &first.json()["results_total"]), (200, &json!(0)), "{}", first.text);

    let now = tokenbus::internals::system::now().as_second();
    let fresh = || request(&jwt, "GET", target);
    let without = |name: &str| sign(&user, &fresh()).into_iter().filter(|(it, _)| *it != name).collect::<Vec<_>>();
    let bearers = mint::user(&account, &user, &json!({ "nats": { "bearer_token": true } }));
    let mut swapped = sign(&user, &fresh());
    swapped[0].1 = format!("NATS {bearers}");
    for (case, target, headers) in [
        ("again", target, headers),
        ("too old", target, sign(&user, &SignedRequest { timestamp: now - 90, ..fresh() })),
        ("too early", target, sign(&user, &SignedRequest { timestamp: now + 90, ..fresh() })),
        ("another method", target, sign(&user, &request(&jwt, "DELETE", target))),
        ("another query", "/hub/integrations/oauth-connections?limit=6", sign(&user, &fresh())),
        ("another path", "/hub/integrations/oauth-config?limit=5", sign(&user, &fresh())),
        ("another body", target, sign(&user, &SignedRequest { body_hash: signed::hash(b"x"), ..fresh() })),
        ("another key", target, sign(&KeyPair::new_user(), &fresh())),
        ("another JWT of the same user", target, swapped),
        ("no nonce", target, without(signed::HEADER_NONCE)),
        ("no signature", target, without(signed::HEADER_SIGNATURE)),
        ("a short nonce", target, sign(&user, &SignedRequest { nonce: "n".repeat(15), ..fresh() })),
    ] {
        let answer = send(&world, target, &headers).await;
        assert_eq!(answer.status, 401, "{case}: {}", answer.text);
    }
    let again = send(&world, target, &sign(&user, &fresh())).await;
    assert_eq!(again.status, 200, "{}", again.text);
}

#[tokio::test]
async fn the_cli_signs_for_curl() {
    let tenants = Tenants::new();
    let account = tenants.account(&json!({}));
    let world = tenants.world(&[]).await;
    let user = KeyPair::new_user();
    let jwt = mint::user(&account, &user, &json!({}));
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let creds = file("creds", &mint::creds(&jwt, &user));
    let (nkey, jwt_file) = (file("nkey", &format!("{}\n", user.seed().unwrap())), file("jwt", &jwt));
    let url = world.tokenbus.endpoint("hub/integrations/odd/oauth-login/one?scopes=read");
    for (arguments, json) in
        [(vec!["--creds", creds.as_str()], false), (vec!["--nkey", nkey.as_str(), "--jwt", jwt_file.as_str()], true)]
    {
        let mut all = vec!["sign"];
        all.extend(arguments);
        all.extend(["get", url.as_str()]);
        if json {
            all.push("--json");
        }
        let printed = world.tokenbus.tool(&all).await;
        let headers: Vec<(String, String)> = if json {
            let headers: serde_json::Map<String, Value> = serde_json::from_str(&printed).unwrap();
            headers.into_iter().map(|(name, value)| (name, value.as_str().unwrap().to_owned())).collect()
        } else {
            let lines = printed.lines().map(|line| line.split_once(": ").unwrap());
            lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
        };
        let request = world.tokenbus.request(Method::GET, "hub/integrations/odd/oauth-login/one?scopes=read");
        let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
        let answer = ask(request).await;
        assert!(answer.status == 200 && answer.json()["oauth_url"].is_string(), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_signed_callback_must_belong_to_the_logins_account() {
    let tenants = Tenants::new();
    let [one, two] = [tenants.account(&json!({})), tenants.account(&json!({}))];
    let world = tenants.world(&[]).await;
    let user = KeyPair::new_user();
    let jwts = [&one, &two].map(|account| mint::user(account, &user, &json!({})));
    let login = "/hub/integrations/odd/oauth-login/mine";
    let answer = send(&world, login, &sign(&user, &request(&jwts[0], "GET", login))).await;
    let state = crate::world::state_of(&answer.json()["oauth_url"]);
    let target = format!("/hub/integrations/oauth-callback?code=canary-code&state={state}");
    let foreign = sign(&user, &request(&jwts[1], "GET", &target));
    send(&world, &target, &foreign).await.assert_error(401, "another account");
    let elsewhere = sign(&user, &request(&jwts[0], "GET", login));
    send(&world, &target, &elsewhere).await.assert_error(401, REFUSED);
    let own = send(&world, &target, &sign(&user, &request(&jwts[0], "GET", &target))).await;
    assert_eq!((own.status, &own.json()["access_token"]), (200, &json!("at-0")), "{}", own.text);
}
