//! Logins in headless Chromium.

use crate::parts::chromium::Browser;
use crate::parts::client::{CLIENT, VERIFIER, authorization_url_to, exchange_at, metadata_to};
use crate::parts::landing::Landing;
use crate::parts::provider::Provider;
use crate::parts::visitor::{self, Consent, query};
use crate::parts::world::{CONNECTION, INTEGRATION, World, text};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{sleep, timeout};
use url::Url;

/// Longest time for a message between windows.
const MESSAGE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn chromium_completes_a_login() {
    let Some(browser) = Browser::open().await else { return };
    let landing = Landing::open().await;
    let provider = Provider::start(&[metadata_to(CLIENT, &landing.url)]).await;

    let start = authorization_url_to(&provider, CLIENT, &landing.url);
    let found = query(&browser.walk(&start, &landing.url, Consent::Allow).await);
    assert_eq!(found["iss"], provider.issuer);
    let (status, answer) = exchange_at(&provider, &found["code"], VERIFIER, &landing.url).await;
    assert_eq!(status, 200, "{answer}");
    browser.close().await;
}

#[tokio::test]
async fn chromium_completes_a_denied_login() {
    let Some(browser) = Browser::open().await else { return };
    let landing = Landing::open().await;
    let provider = Provider::start(&[metadata_to(CLIENT, &landing.url)]).await;

    let start = authorization_url_to(&provider, CLIENT, &landing.url);
    let found = query(&browser.walk(&start, &landing.url, Consent::Deny).await);
    assert_eq!(found["error"], "access_denied");
    browser.close().await;
}

#[tokio::test]
async fn a_popup_tells_its_opener_that_it_is_connected() {
    let Some(browser) = Browser::open().await else { return };
    let application = Landing::open().await;
    let world = world(&application).await;
    browser.page.goto(&application.url).await;
    let windows = browser.open_popup(&login(&world, Some(&application)).await).await;
    browser.answer(Consent::Allow).await;
    browser.arrive(&world.tokenbus.callback()).await;

    assert_eq!(browser.text("h1").await, "Example is connected");
    assert_eq!(browser.text("a").await, format!("Back to {}", application.origin.trim_start_matches("http://")));
    browser.picture("connected").await;
    assert_no_token_in(&browser.page.source().await, &world).await;

    browser.show(&windows.opener).await;
    let expected = json!({
        "type": "tokenbus", "status": "connected", "integration_id": INTEGRATION, "connection_id": CONNECTION,
    });
    assert_eq!(heard(&browser).await, [json!({ "origin": gateway(&world), "data": expected })]);

    browser.show(&windows.popup).await;
    browser.page.element("a").await.click().await;
    browser.arrive(&application.url).await;
    assert_eq!(browser.console(&gateway(&world)).await, Vec::<String>::new());
    browser.close().await;
}

#[tokio::test]
async fn a_popup_tells_its_opener_that_it_was_denied() {
    let Some(browser) = Browser::open().await else { return };
    let application = Landing::open().await;
    let world = world(&application).await;
    browser.page.goto(&application.url).await;
    let windows = browser.open_popup(&login(&world, Some(&application)).await).await;
    browser.answer(Consent::Deny).await;
    browser.arrive(&world.tokenbus.callback()).await;

    assert_eq!(browser.text("h1").await, "Example was not connected");
    assert_eq!(browser.text(".detail").await, "access_denied");
    browser.picture("denied").await;

    browser.show(&windows.opener).await;
    let expected = json!({
        "type": "tokenbus", "status": "error", "integration_id": INTEGRATION, "connection_id": CONNECTION,
        "error": "access_denied", "reason": "access_denied",
    });
    assert_eq!(heard(&browser).await, [json!({ "origin": gateway(&world), "data": expected })]);
    assert_eq!(world.token_requests().await, []);
    browser.close().await;
}

#[tokio::test]
async fn b9_an_opener_of_another_origin_gets_no_message() {
    let Some(browser) = Browser::open().await else { return };
    let (application, other) = (Landing::open().await, Landing::open().await);
    let world = world(&application).await;
    browser.page.goto(&other.url).await;
    let windows = browser.open_popup(&login(&world, Some(&application)).await).await;
    browser.answer(Consent::Allow).await;
    browser.arrive(&world.tokenbus.callback()).await;
    assert_eq!(browser.text("h1").await, "Example is connected");

    // Chromium logs an undelivered message to the console.
    let console = browser.console(&gateway(&world)).await.join("\n");
    assert!(console.contains("postMessage") && console.contains(&other.origin), "{console}");
    browser.show(&windows.opener).await;
    let own = "postMessage('mine')";
    browser.page.execute(own, &[]).await;
    assert_eq!(heard(&browser).await, [json!({ "origin": other.origin, "data": "mine" })]);
    browser.close().await;
}

#[tokio::test]
async fn b9_without_return_to_no_window_gets_a_message() {
    let Some(browser) = Browser::open().await else { return };
    let application = Landing::open().await;
    let world = world(&application).await;
    browser.page.goto(&application.url).await;
    let windows = browser.open_popup(&login(&world, None).await).await;
    browser.answer(Consent::Allow).await;
    browser.arrive(&world.tokenbus.callback()).await;
    assert_eq!(browser.text("h1").await, "Example is connected");
    assert_eq!(browser.text("main p").await, "You can close this window.");
    browser.picture("connected-without-return").await;
    assert_eq!(browser.console(&gateway(&world)).await, Vec::<String>::new());

    browser.show(&windows.opener).await;
    browser.page.execute("postMessage('mine')", &[]).await;
    assert_eq!(heard(&browser).await, [json!({ "origin": application.origin, "data": "mine" })]);
    browser.close().await;
}

