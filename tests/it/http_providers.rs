//! Providers' profiles over HTTP, and configs that name one.

use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::ask::{Answer, ask, ids};
use crate::provider::Provider;
use crate::support::tokenbus::Tokenbus;
use crate::world::{World, parameter};

/// A world whose worker has a folder of profiles.
async fn world() -> (World, TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = folder.path().to_str().expect("a path of text").to_owned();
    (World::with_settings(Provider::generous().await, &[("OAUTH__PROVIDERS_DIR", &settings)]).await, folder)
}

/// Writes the profile `acme` of a provider at that URL, which asks for these scopes.
pub(crate) fn write_profile(folder: &TempDir, url: &str, scopes: &str) {
    let text = format!(
        "name = \"Acme\"\nscopes = \"{scopes}\"\nauth_url = \"{url}/authorize\"\ntoken_url = \"{url}/token\"\n\
         app_url = \"https://acme.example/apps\"\nredirect_url_field = \"Callback URL\"\n"
    );
    std::fs::write(folder.path().join("acme.toml"), text).expect("a file");
}

async fn providers(tokenbus: &Tokenbus, path: &str) -> Answer {
    ask(tokenbus.request(Method::GET, &format!("hub/providers{path}")).header("x-api-key", &tokenbus.key)).await
}

pub(crate) async fn put(world: &World, integration: &str) -> Answer {
    let config = json!({ "provider": "acme", "client_id": "client", "client_secret": "canary-client-secret",
        "redirect_url": world.tokenbus.callback() });
    let request = world.tokenbus.request(Method::PUT, &format!("hub/integrations/{integration}/oauth-config"));
    ask(request.header("x-api-key", &world.tokenbus.admin_key).body(config.to_string())).await
}

#[tokio::test]
async fn any_account_reads_the_profiles_of_workers_and_a_broken_file_is_its_own_error_only() {
    let (world, folder) = world().await;
    let tokenbus = &world.tokenbus;
    write_profile(&folder, &world.provider.url, "read");
    std::fs::write(folder.path().join("broken.toml"), "name = ").expect("a file");

    let list = providers(tokenbus, "").await;
    assert_eq!(list.status, 200, "{}", list.text);
    let (listed, list) = (ids(&list.json(), "id"), list.json());
    assert!(listed.is_sorted() && listed.contains(&"acme".to_owned()), "{listed:?}");
    assert_eq!(list["results_total"], listed.len());
    let entry = |id: &str| list["results"].as_array().expect("a list").iter().find(|it| it["id"] == id).cloned();
    assert_eq!(entry("acme"), Some(json!({ "id": "acme", "name": "Acme" })));
    let built_in = entry("slack").expect("built-in profiles are listed");
    assert_eq!(built_in["name"], "Slack");
    assert!(built_in["verified"].is_string(), "{built_in}");
    let broken = entry("broken").expect("a broken file is listed");
    assert!(broken["error"].as_str().is_some_and(|error| error.contains("not valid TOML")), "{broken}");

    let acme = providers(tokenbus, "/acme").await;
    let config = json!({ "name": "Acme", "scopes": "read", "auth_url": format!("{}/authorize", world.provider.url),
        "token_url": format!("{}/token", world.provider.url) });
    let expected = json!({ "id": "acme", "name": "Acme", "app_url": "https://acme.example/apps",
        "redirect_url_field": "Callback URL", "config": config });
    assert_eq!((acme.status, acme.json()), (200, expected));
    providers(tokenbus, "/broken").await.assert_error(400, "the profile broken cannot be used");
    for unknown in ["/canary", "/..%2Facme", "/acme.toml", "/%ff"] {
        providers(tokenbus, unknown).await.assert_error(404, "no profile");
    }
    providers(tokenbus, "?search=x").await.assert_error(400, "search");
    assert_eq!(ask(tokenbus.request(Method::GET, "hub/providers")).await.status, 401);
    assert!(tokenbus.log().contains("the profile broken cannot be used"), "{}", tokenbus.log());
}

#[tokio::test]
async fn f1_a_profile_of_the_operator_shows_no_credential() {
    let (world, folder) = world().await;
    write_profile(&folder, &world.provider.url, "read");
    let path = folder.path().join("acme.toml");
    let more = "token_headers = { accept = \"text/json\", x-api-key = \"canary\" }\n\
                token_params = { partner_secret = \"canary\" }\n\
                [identity]\nurl = \"https://api.acme.example/me\"\nid = \"id\"\n\
                headers = { authorization = \"canary\" }\nparams = { key = \"canary\" }\n";
    let text = std::fs::read_to_string(&path).expect("a file") + more;
    std::fs::write(&path, text).expect("a file");
    let acme = providers(&world.tokenbus, "/acme").await;
    assert_eq!(acme.status, 200, "{}", acme.text);
    assert!(!acme.text.contains("canary"), "{}", acme.text);
    let config = &acme.json()["config"];
    assert_eq!(config["token_headers"], json!({ "accept": "text/json", "x-api-key": "set" }));
    assert_eq!(config["identity"]["headers"]["authorization"], "set");
    // The operator's file is the parent of built-in profiles.
    let google = "extends = \"google\"\ntoken_headers = { x-proxy-key = \"canary\" }\n";
    std::fs::write(folder.path().join("google.toml"), google).expect("a file");
    let gmail = providers(&world.tokenbus, "/gmail").await;
    assert_eq!(gmail.json()["config"]["token_headers"]["x-proxy-key"], "set", "{}", gmail.text);
    let built_in = providers(&world.tokenbus, "/notion").await.json();
    assert!(!built_in["config"].to_string().contains("\"set\""), "{built_in}");
}

#[tokio::test]
async fn without_the_operators_folder_the_built_in_profiles_remain() {
    let (world, folder) = world().await;
    folder.close().expect("a folder");
    let list = providers(&world.tokenbus, "").await;
    assert!(list.status == 200 && ids(&list.json(), "id").contains(&"slack".to_owned()), "{}", list.text);
    assert_eq!(providers(&world.tokenbus, "/slack").await.status, 200);
    assert!(world.tokenbus.log().contains("oauth.providers_dir"), "{}", world.tokenbus.log());
}

#[tokio::test]
async fn a_changed_profile_counts_from_the_next_put_and_changes_no_stored_config() {
    let (world, folder) = world().await;
    put(&world, "acme").await.assert_error(400, "provider must be the id of a profile");
    write_profile(&folder, &world.provider.url, "read");
    assert_eq!(put(&world, "acme").await.status, 200);
    let scope = async |integration: &str| parameter(&world.tokenbus.login(integration, "one").await, "scope");
    assert_eq!(scope("acme").await, "read");

    write_profile(&folder, &world.provider.url, "write");
    assert_eq!(scope("acme").await, "read");
    assert_eq!(put(&world, "second").await.status, 200);
    assert_eq!((scope("acme").await, scope("second").await), ("read".to_owned(), "write".to_owned()));

    std::fs::remove_file(folder.path().join("acme.toml")).expect("a file");
    assert_eq!(scope("second").await, "write");
    let basic = |answer: (reqwest::StatusCode, Value)| (answer.0.as_u16(), answer.1["name"].clone());
    assert_eq!(basic(world.tokenbus.call(Method::GET, "acme/oauth-config").await), (200, json!("Acme")));
    put(&world, "acme").await.assert_error(400, "provider must be the id of a profile");
}
