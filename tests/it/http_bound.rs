//! Logins that are bound to the browser they are started in.

use futures_util::future::join_all;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use url::Url;

use crate::ask::{Answer, ask, get, with_query};
use crate::bus::Bus;
use crate::provider::Provider;
use crate::world::{World, parameter};

/// The result of opening a start link: the redirect's target, and the cookie as a browser returns it.
struct Started {
    state: String,
    cookie: String,
}

impl World {
    async fn of_browsers() -> Self {
        Self::with(Provider::generous().await).await
    }

    /// The start link of a bound login.
    async fn bound(&self, connection: &str) -> Url {
        let path = format!("odd/oauth-login/{connection}?bind=browser");
        let body = get(&self.tokenbus, &self.tokenbus.key, &path).await.json();
        body["oauth_url"].as_str().and_then(|url| url.parse().ok()).unwrap_or_else(|| panic!("no link: {body}"))
    }

    /// The answer to a callback with that `Cookie` header.
    async fn callback_with_cookie(&self, state: &str, cookie: &str) -> Answer {
        let path = with_query("hub/integrations/oauth-callback", &[("code", "c"), ("state", state)]);
        let request = self.tokenbus.request(Method::GET, &path);
        ask(if cookie.is_empty() { request } else { request.header("cookie", cookie) }).await
    }
}

/// Requests a start link without following its redirect.
fn open(method: Method, link: &Url) -> RequestBuilder {
    let browser = Client::builder().no_proxy().redirect(Policy::none()).build().expect("an HTTP client");
    browser.request(method, link.clone())
}

async fn start(link: &Url) -> Started {
    let answer = ask(open(Method::GET, link)).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let provider: Url = answer.header("location").parse().expect("a location is a URL");
    let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    Started { state: parameter(&provider, "state"), cookie }
}

#[tokio::test]
async fn b4_a_bound_login_needs_the_cookie_of_the_browser_that_started_it() {
    let world = World::of_browsers().await;
    let started = start(&world.bound("one").await).await;
    let other = start(&world.bound("two").await).await;
    let (name, value) = started.cookie.split_once('=').expect("a name and a value");
    let (_, others_value) = other.cookie.split_once('=').expect("a name and a value");
    for cookie in [
        String::new(),
        format!("{name}="),
        format!("{name}={}", value.to_lowercase()),
        format!("{name}={others_value}"),
        format!("__Host-tokenbus-other={value}"),
        other.cookie.clone(),
    ] {
        world.callback_with_cookie(&started.state, &cookie).await.assert_error(401, "another browser");
    }
    assert!(world.provider.received().is_empty());
    // None of them consumed the login.
    let answer = world.callback_with_cookie(&started.state, &started.cookie).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    world.callback_with_cookie(&started.state, &started.cookie).await.assert_error(401, "used already");
    assert_eq!(world.provider.received().len(), 1);
}

#[tokio::test]
async fn b4_the_start_ticket_works_once() {
    let world = World::of_browsers().await;
    let link = world.bound("one").await;
    let answers = join_all((0..8).map(|_| ask(open(Method::GET, &link)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 303).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 303) {
        answer.assert_error(401, "used already");
        assert_eq!(answer.header("set-cookie"), "");
    }
    let unknown = world.tokenbus.endpoint("hub/integrations/oauth-start?ticket=canary");
    ask(open(Method::GET, &unknown)).await.assert_error(401, "unknown");
}

#[tokio::test]
async fn b4_b7_head_and_prefetch_do_not_consume_the_ticket() {
    let world = World::of_browsers().await;
    let link = world.bound("one").await;
    for method in [Method::HEAD, Method::POST] {
        assert_eq!(ask(open(method.clone(), &link)).await.status, 405, "{method}");
    }
    for (name, value) in [("sec-purpose", "prefetch"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        assert_eq!(ask(open(Method::GET, &link).header(name, value)).await.status, 400, "{name}");
    }
    start(&link).await;
}

#[tokio::test]
async fn b4_a_ticket_is_not_accepted_as_a_state_nor_a_state_as_a_ticket() {
    let world = World::of_browsers().await;
    let (link, plain) = (world.bound("one").await, world.login("two").await.state);
    world.callback_with_cookie(&parameter(&link, "ticket"), "").await.assert_error(401, "unknown");
    let mut with_state = link.clone();
    with_state.set_query(Some(&format!("ticket={plain}")));
    ask(open(Method::GET, &with_state)).await.assert_error(401, "unknown");
    start(&link).await;
    assert_eq!(world.callback_with_cookie(&plain, "").await.status, 200);
}

#[tokio::test]
async fn b4_two_logins_in_one_browser_do_not_disturb_each_other() {
    let world = World::of_browsers().await;
    let first = start(&world.bound("one").await).await;
    let second = start(&world.bound("two").await).await;
    let jar = format!("session=x; {}; {}", first.cookie, second.cookie);
    for started in [&second, &first] {
        let answer = world.callback_with_cookie(&started.state, &jar).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
}

#[tokio::test]
async fn b4_the_start_link_uses_the_configured_url_and_never_the_host_header() {
    let login = "hub/integrations/odd/oauth-login/one?bind=browser";
    let at_home = World::of_browsers().await;
    let public = [("HTTP__PUBLIC_URL", "https://hub.example/bus/")];
    let proxied = World::with_settings(Provider::generous().await, &public).await;
    for (world, expected) in [(&at_home, at_home.tokenbus.url.as_str()), (&proxied, "https://hub.example/bus/")] {
        let request = world.tokenbus.request(Method::GET, login).header("x-api-key", &world.tokenbus.key);
        let body = ask(request.header("host", "evil.test").header("x-forwarded-host", "evil.test")).await.json();
        let link = body["oauth_url"].as_str().expect("a link");
        assert!(link.starts_with(&format!("{expected}hub/integrations/oauth-start?ticket=")), "{link}");
        assert_eq!(body.as_object().map(serde_json::Map::len), Some(1), "{body}");
    }
}

#[tokio::test]
async fn b4_f1_neither_url_nor_ticket_nor_cookie_is_in_the_bucket_or_the_log() {
    let world = World::with_settings(Provider::generous().await, &[("LOG__FILTER", "trace")]).await;
    let bus = Bus::of(&world.tokenbus.nats).await;
    let link = world.bound("one").await;
    let pending = bus.messages("KV_oauth_states").await;
    let started = start(&link).await;
    let used = bus.messages("KV_oauth_states").await;
    let (_, cookie) = started.cookie.split_once('=').expect("a name and a value");
    let secrets = [started.state.as_str(), cookie, &parameter(&link, "ticket"), "authorize"];
    assert_eq!((pending.len(), used.len()), (2, 2));
    assert_eq!(world.callback_with_cookie(&started.state, &started.cookie).await.status, 200);
    let log = world.tokenbus.log();
    assert!(log.contains("oauth-start"), "{log}");
    for secret in &secrets[..3] {
        assert!(!log.contains(secret), "{secret} is in the log");
    }
    for message in pending.iter().chain(&used) {
        let text = format!("{} {:?} {:?}", message.subject, message.headers, message.payload);
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}
