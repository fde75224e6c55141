//! Connections as callers see them, limited to their own account, and the parameters of a login.

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

use crate::ask::{ask, get, ids, new_account, with_query};
use crate::provider::{Provider, Received, Scripted};
use crate::support::tokenbus::ACCOUNT;
use crate::world::{World, parameter};

async fn world() -> World {
    World::with(Provider::generous().await).await
}

/// The names of a page's connections, the last token of their subjects.
fn names(page: &Value) -> String {
    let subjects = ids(page, "subject");
    let names: Vec<&str> = subjects.iter().filter_map(|subject| subject.rsplit('.').next()).collect();
    names.join(" ")
}

#[tokio::test]
async fn unknown_names_are_404_and_malformed_requests_400() {
    let world = world().await;
    let key = &world.tokenbus.key;
    for (path, status) in [
        ("odd/oauth-token/one", 404),
        ("unknown/oauth-token/one", 404),
        ("unknown/oauth-login/one", 404),
        ("odd/oauth-token/one?min_valid=x", 400),
        ("odd/oauth-token/one?wish=x", 400),
        ("odd/oauth-login/one?scope=read", 400),
        ("odd/oauth-login/one?bind=other", 400),
        ("odd/oauth-login/one?var.host=x", 400),
        ("unknown/oauth-connections", 400),
    ] {
        let answer = get(&world.tokenbus, key, path).await;
        assert_eq!(answer.status, status, "{path}: {}", answer.text);
        assert!(!answer.error().is_empty());
    }
    for path in ["oauth-connections", "odd/oauth-connections"] {
        let answer = get(&world.tokenbus, key, path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "results": [], "results_total": 0 })), "{path}");
    }
}

#[tokio::test]
async fn lists_return_the_connections_of_all_integrations_or_of_one_in_pages() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let mut other = world.config();
    other["integration_id"] = json!("other");
    tokenbus.configure(&other).await;
    for name in ["a", "b", "c"] {
        assert_eq!(world.connect(name).await.0, 200);
    }
    let login = tokenbus.login("other", "z").await;
    let state = parameter(&login, "state");
    assert_eq!(tokenbus.arrive(&world.callback(&[("code", "c"), ("state", &state)])).await.0, 200);

    let page = async |path: &str| get(tokenbus, &tokenbus.key, path).await.json();
    for (path, expected, total) in [
        ("oauth-connections", "a b c z", 4),
        ("odd/oauth-connections", "a b c", 3),
        ("other/oauth-connections", "z", 1),
    ] {
        let all = page(path).await;
        assert_eq!((names(&all).as_str(), &all["results_total"]), (expected, &json!(total)), "{path}");
        assert!(all.get("next_cursor").is_none(), "{all}");
    }
    let first = page("oauth-connections?limit=3").await;
    assert_eq!((names(&first).as_str(), &first["results_total"]), ("a b c", &json!(4)));
    let cursor = first["next_cursor"].as_str().expect("there is more");
    let rest = page(&format!("oauth-connections?limit=3&cursor={cursor}")).await;
    assert_eq!((names(&rest).as_str(), &rest["results_total"]), ("z", &json!(4)));
    assert!(rest.get("next_cursor").is_none(), "{rest}");

    let read = world.read("a").await.1;
    assert_eq!(page("oauth-connections?limit=1").await["results"][0], read);
}

#[tokio::test]
async fn e4_connections_of_another_account_are_404() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    assert_eq!(world.connect("mine").await.0, 200);
    let account = new_account();
    let foreign = tokenbus.api_key(&account, "admin").await;
    assert_eq!(get(tokenbus, &foreign, "odd/oauth-token/mine").await.status, 404);
    for path in ["oauth-connections", "odd/oauth-connections"] {
        assert_eq!(get(tokenbus, &foreign, path).await.json()["results_total"], 0, "{path}");
    }

    // A login of the other account under the same name creates a separate connection.
    let login = get(tokenbus, &foreign, "odd/oauth-login/mine").await.json();
    let state = crate::world::state_of(&login["oauth_url"]);
    let (status, theirs) = tokenbus.arrive_with(&foreign, &world.callback(&[("code", "c"), ("state", &state)])).await;
    assert_eq!(
        (status.as_u16(), &theirs["subject"]),
        (200, &json!(format!("ms.integration.oauth.{account}.odd.mine")))
    );
    assert_eq!(world.read("mine").await.1["access_token"], "at-0");
    assert_eq!(get(tokenbus, &foreign, "odd/oauth-token/mine").await.json()["access_token"], "at-1");

    // A cursor grants no access: used by another account, it shows only that account's connections.
    assert_eq!(world.connect("more").await.0, 200);
    let page = get(tokenbus, &tokenbus.key, "oauth-connections?limit=1").await.json();
    let cursor = page["next_cursor"].as_str().expect("there is more");
    let with_theirs = get(tokenbus, &foreign, &format!("oauth-connections?cursor={cursor}")).await.json();
    assert!(ids(&with_theirs, "subject").iter().all(|subject| subject.contains(&account)), "{with_theirs}");
}

#[tokio::test]
async fn a4_a_login_needs_a_credential_and_can_only_narrow_scopes() {
    let world = world().await;
    let tokenbus = &world.tokenbus;
    let open = tokenbus.request(Method::GET, "hub/integrations/odd/oauth-login/one");
    assert_eq!(ask(open).await.status, 401);
    for (scopes, expected) in [("", "read write"), ("?scopes=read", "read"), ("?scopes=read,write", "read write")] {
        let body = get(tokenbus, &tokenbus.key, &format!("odd/oauth-login/one{scopes}")).await.json();
        let url: Url = body["oauth_url"].as_str().and_then(|url| url.parse().ok()).expect("a login answers with a URL");
        assert_eq!(parameter(&url, "scope"), expected, "{scopes}");
    }
    for scopes in ["admin", "read,admin", "read%20write"] {
        get(tokenbus, &tokenbus.key, &format!("odd/oauth-login/one?scopes={scopes}")).await.assert_error(400, "scopes");
    }
    for reserved in ["state=mine", "client_id=mine", "redirect_uri=https%3A%2F%2Fevil.test", "code_challenge=x"] {
        get(tokenbus, &tokenbus.key, &format!("odd/oauth-login/one?{reserved}")).await.assert_error(400, "unknown");
    }
}

