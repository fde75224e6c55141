//! Logins in headless Chromium.

use crate::parts::chromium::Browser;
use crate::parts::client::{CLIENT, VERIFIER, authorization_url_to, exchange_at, metadata_to};
use crate::parts::landing::Landing;
use crate::parts::provider::Provider;
use crate::parts::visitor::{Consent, query};

#[tokio::test]
async fn chromium_walks_a_login() {
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
async fn chromium_walks_a_refusal() {
    let Some(browser) = Browser::open().await else { return };
    let landing = Landing::open().await;
    let provider = Provider::start(&[metadata_to(CLIENT, &landing.url)]).await;

    let start = authorization_url_to(&provider, CLIENT, &landing.url);
    let found = query(&browser.walk(&start, &landing.url, Consent::Deny).await);
    assert_eq!(found["error"], "access_denied");
    browser.close().await;
}
