//! Logins that are bound to the browser they are started in.

use futures_util::future::join_all;
use reqwest::{Client, Method, RequestBuilder};
use url::Url;

use crate::ask::{Answer, ask, get, with_query};
use crate::bus::Bus;
use crate::provider::Provider;
use crate::world::{World, parameter};

/// The result of starting a bound login: the authorization URL's state, and the cookie as a browser returns it.
pub(crate) struct Started {
    pub(crate) state: String,
    pub(crate) cookie: String,
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

    /// Begins a bound login, and clicks on the button of its start page.
    pub(crate) async fn start_bound(&self, connection: &str) -> Started {
        start(&self.bound(connection).await).await
    }

    /// The answer to a callback with that `Cookie` header.
    async fn callback_with_cookie(&self, state: &str, cookie: &str) -> Answer {
        let path = with_query("hub/integrations/oauth-callback", &[("code", "c"), ("state", state)]);
        let request = self.tokenbus.request(Method::GET, &path);
        ask(if cookie.is_empty() { request } else { request.header("cookie", cookie) }).await
    }
}

fn open(method: Method, link: &Url) -> RequestBuilder {
    let browser = Client::builder().no_proxy().build().expect("an HTTP client");
    browser.request(method, link.clone())
}

/// A click on the button of a start link's page.
pub(crate) fn click(link: &Url) -> RequestBuilder {
    let mut page = link.clone();
    page.set_query(None);
    open(Method::POST, &page).header("sec-fetch-site", "same-origin").form(&[("ticket", parameter(link, "ticket"))])
}

/// The URL that a page continues to.
pub(crate) fn next_page(page: &str) -> Url {
    let (_, rest) = page.split_once("content=\"0;url=").unwrap_or_else(|| panic!("no refresh in {page}"));
    let url = rest.split('"').next().unwrap_or_default().replace("&amp;", "&");
    url.parse().expect("the page continues to a URL")
}

async fn start(link: &Url) -> Started {
    let answer = ask(click(link)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let provider = next_page(&answer.text);
    let cookie = answer.header("set-cookie").split(';').next().expect("a cookie").to_owned();
    Started { state: parameter(&provider, "state"), cookie }
}

#[tokio::test]
async fn b4_a_bound_login_needs_the_cookie_of_the_browser_that_started_it() {
    let world = World::of_browsers().await;
    let started = world.start_bound("one").await;
    let other = world.start_bound("two").await;
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
    let answers = join_all((0..8).map(|_| ask(click(&link)))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 200) {
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
    assert_eq!(ask(open(Method::HEAD, &link)).await.status, 405);
    for (name, value) in [("sec-purpose", "prefetch"), ("purpose", "prefetch"), ("x-moz", "prefetch")] {
        for request in [open(Method::GET, &link), click(&link)] {
            assert_eq!(ask(request.header(name, value)).await.status, 400, "{name}");
        }
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
    for request in [open(Method::GET, &with_state), click(&with_state)] {
        ask(request).await.assert_error(401, "unknown");
    }
    start(&link).await;
    assert_eq!(world.callback_with_cookie(&plain, "").await.status, 200);
}

#[tokio::test]
async fn b4_two_logins_in_one_browser_do_not_disturb_each_other() {
    let world = World::of_browsers().await;
    let first = world.start_bound("one").await;
    let second = world.start_bound("two").await;
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
