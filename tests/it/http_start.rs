//! The start page of a login that is bound to its browser.

use reqwest::{Method, RequestBuilder};
use url::Url;

use crate::ask::{Answer, ask, get};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;
use crate::world::{World, parameter};

const PATH: &str = "hub/integrations/oauth-start";

impl World {
    /// The start link of a bound login, or of a login that the settings bind.
    async fn start_link(&self, query: &str) -> Url {
        let path = format!("odd/oauth-login/workspace1{query}");
        let body = get(&self.tokenbus, &self.tokenbus.key, &path).await.json();
        body["oauth_url"].as_str().and_then(|url| url.parse().ok()).unwrap_or_else(|| panic!("no link: {body}"))
    }

    async fn page(&self, link: &Url) -> Answer {
        let request = self.tokenbus.request(Method::GET, &format!("{PATH}?{}", link.query().unwrap_or_default()));
        ask(request.header("accept", "text/html,*/*;q=0.8")).await
    }

    /// A click on the page's button, without the headers by which a browser says where the click was.
    fn click(&self, link: &Url) -> RequestBuilder {
        self.tokenbus.request(Method::POST, PATH).form(&[("ticket", parameter(link, "ticket"))])
    }
}

#[tokio::test]
async fn h9_the_start_page_shows_which_account_asks_for_what_and_uses_nothing() {
    let name = format!("ACCOUNTS__{ACCOUNT}__NAME");
    let named = World::with_settings(Provider::generous().await, &[(&name, "Acme <b>& Co</b>")]).await;
    let unnamed = World::with(Provider::generous().await).await;
    let short = format!("{}…{}", &ACCOUNT[..6], &ACCOUNT[ACCOUNT.len() - 4..]);
    for (world, account) in [(&named, "Acme &lt;b&gt;&amp; Co&lt;/b&gt;"), (&unnamed, short.as_str())] {
        let link = world.start_link("?bind=browser").await;
        for _ in 0..2 {
            let answer = world.page(&link).await;
            assert_eq!((answer.status, answer.header("set-cookie")), (200, ""), "{}", answer.text);
            for part in [account, "Odd", "workspace1", "<form method=\"post\"", "<button"] {
                assert!(answer.text.contains(part), "{part} is not in {}", answer.text);
            }
            let policy = answer.header("content-security-policy");
            assert!(policy.contains("default-src 'none'") && policy.contains("form-action 'self'"), "{policy}");
            assert!(policy.contains("frame-ancestors 'none'"), "{policy}");
            assert_eq!(answer.header("referrer-policy"), "same-origin");
            assert!(!answer.text.contains("<script") && !answer.text.contains("/authorize"), "{}", answer.text);
        }
        let clicked = ask(world.click(&link).header("sec-fetch-site", "same-origin")).await;
        assert_eq!(clicked.status, 200, "{}", clicked.text);
    }
}

#[tokio::test]
async fn h9_a_click_on_another_site_sets_no_cookie_and_uses_no_ticket() {
    let public = [("HTTP__PUBLIC_URL", "https://hub.example/bus/")];
    let world = World::with_settings(Provider::generous().await, &public).await;
    let link = world.start_link("?bind=browser").await;
    for headers in [
        vec![],
        vec![("sec-fetch-site", "cross-site")],
        vec![("sec-fetch-site", "same-site")],
        vec![("sec-fetch-site", "none")],
        vec![("sec-fetch-site", "cross-site"), ("origin", "https://hub.example")],
        vec![("sec-fetch-site", "")],
        vec![("origin", "null")],
        vec![("origin", "")],
        vec![("origin", "http://hub.example")],
        vec![("origin", "https://hub.example.evil.test")],
        vec![("origin", "https://hub.example:8443")],
        vec![("origin", "https://hub.example/bus")],
        vec![("origin", "https://evil.test"), ("host", "evil.test")],
    ] {
        let mut request = world.click(&link);
        for (name, value) in &headers {
            request = request.header(*name, *value);
        }
        let answer = ask(request).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (403, ""), "{headers:?}: {}", answer.text);
        assert!(!answer.text.contains("/authorize"), "{}", answer.text);
    }
    let answer = ask(world.click(&link).header("origin", "https://hub.example")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let cookie = answer.header("set-cookie");
    assert!(cookie.starts_with("__Host-tokenbus-") && cookie.contains("; Secure; HttpOnly; SameSite=Lax"), "{cookie}");
    let target = format!("{}/authorize?", world.provider.url);
    assert!(answer.text.contains(&format!("<meta http-equiv=\"refresh\" content=\"0;url={target}")), "{}", answer.text);
    assert!(answer.text.contains(&format!("href=\"{target}")), "{}", answer.text);
    assert_eq!(answer.header("referrer-policy"), "no-referrer");
    assert!(answer.header("content-security-policy").contains("default-src 'none'"));
}

#[tokio::test]
async fn h9_the_settings_can_bind_all_logins() {
    let world = World::with_settings(Provider::generous().await, &[("OAUTH__BIND", "browser")]).await;
    for query in ["", "?bind=browser"] {
        let link = world.start_link(query).await;
        assert!(link.path().ends_with("/oauth-start"), "{link}");
        assert_eq!(world.page(&link).await.status, 200);
    }
}

#[tokio::test]
async fn h9_a_start_link_with_another_query_or_an_unknown_ticket_is_refused() {
    let world = World::with(Provider::generous().await).await;
    let link = world.start_link("?bind=browser").await;
    let (ticket, own) = (parameter(&link, "ticket"), ("sec-fetch-site", "same-origin"));
    for (query, status) in [("", 400), ("?ticket=", 400), ("?ticket=canary", 401)] {
        let answer = ask(world.tokenbus.request(Method::GET, &format!("{PATH}{query}"))).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
    }
    for (body, status) in [
        (String::new(), 400),
        ("ticket=".to_owned(), 400),
        ("ticket=canary".to_owned(), 401),
        (format!("ticket={ticket}&x=1"), 400),
        (format!("ticket={ticket}&ticket={ticket}"), 400),
    ] {
        let request = world.tokenbus.request(Method::POST, PATH).header(own.0, own.1);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.clone());
        let answer = ask(request).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (status, ""), "{body}: {}", answer.text);
    }
    assert_eq!(ask(world.click(&link).header(own.0, own.1)).await.status, 200);
    let used = world.page(&link).await;
    assert!(used.status == 401 && used.text.contains("not valid"), "{}", used.text);
}
