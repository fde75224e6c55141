//! The authorization request and the parameters that bind its answer to it, from the login to the token request.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use reqwest::Method;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::ask::{Answer, ask, get, with_query};
use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::world::{World, parameter};

const CALLBACK: &str = "hub/integrations/oauth-callback";

async fn world() -> World {
    World::with(Provider::generous().await).await
}

impl World {
    /// Puts the config with these fields instead of its own.
    async fn configure_with(&self, more: &Value) {
        let mut config = self.config();
        for (field, value) in more.as_object().expect("fields") {
            config[field] = value.clone();
        }
        self.tokenbus.configure(&config).await;
    }

    /// A callback's answer in JSON, with a forged `Host`.
    async fn callback_at(&self, host: &str, query: &[(&str, &str)]) -> Answer {
        ask(self.tokenbus.request(Method::GET, &with_query(CALLBACK, query)).header("host", host)).await
    }

    async fn callback_answer(&self, query: &[(&str, &str)]) -> Answer {
        ask(self.tokenbus.request(Method::GET, &with_query(CALLBACK, query))).await
    }
}

fn has(url: &Url, name: &str) -> bool {
    url.query_pairs().any(|(found, _)| found == name)
}

#[tokio::test]
async fn a1_a_state_is_256_bits_and_reveals_nothing_about_its_login() {
    let world = world().await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    for connection in ["one", "one", "two"] {
        let state = world.login(connection).await.state;
        let bits = BASE64_URL_SAFE_NO_PAD.decode(&state).expect("a state is base64url");
        assert_eq!((bits.len(), state.len()), (32, 43));
        // The login is stored under the state's hash, so that the bus does not reveal the state.
        let hash = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&state));
        let kept = bus.messages("KV_oauth_states").await;
        assert!(kept.iter().any(|login| login.subject.as_str() == format!("$KV.oauth_states.{hash}.{ACCOUNT}")));
        assert!(kept.iter().all(|login| !format!("{:?}", login.payload).contains(&state)));
    }
}

#[tokio::test]
async fn a2_each_login_has_a_verifier_of_its_own_unless_pkce_is_off() {
    let world = world().await;
    let mut verifiers = Vec::new();
    for (number, connection) in ["one", "one", "two"].into_iter().enumerate() {
        let login = world.login(connection).await;
        assert_eq!(parameter(&login.oauth_url, "code_challenge_method"), "S256");
        assert!(!has(&login.oauth_url, "code_verifier"));
        assert_eq!(world.callback_answer(&[("code", "c"), ("state", &login.state)]).await.status, 200);
        let verifier = world.provider.received()[number].form()["code_verifier"].clone();
        let challenge = BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(&verifier));
        assert_eq!(parameter(&login.oauth_url, "code_challenge"), challenge);
        let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        assert!((43..=128).contains(&verifier.len()) && verifier.bytes().all(unreserved), "{verifier}");
        assert!(!verifiers.contains(&verifier), "a verifier came twice");
        verifiers.push(verifier);
    }

    world.configure_with(&json!({ "pkce": "off" })).await;
    let login = world.login("one").await;
    assert!(!has(&login.oauth_url, "code_challenge") && !has(&login.oauth_url, "code_challenge_method"));
    assert_eq!(world.callback_answer(&[("code", "c"), ("state", &login.state)]).await.status, 200);
    assert!(!world.provider.received()[3].form().contains_key("code_verifier"));
}

