//! Callbacks that come again, in parallel or without a credential: what each caller learns.

use std::time::Duration;

use futures_util::future::join_all;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::json;

use crate::ask::{ask, with_query};
use crate::provider::{Provider, Received, Scripted};
use crate::world::World;

const PATH: &str = "hub/integrations/oauth-callback";
const HTML: &str = "text/html,*/*;q=0.8";

impl World {
    fn comes(&self, state: &str, accept: &str) -> RequestBuilder {
        let path = with_query(PATH, &[("code", "c"), ("state", state)]);
        self.tokenbus.request(Method::GET, &path).header("accept", accept)
    }
}

#[tokio::test]
async fn h8_a_callback_without_the_accounts_credential_returns_no_token() {
    let world = World::with(Provider::generous().await).await;
    let state = world.login("one").await.state;
    let answer = ask(world.comes(&state, "application/json")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let body = answer.json();
    assert_eq!(body["status"], "active", "{body}");
    for secret in ["access_token", "refresh_token", "at-0", "rt-0"] {
        assert!(!answer.text.contains(secret), "{secret}: {}", answer.text);
    }

    let state = world.login("two").await.state;
    let answer = ask(world.comes(&state, "application/json").header("x-api-key", &world.tokenbus.key)).await;
    let body = answer.json();
    assert_eq!((&body["access_token"], &body["refresh_token"]), (&"at-1".into(), &"rt-1".into()), "{body}");
}

#[tokio::test]
async fn h8_parallel_browsers_see_the_outcome_and_one_json_caller_gets_the_connection() {
    let script = |number, _: &Received| Scripted::tokens(number).after(Duration::from_millis(500));
    let world = World::with(Provider::start(script).await).await;
    let state = world.login("pages").await.state;
    let pages = join_all((0..8).map(|_| ask(world.comes(&state, HTML)))).await;
    for page in &pages {
        assert_eq!(page.status, 200, "{}", page.text);
        assert!(page.text.contains("is connected") && !page.text.contains("at-0"), "{}", page.text);
    }
    let reloaded = ask(world.comes(&state, HTML)).await;
    assert!(reloaded.status == 200 && reloaded.text.contains("is connected"), "{}", reloaded.text);

    let state = world.login("json").await.state;
    let answers = join_all((0..8).map(|_| ask(world.comes(&state, "application/json")))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1);
    assert_eq!(answers.iter().filter(|answer| answer.status == 401).count(), 7);
    assert_eq!(world.provider.received().len(), 2, "each code was sent once");
}

#[tokio::test]
async fn a_browser_that_reloads_a_failed_callback_is_told_to_start_again() {
    let refusal = json!({ "error": "invalid_grant" });
    let script = move |_, _: &Received| Scripted::json(400, &refusal).after(Duration::from_millis(500));
    let world = World::with(Provider::start(script).await).await;
    let state = world.login("one").await.state;
    let pages = join_all((0..4).map(|_| ask(world.comes(&state, HTML)))).await;
    let reloaded = ask(world.comes(&state, HTML)).await;
    for page in pages.iter().chain([&reloaded]) {
        assert!((400..503).contains(&page.status), "{}: {}", page.status, page.text);
        assert!(page.text.contains("was not connected") && !page.text.contains("all is well"), "{}", page.text);
    }
    assert_eq!(world.provider.received().len(), 1);
}

#[tokio::test]
async fn a_callback_that_was_turned_away_works_when_it_comes_again() {
    let world = World::with(Provider::generous().await).await;
    let mut other = world.config();
    other["code_param"] = "auth_code".into();
    for accept in ["application/json", HTML] {
        let state = world.login("one").await.state;
        world.tokenbus.configure(&other).await;
        for _ in 0..2 {
            let answer = ask(world.comes(&state, accept)).await;
            assert_eq!(answer.status, 400, "{}", answer.text);
        }
        world.tokenbus.configure(&world.config()).await;
        let answer = ask(world.comes(&state, accept)).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    }
    assert_eq!(world.provider.received().len(), 2);
}

#[tokio::test]
async fn h9_the_outcome_of_a_bound_login_is_for_its_browser_only() {
    let world = World::with(Provider::generous().await).await;
    let started = world.start_bound("one").await;
    let (state, cookie) = (started.state, started.cookie);
    let first = ask(world.comes(&state, HTML).header("cookie", &cookie)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let again = ask(world.comes(&state, HTML).header("cookie", &cookie)).await;
    assert!(again.status == 200 && again.text.contains("is connected"), "{}", again.text);
    for cookie in ["", "__Host-tokenbus-x=y"] {
        let other = ask(world.comes(&state, HTML).header("cookie", cookie)).await;
        assert!(other.status == 401 && other.text.contains("not valid"), "{}", other.text);
    }
}

#[tokio::test]
async fn h20_the_login_cookie_is_cleared_once_the_login_has_ended() {
    let world = World::with(Provider::generous().await).await;
    for (query, ends) in [
        (vec![], false),
        (vec![("code", "c"), ("error", "access_denied")], false),
        (vec![("error", "access_denied")], true),
        (vec![("code", "c")], true),
    ] {
        for accept in ["application/json", HTML] {
            let started = world.start_bound("one").await;
            let (state, cookie) = (started.state, started.cookie);
            let (name, _) = cookie.split_once('=').expect("a name and a value");
            let query: Vec<_> = query.iter().copied().chain([("state", state.as_str())]).collect();
            let request = world.tokenbus.request(Method::GET, &with_query(PATH, &query)).header("accept", accept);
            let answer = ask(request.header("cookie", format!("session=x; {cookie}"))).await;
            let cleared = format!("{name}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax");
            let expected = if ends { cleared.as_str() } else { "" };
            assert_eq!(answer.header("set-cookie"), expected, "{query:?} {accept}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn unknown_parameters_of_a_callback_are_ignored_doubled_or_not() {
    let world = World::with(Provider::generous().await).await;
    let state = world.login("one").await.state;
    let query = [("x", "1"), ("x", "2"), ("code", "c"), ("state", state.as_str()), ("authuser", "0")];
    let answer = ask(world.tokenbus.request(Method::GET, &with_query(PATH, &query))).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

#[tokio::test]
async fn a_posted_callback_becomes_a_get_with_the_parameters_that_are_read() {
    let world = World::with(Provider::generous().await).await;
    let mut config = world.config();
    config["code_param"] = "auth_code".into();
    config["callback_metadata"] = json!(["realm"]);
    world.tokenbus.configure(&config).await;
    let state = world.login("one").await.state;
    let form = [("auth_code", "c&d"), ("state", &state), ("realm", "r"), ("user", "canary"), ("user", "canary")];
    let browser = Client::builder().no_proxy().redirect(Policy::none()).build().expect("an HTTP client");
    let post = |form: &[(&str, &str)]| browser.post(world.tokenbus.endpoint(PATH)).form(form);
    let answer = ask(post(&form)).await;
    assert_eq!(answer.status, 303, "{}", answer.text);
    let location = answer.header("location");
    assert_eq!(location, with_query("oauth-callback", &form[..3]));
    let finished = ask(world.tokenbus.request(Method::GET, &format!("hub/integrations/{location}"))).await;
    assert_eq!(finished.status, 200, "{}", finished.text);

    for form in [vec![], vec![("auth_code", "c")]] {
        ask(post(&form)).await.assert_error(400, "state is missing");
    }
    // Used states are judged by the GET.
    assert_eq!(ask(post(&form)).await.status, 303);
    let text = browser.post(world.tokenbus.endpoint(PATH)).header("content-type", "text/plain").body("state=x");
    ask(text).await.assert_error(400, "x-www-form-urlencoded");
}
