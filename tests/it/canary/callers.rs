//! Every kind of credential, permitted and refused: API keys made over HTTP, JWTs of NATS users as bearers and in
//! signed requests, ordinary JWTs, and nodes on the bus.

use async_nats::Client;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nkeys::KeyPair;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::flows::{CODE, Flows, ISSUER, JWT_SECRET};
use super::secret_of;
use crate::jwt_nats::{bearer, request, sign};
use crate::mint;
use crate::support::tokenbus::ACCOUNT;
use crate::world::state_of;

/// Names and values of a request's headers.
type Headers = Vec<(&'static str, String)>;

/// Each caller's requests, in this order: method, path below `/hub/`, status.
const REQUESTS: [(&str, &str, u16); 7] = [
    ("GET", "integrations/odd/oauth-token/called", 200),
    ("GET", "integrations/odd/oauth-refresh-token/called", 200),
    ("GET", "integrations/oauth-connections", 200),
    ("GET", "integrations/odd/oauth-token/called?min_valid=86400", 200),
    ("PUT", "integrations/odd/oauth-config", 401),
    ("DELETE", "integrations/odd/oauth-connections/called", 200),
    ("GET", "integrations/odd/oauth-token/called", 404),
];

fn with(request: RequestBuilder, headers: &Headers) -> RequestBuilder {
    headers.iter().fold(request, |request, (name, value)| request.header(*name, value))
}

/// The signature of a JWT, which only its issuer can make.
fn mark_jwt(flows: &mut Flows, jwt: &str) {
    mark_signature(flows, "signature of a JWT", jwt.rsplit('.').next().expect("a JWT has parts"));
}

/// A signature in its header form, and its bytes.
fn mark_signature(flows: &mut Flows, name: &str, signature: &str) {
    flows.marks.add(name, signature);
    flows.marks.add(name, BASE64_URL_SAFE_NO_PAD.decode(signature).expect("a signature in base64"));
}

/// A login and all that [`REQUESTS`] lists; each request has headers of its own.
async fn send_all(flows: &mut Flows, name: &str, headers: impl Fn(&mut Flows, &str, &str) -> Headers) {
    let target = "/hub/integrations/odd/oauth-login/called";
    let sent = headers(flows, "GET", target);
    let login = flows.ask(with(flows.world.tokenbus.request(Method::GET, target), &sent)).await;
    assert_eq!(login.status, 200, "{name}: {}", login.text);
    let state = state_of(&login.json()["oauth_url"]);
    flows.marks.add("state", &state);
    let arrived = flows.ask(flows.callback(&[("code", CODE), ("state", &state)], true)).await;
    assert_eq!(arrived.status, 200, "{name}: {}", arrived.text);
    for (method, path, status) in REQUESTS {
        let target = format!("/hub/{path}");
        let sent = headers(flows, method, &target);
        let method = Method::from_bytes(method.as_bytes()).expect("a method");
        let answer = flows.ask(with(flows.world.tokenbus.request(method, &target), &sent)).await;
        assert_eq!(answer.status, status, "{name} {path}: {}", answer.text);
    }
    // Same signature and nonce, another path: refused if the request is signed, useless if it is not.
    let foreign = flows.ask(with(flows.world.tokenbus.request(Method::GET, "hub/api-keys"), &sent)).await;
    assert_eq!(foreign.status, 401, "{name}: {}", foreign.text);
}

/// JWTs of NATS users: a bearer's, and one that signs its requests.
async fn nats_users(flows: &mut Flows) {
    let account = flows.tenants.account(&json!({}));
    let jwt = bearer(&account);
    mark_jwt(flows, &jwt);
    send_all(flows, "bearer", |_, _, _| vec![("authorization", format!("Bearer {jwt}"))]).await;
    let user = KeyPair::new_user();
    let jwt = mint::user(&account, &user, &json!({}));
    mark_jwt(flows, &jwt);
    let signed = |flows: &mut Flows, method: &str, target: &str| {
        let headers = sign(&user, &request(&jwt, method, target));
        mark_signature(flows, "signature of a request", &headers[3].1);
        headers
    };
    send_all(flows, "signed", signed).await;
    // Without `bearer_token` the JWT alone is no credential.
    let alone = vec![("authorization", format!("Bearer {jwt}"))];
    let path = "hub/integrations/oauth-connections";
    let answer = flows.ask(with(flows.world.tokenbus.request(Method::GET, path), &alone)).await;
    assert_eq!(answer.status, 401, "{}", answer.text);
}

/// An ordinary JWT by shared secret, and one that another secret signed.
async fn ordinary_jwts(flows: &mut Flows) {
    let account = KeyPair::new_account().public_key();
    let now = tokenbus::internals::system::now().as_second();
    let claims = json!({ "iss": ISSUER, "aud": "tokenbus", "sub": "ada", "exp": now + 300, "account": account });
    let of = |secret: &str| {
        let (header, key) =
            (jsonwebtoken::Header::default(), jsonwebtoken::EncodingKey::from_secret(secret.as_bytes()));
        jsonwebtoken::encode(&header, &claims, &key).expect("a secret signs")
    };
    let (good, bad) = (of(JWT_SECRET), of("canary-another-secret-of-32-bytes"));
    for jwt in [&good, &bad] {
        mark_jwt(flows, jwt);
    }
    send_all(flows, "ordinary", |_, _, _| vec![("authorization", format!("Bearer {good}"))]).await;
    let path = "hub/integrations/oauth-connections";
    let request = flows.world.tokenbus.request(Method::GET, path).header("authorization", format!("Bearer {bad}"));
    assert_eq!(flows.ask(request).await.status, 401);
}

/// A key created over HTTP: only that one answer contains it.
async fn api_keys(flows: &mut Flows) {
    let as_admin = |flows: &Flows, method: Method, path: &str| {
        let tokenbus = &flows.world.tokenbus;
        tokenbus.request(method, &format!("hub/{path}")).header("x-api-key", &tokenbus.admin_key)
    };
    let body = json!({ "name": "called", "expires_days": 1 });
    let made = flows.ask(as_admin(flows, Method::POST, "api-keys").json(&body)).await;
    assert_eq!(made.status, 200, "{}", made.text);
    let made = made.json();
    let text = |field: &str| made[field].as_str().expect("a text").to_owned();
    let (id, key) = (text("id"), text("key"));
    flows.marks.add("key made over HTTP", secret_of(&key));
    send_all(flows, "key", |_, _, _| vec![("x-api-key", key.clone())]).await;
    let listed = flows.ask(as_admin(flows, Method::GET, "api-keys?limit=1000")).await;
    assert_eq!(listed.status, 200);
    flows.show("keys as listed", &listed.text);
    for path in [format!("api-keys/{key}"), format!("api-keys/{id}"), format!("api-keys/{id}")] {
        let answer = flows.ask(as_admin(flows, Method::DELETE, &path)).await;
        flows.show("keys as revoked", &answer.text);
    }
    let printed = flows.world.tokenbus.tool(&["api-keys", "list", "--json"]).await;
    flows.show("keys as printed", &printed);
}

/// A node's calls on the bus. The answers contain access tokens and no other secret.
async fn nodes(flows: &mut Flows) {
    let node = flows.world.tokenbus.nats.connect("demo").await;
    let about = json!({ "integration_id": "odd", "connection_id": "called" });
    let login = call(&node, "login", &about).await;
    let state = state_of(&serde_json::from_str::<Value>(&login).expect("a login is JSON")["oauth_url"]);
    flows.marks.add("state", &state);
    assert_eq!(flows.ask(flows.callback(&[("code", CODE), ("state", &state)], false)).await.status, 200);
    let soon = json!({ "integration_id": "odd", "connection_id": "called", "min_valid": 86400 });
    for (name, question) in [
        ("token", &about),
        ("refresh", &about),
        ("token", &soon),
        ("list", &json!({})),
        ("delete", &about),
        ("token", &about),
    ] {
        let answer = call(&node, name, question).await;
        flows.nodes.extend(answer.into_bytes());
    }
    let wrong = json!({ "integration_id": "odd", "connection_id": CODE });
    flows.nodes.extend(call(&node, "token", &wrong).await.into_bytes());
}

/// The answer to a call: body, or headers and body of an error.
async fn call(node: &Client, name: &str, question: &Value) -> String {
    let subject = format!("ms.oauth.{ACCOUNT}.{name}");
    let answer = node.request(subject, question.to_string().into()).await.expect("a worker answers");
    let body = String::from_utf8_lossy(&answer.payload).into_owned();
    answer.headers.map_or(body.clone(), |headers| format!("{headers:?} {body}\n"))
}

/// All of them.
pub(crate) async fn all(flows: &mut Flows) {
    flows.set_mode("tokens");
    api_keys(flows).await;
    nats_users(flows).await;
    ordinary_jwts(flows).await;
    nodes(flows).await;
}
