//! The callback: the requests a browser may send, and their effect on the login.

use reqwest::{Method, RequestBuilder};

use crate::ask::{Answer, ask, new_account, with_query};
use crate::bus::Bus;
use crate::provider::Provider;
use crate::support::wait::eventually;
use crate::world::World;

const PATH: &str = "hub/integrations/oauth-callback";

impl World {
    async fn generous() -> Self {
        Self::with(Provider::generous().await).await
    }

    fn callback_request(&self, method: Method, query: &[(&str, &str)]) -> RequestBuilder {
        self.tokenbus.request(method, &with_query(PATH, query))
    }

    /// The answer to a callback that asks for JSON.
    async fn callback_json(&self, query: &[(&str, &str)]) -> Answer {
        ask(self.callback_request(Method::GET, query)).await
    }

    /// Checks that a login was not consumed: it still works.
    async fn assert_usable(&self, state: &str) {
        let answer = self.callback_json(&[("code", "c"), ("state", state)]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn b7_malformed_callbacks_are_400_and_consume_no_login() {
    let world = World::generous().await;
    let state = world.login("one").await.state;
    let long = "c".repeat(16 * 1024 + 1);
    let long_state = "s".repeat(300);
    for (query, error) in [
        (vec![], "state is missing"),
        (vec![("code", "c")], "state is missing"),
        (vec![("code", "c"), ("state", "")], "state is missing"),
        (vec![("state", state.as_str())], "neither a code nor an error"),
        (vec![("state", &state), ("code", "")], "neither a code nor an error"),
        (vec![("state", &state), ("code", "c"), ("code", "d")], "twice"),
        (vec![("state", &state), ("state", &state), ("code", "c")], "twice"),
        (vec![("state", &state), ("code", &long)], "longer than 16384"),
        (vec![("state", &long_state), ("code", "c")], "state is longer"),
        (vec![("state", &state), ("code", "c"), ("error", "access_denied")], "both a code and an error"),
    ] {
        world.callback_json(&query).await.assert_error(400, error);
    }
    assert!(world.provider.received().is_empty());
    world.assert_usable(&state).await;
}

#[tokio::test]
async fn o13_a_long_code_arrives_whole_beside_long_parameters_and_cookies() {
    let world = World::generous().await;
    let state = world.login("one").await.state;
    let (code, long) = ("c".repeat(16 * 1024), "x".repeat(16 * 1024));
    let query = [("state", state.as_str()), ("code", &code), ("scope", &long), ("ignored", &long)];
    let request = world.callback_request(Method::GET, &query).header("cookie", "a=b; ".repeat(12 * 1024));
    let answer = ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(world.provider.received()[0].form()["code"], code);
}

#[tokio::test]
async fn b1_unknown_and_used_states_are_401_without_a_call_to_the_provider() {
    let world = World::generous().await;
    world.callback_json(&[("code", "c"), ("state", "an-unknown-one")]).await.assert_error(401, "unknown");
    assert!(world.provider.received().is_empty());

    let state = world.login("one").await.state;
    world.assert_usable(&state).await;
    for code in ["c", "another"] {
        world.callback_json(&[("code", code), ("state", &state)]).await.assert_error(401, "used already");
    }
    assert_eq!(world.provider.received().len(), 1);
}

#[tokio::test]
async fn b1_an_expired_state_is_401_without_a_call_to_the_provider() {
    let world = World::with_settings(Provider::generous().await, &[("OAUTH__LOGIN_TTL", "1s")]).await;
    let state = world.login("one").await.state;
    let bus = Bus::of(&world.tokenbus.nats).await;
    eventually("the login expires", async || bus.info("KV_oauth_states").await.state.messages == 0).await;
    world.callback_json(&[("code", "c"), ("state", &state)]).await.assert_error(401, "expired");
    assert!(world.provider.received().is_empty());
}

#[tokio::test]
async fn b6_error_callbacks_consume_the_login_and_repeat_no_text_of_the_provider() {
    let world = World::generous().await;
    for (error, told) in [
        ("access_denied", "access_denied"),
        ("user_cancelled_login", "access_denied"),
        ("canary<script>", "unknown_error"),
        ("canary_error", "unknown_error"),
    ] {
        for accept in ["application/json", "text/html"] {
            let state = world.login("one").await.state;
            let query = [("error", error), ("error_description", "canary<b>"), ("state", state.as_str())];
            let answer = ask(world.callback_request(Method::GET, &query).header("accept", accept)).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
            assert!(answer.text.contains(told), "{told}: {}", answer.text);
            assert!(!answer.text.contains("canary"), "{}", answer.text);
            world.callback_json(&[("code", "c"), ("state", &state)]).await.assert_error(401, "used already");
        }
    }
    assert!(world.provider.received().is_empty());
}

#[tokio::test]
async fn b7_other_methods_and_prefetches_do_not_consume_the_login() {
    let world = World::generous().await;
    let state = world.login("one").await.state;
    let query = [("code", "c"), ("state", state.as_str())];
    for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
        let answer = ask(world.callback_request(method.clone(), &query)).await;
        assert_eq!((answer.status, answer.header("allow")), (405, "GET, POST"), "{method}");
    }
    for (name, value) in [("sec-purpose", "prefetch;prerender"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        let answer = ask(world.callback_request(Method::GET, &query).header(name, value)).await;
        assert_eq!(answer.status, 400, "{name}");
    }
    assert!(world.provider.received().is_empty());
    world.assert_usable(&state).await;
}

#[tokio::test]
async fn a_credential_beside_the_state_must_be_valid_and_of_the_same_account() {
    let world = World::generous().await;
    let foreign = world.tokenbus.api_key(&new_account(), "member").await;
    let state = world.login("one").await.state;
    let query = [("code", "c"), ("state", state.as_str())];
    for (name, value) in [
        ("x-api-key", foreign.clone()),
        ("x-api-key", "tb_nothing".to_owned()),
        ("authorization", "Bearer a.b.c".to_owned()),
    ] {
        let answer = ask(world.callback_request(Method::GET, &query).header(name, value)).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
    }
    assert!(world.provider.received().is_empty());
    let own = ask(world.callback_request(Method::GET, &query).header("x-api-key", &world.tokenbus.key)).await;
    assert_eq!(own.status, 200, "{}", own.text);
}

#[tokio::test]
async fn b9_browsers_get_a_page_without_a_token_or_a_foreign_origin() {
    let origin = "https://app.example";
    let world = World::with_settings(Provider::generous().await, &[("OAUTH__RETURN_TO", "[\"https://app.example\"]")]);
    let world = world.await;
    let page = async |query: &[(&str, &str)]| {
        let answer = ask(world.callback_request(Method::GET, query).header("accept", "text/html,*/*;q=0.8")).await;
        assert!(answer.header("content-type").starts_with("text/html"), "{}", answer.text);
        let policy = answer.header("content-security-policy");
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("http") && !policy.contains("unsafe"), "{policy}");
        for secret in ["at-0", "at-1", "rt-0", "rt-1", "canary"] {
            assert!(!answer.text.contains(secret), "{secret}: {}", answer.text);
        }
        answer
    };

    let plain = world.login("one").await.state;
    let answer = page(&[("code", "canary"), ("state", &plain)]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains("Odd is connected") && answer.text.contains("close this window"), "{}", answer.text);
    assert!(!answer.text.contains("<script") && !answer.text.contains("href"), "{}", answer.text);

    let again = page(&[("code", "canary"), ("state", &plain)]).await;
    assert!(again.status == 200 && again.text.contains("Odd is connected"), "{}", again.text);

    let login = world.tokenbus.call(Method::GET, "odd/oauth-login/two?return_to=https://app.example/done").await.1;
    let state = crate::world::state_of(&login["oauth_url"]);
    let answer = page(&[("code", "canary"), ("state", &state)]).await;
    assert_eq!(answer.status, 200);
    assert!(answer.text.contains(&format!("data-origin=\"{origin}\"")), "{}", answer.text);
    assert!(answer.text.contains("href=\"https://app.example/done\""), "{}", answer.text);
    assert!(answer.text.contains("&quot;connection_id&quot;:&quot;two&quot;"), "{}", answer.text);

    let login = world.tokenbus.call(Method::GET, "odd/oauth-login/two?return_to=https://app.example/done").await.1;
    let state = crate::world::state_of(&login["oauth_url"]);
    let answer = page(&[("error", "access_denied"), ("state", &state)]).await;
    assert_eq!(answer.status, 400);
    assert!(answer.text.contains(&format!("data-origin=\"{origin}\"")), "{}", answer.text);
    assert!(answer.text.contains("Odd was not connected"), "{}", answer.text);
}

#[tokio::test]
async fn b9_every_answer_forbids_caching_framing_and_referrers() {
    let world = World::generous().await;
    let state = world.login("one").await.state;
    let tokenbus = &world.tokenbus;
    for (status, request) in [
        (400, world.callback_request(Method::GET, &[])),
        (401, world.callback_request(Method::GET, &[("state", "x"), ("code", "c")])),
        (401, tokenbus.request(Method::GET, "hub/integrations/oauth-connections")),
        (404, tokenbus.request(Method::GET, "nowhere")),
        (405, tokenbus.request(Method::PUT, PATH)),
        (200, tokenbus.request(Method::GET, "healthz")),
        (200, world.callback_request(Method::GET, &[("state", &state), ("code", "c")])),
    ] {
        let answer = ask(request).await;
        assert_eq!(answer.status, status, "{}", answer.text);
        for (name, value) in [
            ("cache-control", "no-store"),
            ("referrer-policy", "no-referrer"),
            ("x-content-type-options", "nosniff"),
            ("x-frame-options", "DENY"),
        ] {
            assert_eq!(answer.header(name), value, "{name} of a {status}");
        }
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{status}");
    }
}

#[tokio::test]
async fn f2_the_log_names_routes_and_no_part_of_the_query() {
    let world = World::generous().await;
    let state = world.login("one").await.state;
    let query = [("code", "canary-code"), ("state", state.as_str())];
    let answer = ask(world.callback_request(Method::GET, &query).header("x-request-id", "request-of-mine")).await;
    assert_eq!((answer.status, answer.header("x-request-id")), (200, "request-of-mine"));
    let strange = ask(world.callback_request(Method::GET, &query).header("x-request-id", "two words")).await;
    assert!(!strange.header("x-request-id").is_empty() && strange.header("x-request-id") != "two words");

    let log = world.tokenbus.log();
    let line = log.lines().find(|line| line.contains("request-of-mine")).expect("the request is in the log");
    assert!(line.contains("/hub/integrations/oauth-callback"), "{line}");
    for secret in ["canary", state.as_str(), "?", "at-0", "rt-0"] {
        assert!(!log.contains(secret), "{secret} is in\n{log}");
    }
}