#[tokio::test]
async fn a3_the_redirect_uri_is_the_configured_one_for_any_host() {
    let world = world().await;
    for (number, redirect) in [
        "https://HUB.example:443/a/../hub/integrations/oauth-callback?x=%41&y=1+2",
        "https://hub.example/%7ehub/callback",
        "https://hub.example",
    ]
    .into_iter()
    .enumerate()
    {
        world.configure_with(&json!({ "redirect_url": redirect })).await;
        let path = "hub/integrations/odd/oauth-login/one";
        let login = world.tokenbus.request(Method::GET, path).header("x-api-key", &world.tokenbus.key);
        let login = login.header("host", "evil.test").header("x-forwarded-host", "evil.test");
        let login = ask(login.header("forwarded", "host=evil.test;proto=http")).await.json();
        let url: Url = login["oauth_url"].as_str().and_then(|url| url.parse().ok()).expect("a URL");
        assert_eq!(parameter(&url, "redirect_uri"), redirect);
        let state = parameter(&url, "state");
        let answer = world.callback_at("evil.test", &[("code", "c"), ("state", &state)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(world.provider.received()[number].form()["redirect_uri"], redirect);
    }
}

#[tokio::test]
async fn a4_no_caller_and_no_config_sets_a_reserved_parameter() {
    let world = world().await;
    let (tokenbus, key) = (&world.tokenbus, &world.tokenbus.key);
    for query in [
        "st%61te=mine",
        "var.state=mine",
        "var.client_id=mine",
        "var.redirect_uri=https%3A%2F%2Fevil.test",
        "response_type=token",
        "code_challenge_method=plain",
        "scope=admin",
        "scopes=read&scopes=admin",
        "scopes=read%26state%3Dmine",
        "auth_params=x",
    ] {
        let answer = get(tokenbus, key, &format!("odd/oauth-login/one?{query}")).await;
        assert_eq!(answer.status, 400, "{query}: {}", answer.text);
    }
    for field in ["auth_params", "token_params", "refresh_params"] {
        for name in ["client_id", "redirect_uri", "response_type", "state", "code_challenge", "code_challenge_method"] {
            let mut config = world.config();
            config[field] = json!({ name: "mine" });
            let request = tokenbus.request(Method::PUT, "hub/integrations/odd/oauth-config");
            ask(request.header("x-api-key", &tokenbus.admin_key).json(&config)).await.assert_error(400, field);
        }
    }
    let login = world.login("one").await;
    for name in ["client_id", "redirect_uri", "response_type", "state", "code_challenge", "code_challenge_method"] {
        assert_eq!(login.oauth_url.query_pairs().filter(|(found, _)| found == name).count(), 1, "{name}");
    }
}

#[tokio::test]
async fn b1_a_refused_state_leaves_one_line_in_the_log_without_it() {
    let world = world().await;
    let used = world.login("one").await.state;
    assert_eq!(world.callback_answer(&[("code", "c"), ("state", &used)]).await.status, 200);
    for (id, state) in [("request-unknown", "an-unknown-state"), ("request-used", used.as_str())] {
        let before = world.tokenbus.log().lines().count();
        let path = with_query(CALLBACK, &[("code", "code-to-be-seen-nowhere"), ("state", state)]);
        let answer = ask(world.tokenbus.request(Method::GET, &path).header("x-request-id", id)).await;
        answer.assert_error(401, "unknown");
        let log = world.tokenbus.log();
        let lines: Vec<&str> = log.lines().skip(before).filter(|line| line.contains(id)).collect();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("401") && lines[0].contains("/hub/integrations/oauth-callback"), "{}", lines[0]);
        assert!(!log.contains(state) && !log.contains("code-to-be-seen-nowhere"), "{log}");
    }
    assert_eq!(world.provider.received().len(), 1);
}

#[tokio::test]
async fn b5_the_issuer_is_demanded_of_codes_and_errors_before_any_token_request() {
    let world = world().await;
    let issuer = "https://issuer.example";
    world.configure_with(&json!({ "issuer": issuer })).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    for answer in [("code", "c"), ("error", "access_denied")] {
        for iss in
            [None, Some(""), Some("https://issuer.example/"), Some("https://ISSUER.example"), Some("https://x.test")]
        {
            let state = world.login("one").await.state;
            let mut query = vec![answer, ("state", state.as_str())];
            query.extend(iss.map(|iss| ("iss", iss)));
            world.callback_answer(&query).await.assert_error(400, "issuer");
            // A mix-up consumes the login: the attacker knows the state.
            world
                .callback_answer(&[("code", "c"), ("state", &state), ("iss", issuer)])
                .await
                .assert_error(401, "used already");
        }
    }
    assert!(world.provider.received().is_empty());
    let events = bus.events("exchange_failed").await;
    assert_eq!(events.len(), 10);
    assert!(events.iter().all(|event| event["reason"] == "issuer_mismatch"), "{events:?}");

    let state = world.login("one").await.state;
    let denied = [("error", "access_denied"), ("state", &state), ("iss", issuer)];
    world.callback_answer(&denied).await.assert_error(400, "access_denied");
    let state = world.login("one").await.state;
    assert_eq!(world.callback_answer(&[("code", "c"), ("state", &state), ("iss", issuer)]).await.status, 200);
    assert_eq!(world.provider.received().len(), 1);
}

#[tokio::test]
async fn b6_every_known_error_code_is_reported_and_no_other_part_of_it() {
    let world = world().await;
    for (error, told) in [
        ("invalid_request", "invalid_request"),
        ("unauthorized_client", "unauthorized_client"),
        ("unsupported_response_type", "unsupported_response_type"),
        ("invalid_scope", "invalid_scope"),
        ("server_error", "server_error"),
        ("temporarily_unavailable", "temporarily_unavailable"),
        ("login_required", "login_required"),
        ("Access_Denied", "unknown_error"),
        ("access_denied ", "unknown_error"),
        ("https://evil.test/canary", "unknown_error"),
    ] {
        for accept in ["application/json", "text/html"] {
            let state = world.login("one").await.state;
            let query = [
                ("error", error),
                ("error_description", "go to <a href=\"https://evil.test/canary\">canary</a>"),
                ("error_uri", "https://evil.test/canary"),
                ("state", state.as_str()),
            ];
            let request = world.tokenbus.request(Method::GET, &with_query(CALLBACK, &query));
            let answer = ask(request.header("accept", accept)).await;
            assert_eq!(answer.status, 400, "{error}: {}", answer.text);
            assert!(answer.text.contains(told), "{error}: {}", answer.text);
            for word in ["canary", "evil", "href"] {
                assert!(!answer.text.contains(word), "{error}: {}", answer.text);
            }
        }
    }
    assert!(world.provider.received().is_empty());
}

#[tokio::test]
async fn b9_every_route_and_status_has_its_security_headers() {
    let provider = Provider::start(|_, _| crate::provider::Scripted::json(500, &json!({}))).await;
    let mut world = World::with(provider).await;
    let tokenbus = &world.tokenbus;
    let document = ask(tokenbus.request(Method::GET, "openapi.json")).await.json();
    let paths = document["paths"].as_object().expect("paths");
    let mut statuses = std::collections::BTreeSet::new();
    let mut check = |answer: &Answer, what: &str| {
        statuses.insert(answer.status);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), value, "{name} of {what}: {}", answer.status);
        }
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{what}: {policy}");
        assert!(!policy.contains("http") && !policy.contains("unsafe") && !policy.contains('*'), "{what}: {policy}");
    };
    for path in paths.keys() {
        let path = path.replace("{integration_id}", "odd").replace(['{', '}'], "");
        for method in ["GET", "PUT", "DELETE", "POST", "HEAD", "OPTIONS", "PATCH", "MADEUP"] {
            for key in ["", "tb_nothing", &tokenbus.key] {
                let method = Method::from_bytes(method.as_bytes()).expect("a token");
                let mut request = tokenbus.request(method.clone(), path.trim_start_matches('/'));
                if !key.is_empty() {
                    request = request.header("x-api-key", key);
                }
                check(&ask(request.header("accept", "text/html")).await, &format!("{method} {path}"));
            }
        }
    }
    let failing = world.login("one").await.state;
    for request in [
        tokenbus.request(Method::GET, &with_query(CALLBACK, &[("code", "c"), ("state", &failing)])),
        tokenbus.request(Method::GET, "healthz").header("x-large", "x".repeat(65 * 1024)),
        tokenbus.request(Method::GET, "hub"),
    ] {
        check(&ask(request).await, "one that fails");
    }
    world.tokenbus.nats.kill().await;
    for accept in ["text/html", "application/json"] {
        let path = with_query(CALLBACK, &[("code", "c"), ("state", "s")]);
        let request = world.tokenbus.request(Method::GET, &path).header("accept", accept);
        check(&ask(request).await, "one without a bus");
    }
    for status in [200, 400, 401, 404, 405, 431, 502, 503] {
        assert!(statuses.contains(&status), "no {status} among {statuses:?}");
    }
}