#[tokio::test]
async fn the_page_works_without_scripts() {
    let Some(browser) = Browser::without_scripts().await else { return };
    let application = Landing::open().await;
    let world = world(&application).await;
    browser.page.goto(&application.url).await;
    browser.text("html:not(.scripts)").await;

    let start = login(&world, Some(&application)).await.parse().expect("a URL");
    let callback = browser.walk(&start, &world.tokenbus.callback(), Consent::Allow).await;
    assert_eq!(browser.text("h1").await, "Example is connected");
    assert_eq!(browser.text("a").await, format!("Back to {}", application.origin.trim_start_matches("http://")));
    assert_no_token_in(&browser.page.source().await, &world).await;

    // Without the page before, the text could still be of that page.
    browser.page.goto(&application.url).await;
    browser.page.goto(callback.as_str()).await;
    assert_eq!(browser.text("h1").await, "Example is connected");
    browser.page.goto(&format!("{}?state=unknown&code=c", world.tokenbus.callback())).await;
    assert_eq!(browser.text("h1").await, "This login link is not valid");
    browser.picture("used").await;
    browser.close().await;
}

#[tokio::test]
async fn b4_h9_chromium_shows_the_start_page_and_keeps_the_cookie_of_a_bound_login() {
    let Some(browser) = Browser::open().await else { return };
    let world = World::start().await;
    let link = login_at(&world, "?bind=browser").await;
    assert!(link.starts_with(&gateway(&world)), "{link}");
    for (name, width, height) in [("start-phone", 390, 844), ("start", 1280, 800)] {
        browser.page.resize(width, height).await;
        browser.page.goto(&link).await;
        assert!(browser.text("h1").await.ends_with(&format!("account as {CONNECTION}")));
        browser.picture(name).await;
    }
    assert_eq!(browser.page.cookies().await, [json!(null); 0], "the page sets no cookie");
    assert_eq!(browser.console(&gateway(&world)).await, Vec::<String>::new());
    browser.page.element("button").await.click().await;
    browser.answer(Consent::Allow).await;
    browser.arrive(&world.tokenbus.callback()).await;
    assert_eq!(browser.text("h1").await, "Example is connected");

    browser.page.goto(&link).await;
    assert_eq!(browser.text("h1").await, "This login link is not valid");
    browser.close().await;
}

#[tokio::test]
async fn b4_a_callback_of_another_browsers_login_connects_nothing() {
    let Some(browser) = Browser::open().await else { return };
    let world = World::start().await;
    let link = login_at(&world, "?bind=browser").await;
    // An attacker starts the login and consents, then sends this browser to the callback.
    let start = start(&world, &link).await;
    let callback = visitor::walk(start, &world.tokenbus.callback(), Consent::Allow).await;

    browser.page.goto(callback.as_str()).await;
    assert_eq!(browser.text("h1").await, "This login link is not valid");
    assert!(browser.text(".detail").await.contains("another browser"));
    assert_eq!(world.token_requests().await, []);
    browser.close().await;
}

/// Presses the button of a start link's page in another browser, and returns the authorization URL.
async fn start(world: &World, link: &str) -> Url {
    let link: Url = link.parse().expect("a URL");
    let (_, ticket) = link.query_pairs().next().expect("a start link has a ticket");
    let request = world.tokenbus.request(Method::POST, "hub/integrations/oauth-start");
    let started = request.header("origin", gateway(world)).form(&[("ticket", ticket)]).send().await;
    let page = started.expect("the gateway answers").text().await.expect("a page");
    let (_, rest) = page.split_once("content=\"0;url=").unwrap_or_else(|| panic!("no refresh in {page}"));
    rest.split('"').next().unwrap_or_default().replace("&amp;", "&").parse().expect("a URL")
}

async fn world(application: &Landing) -> World {
    World::start_with(&[("OAUTH__RETURN_TO", &format!("[\"{}\"]", application.origin))]).await
}

/// The authorization URL of a login that returns to `application`.
async fn login(world: &World, application: Option<&Landing>) -> String {
    let query = application.map_or(String::new(), |application| format!("?return_to={}", application.url));
    login_at(world, &query).await
}

/// The final URL of a login with that query.
async fn login_at(world: &World, query: &str) -> String {
    let path = format!("{INTEGRATION}/oauth-login/{CONNECTION}{query}");
    let (status, body) = world.tokenbus.call(Method::GET, &path).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    text(&body, "oauth_url").to_owned()
}

fn gateway(world: &World) -> String {
    world.tokenbus.url.origin().ascii_serialization()
}

/// The messages that the application's page has received, at least one.
async fn heard(browser: &Browser) -> Vec<Value> {
    let poll = async {
        loop {
            let heard = browser.page.execute("return heard", &[]).await;
            match heard.as_array() {
                Some(messages) if !messages.is_empty() => return messages.clone(),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    };
    timeout(MESSAGE, poll).await.expect("a message comes")
}

async fn assert_no_token_in(page: &str, world: &World) {
    let (_, connection) = world.tokenbus.call(Method::GET, &format!("{INTEGRATION}/oauth-token/{CONNECTION}")).await;
    for field in ["access_token", "refresh_token"] {
        assert!(!page.contains(text(&connection, field)), "{field} is on the page");
    }
}