#[tokio::test]
async fn a1_states_are_opaque_and_fresh() {
    let world = world().await;
    let (one, two) = (world.login("one").await.state, world.login("one").await.state);
    assert_ne!(one, two);
    for state in [one, two] {
        assert!((22..=64).contains(&state.len()), "{state}");
        assert!(state.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{state}");
    }
}

#[tokio::test]
async fn b8_return_to_must_have_a_listed_origin() {
    let allowed = [("OAUTH__RETURN_TO", "[\"https://app.example\", \"https://other.example:8443\"]")];
    let world = World::with_settings(Provider::generous().await, &allowed).await;
    for (wanted, status) in [
        ("https://app.example", 200),
        ("https://app.example/done?x=1", 200),
        ("https://other.example:8443/", 200),
        ("https://other.example/", 400),
        ("http://app.example/", 400),
        ("https://app.example.evil.test/", 400),
        ("https://app.example@evil.test/", 400),
        ("https://user@app.example/", 400),
        ("//app.example/", 400),
        ("\\\\app.example", 400),
        ("/done", 400),
        ("javascript:alert(1)", 400),
        ("data:text/html,x", 400),
        ("", 400),
    ] {
        let tokenbus = &world.tokenbus;
        let path = with_query("odd/oauth-login/one", &[("return_to", wanted)]);
        let answer = get(tokenbus, &tokenbus.key, &path).await;
        assert_eq!(answer.status, status, "{wanted}: {}", answer.text);
    }
}

#[tokio::test]
async fn connections_survive_a_restart_of_the_program() {
    let mut world = world().await;
    assert_eq!(world.connect("one").await.0, 200);
    let before = world.read("one").await;
    let pending = world.login("two").await.state;
    world.tokenbus.crash_and_restart().await;
    assert_eq!(world.read("one").await, before);
    let (status, body) = world.tokenbus.arrive(&world.callback(&[("code", "c"), ("state", &pending)])).await;
    assert_eq!(status.as_u16(), 200, "{body}");
}

#[tokio::test]
async fn g3_pending_logins_are_bounded() {
    let settings = [("OAUTH__MAX_PENDING_LOGINS", "3")];
    let world = World::with_settings(Provider::generous().await, &settings).await;
    let (tokenbus, mut states) = (&world.tokenbus, Vec::new());
    // A finished login does not count.
    for name in ["a", "b", "c", "d"] {
        assert_eq!(world.connect(name).await.0, 200, "{name}");
    }
    for name in ["e", "f"] {
        states.push(world.login(name).await.state);
    }
    let bound = get(tokenbus, &tokenbus.key, "odd/oauth-login/g?bind=browser").await;
    assert_eq!(bound.status, 200, "{}", bound.text);
    let one_more = get(tokenbus, &tokenbus.key, "odd/oauth-login/h").await;
    one_more.assert_error(429, "3 logins of this account are pending");
    assert!(one_more.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0));
    assert_eq!(get(tokenbus, &tokenbus.admin_key, "odd/oauth-login/h").await.status, 429);

    let foreign = tokenbus.api_key(&new_account(), "member").await;
    assert_eq!(get(tokenbus, &foreign, "odd/oauth-login/h").await.status, 200);

    let done = world.callback(&[("code", "c"), ("state", &states[0])]);
    assert_eq!(tokenbus.arrive(&done).await.0, 200);
    let again = async { while get(tokenbus, &tokenbus.key, "odd/oauth-login/h").await.status != 200 {} };
    tokio::time::timeout(std::time::Duration::from_mins(1), again).await.expect("a place is free");
    let full = async { while get(tokenbus, &tokenbus.key, "odd/oauth-login/h").await.status != 429 {} };
    tokio::time::timeout(std::time::Duration::from_mins(1), full).await.expect("and taken");
}

#[tokio::test]
async fn a_page_has_at_most_512_kib_and_the_next_one_continues() {
    let token = "x".repeat(100 * 1024);
    let script = move |_, _: &Received| Scripted::json(200, &json!({ "access_token": token, "expires_in": 3600 }));
    let world = World::with(Provider::start(script).await).await;
    let names: Vec<String> = (0..13).map(|number| format!("c{number:02}")).collect();
    for name in &names {
        assert_eq!(world.connect(name).await.0, 200, "{name}");
    }
    let (tokenbus, mut found, mut sizes, mut cursor) = (&world.tokenbus, Vec::new(), Vec::new(), String::new());
    loop {
        let answer = get(tokenbus, &tokenbus.key, &format!("oauth-connections?limit=1000{cursor}")).await;
        let page = answer.json();
        assert_eq!(page["results_total"], 13);
        found.extend(page["results"].as_array().expect("a page").iter().map(|it| it["subject"].clone()));
        sizes.push(answer.text.len() / 1024);
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let expected: Vec<_> =
        names.iter().map(|name| json!(format!("ms.integration.oauth.{ACCOUNT}.odd.{name}"))).collect();
    assert_eq!(found, expected);
    let (last, whole) = sizes.split_last().expect("there is a page");
    assert!(whole.len() == 2 && whole.iter().all(|size| (400..512).contains(size)) && *last < 512, "{sizes:?} KiB");
}
