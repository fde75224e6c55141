mod table;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::integration::{Method, TokenKind, parse_value};

fn built_in() -> Profiles<'static> {
    Profiles::default()
}

fn id(text: &str) -> Integration {
    Integration::parse(text).unwrap()
}

fn own(folder: &TempDir) -> Profiles<'_> {
    Profiles { folder: Some(folder.path()), ..Profiles::default() }
}

/// A folder of the operator's own with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[tokio::test]
async fn profiles_are_the_files_of_the_directory() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/providers");
    let files = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let files: BTreeSet<_> = files.collect();
    let ids = built_in().ids().await.unwrap();
    assert_eq!(files, ids.iter().map(|id| format!("{id}.toml")).collect());
}

#[tokio::test]
async fn every_built_in_profile_says_where_its_fields_are_from_and_makes_a_valid_config() {
    let mut wrong = Vec::new();
    for id in built_in().ids().await.unwrap() {
        let profile = match built_in().find(id.as_str()).await {
            Ok(profile) => profile,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let About { verified, unconfirmed, documentation, read_on, app_url, redirect_url_field, .. } = &profile.about;
        let is_dated = !documentation.is_empty() && read_on.is_some();
        let is_honest = (*verified == Some(Verified::Documentation)) == unconfirmed.is_empty();
        if !(is_dated && is_honest && app_url.is_some() && redirect_url_field.is_some()) {
            wrong.push(format!("{id} lacks a field for people"));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

/// The comments of these profiles say why nothing names the account.
const WITHOUT_IDENTITY: [&str; 3] = ["pipedrive", "servicenow", "ticktick"];

#[tokio::test]
async fn a_login_with_the_defaults_of_a_built_in_profile_says_whose_account_it_is() {
    let mut wrong = Vec::new();
    for id in built_in().ids().await.unwrap() {
        let config = built_in().find(id.as_str()).await.unwrap().config;
        let is_exception = WITHOUT_IDENTITY.contains(&id.as_str());
        if !config.contains_key("scopes") || config.contains_key("identity") == is_exception {
            wrong.push(id);
        }
    }
    assert_eq!(wrong, Vec::<Integration>::new());
}

/// Without a scope of the product, the login would reach nothing of it.
#[tokio::test]
async fn the_profile_of_one_product_asks_for_more_than_the_profile_that_it_extends() {
    // Its scopes have the customer's host in them; `setup` says which to add.
    const EXCEPTION: &str = "dynamics-365";
    let mut same = Vec::new();
    for id in built_in().ids().await.unwrap() {
        let Profile { config, chain, .. } = built_in().find(id.as_str()).await.unwrap();
        for parent in chain.iter().filter(|link| **link != id) {
            let parent = built_in().find(parent.as_str()).await.unwrap();
            if parent.config["scopes"] == config["scopes"] {
                same.push(id.as_str().to_owned());
            }
        }
    }
    assert_eq!(same, [EXCEPTION]);
}

#[tokio::test]
async fn a_config_needs_the_client_and_the_redirect_url_only() {
    let body = json!({"provider": "github", "client_id": "id", "client_secret": "s", "redirect_url": "https://hub.example/cb"});
    let body = built_in().apply(body, &id("mine")).await.unwrap();
    let config = parse_value(body, &id("mine"), crate::integration::UrlRules::default()).unwrap();
    assert_eq!((config.integration_id.as_str(), config.name.as_str()), ("mine", "GitHub"));
}

#[tokio::test]
async fn fields_for_revocations_count_with_their_url_only() {
    let put = async |more: Value| {
        let mut body = json!({"provider": "github", "client_id": "id", "client_secret": "s", "redirect_url": "https://hub.example/cb"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = built_in().apply(body, &id("mine")).await.unwrap();
        parse_value(body, &id("mine"), UrlRules::default()).map(|config| (config.revocation_method, config.revoke_with))
    };
    let url = "https://api.github.example/applications/id/grant";
    assert_eq!(put(json!({})).await, Ok((Method::Post, None)));
    assert_eq!(put(json!({ "revocation_url": null })).await, Ok((Method::Post, None)));
    assert_eq!(put(json!({ "revocation_url": url })).await, Ok((Method::Delete, Some(TokenKind::AccessToken))));
    let error = put(json!({ "revoke_with": "refresh_token" })).await.unwrap_err().to_string();
    assert_eq!(error, "revoke_with must be absent without `revocation_url`: no revocation is sent");
    // They are checked all the same.
    let text = "name = \"Mine\"\nauth_url = \"https://acme.example/a\"\ntoken_url = \"https://acme.example/t\"\n";
    let parse = async |more: &str| built_in().parse(&id("mine"), &format!("{text}{more}")).await.map(drop);
    assert!(parse("revocation_method = \"DELETE\"").await.is_ok());
    assert!(parse("revocation_method = \"PUT\"").await.unwrap_err().to_string().contains("revocation_method"));
}

#[tokio::test]
async fn fields_of_the_config_win_and_those_for_people_stay_out() {
    let body =
        json!({"provider": "google", "name": "Mine", "scopes": "a", "integration_id": "other", "auth_params": {}});
    let merged = built_in().apply(body.clone(), &id("mine")).await.unwrap();
    for (field, value) in body.as_object().unwrap() {
        assert_eq!(&merged[field], value, "{field}");
    }
    assert_eq!(merged["token_url"], "https://oauth2.googleapis.com/token");
    for field in
        ["verified", "unconfirmed", "documentation", "read_on", "app_url", "redirect_url_field", "common_scopes"]
    {
        assert_eq!(merged.get(field), None, "{field}");
    }
    assert_eq!(built_in().apply(json!({"name": "x"}), &id("mine")).await.unwrap(), json!({"name": "x"}));
}

#[tokio::test]
async fn a_config_sets_the_variables_that_its_profile_cannot_know() {
    let put = async |more: Value| {
        let mut body = json!({"provider": "keycloak", "client_id": "id", "client_secret": "s", "redirect_url": "https://hub.example/cb"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = built_in().apply(body, &id("mine")).await.map_err(|error| error.to_string())?;
        parse_value(body, &id("mine"), UrlRules::default()).map_err(|error| error.to_string())
    };
    let error = put(json!({})).await.unwrap_err();
    let parts = [
        "variables must be in the config: the profile keycloak cannot know host (Host of your Keycloak server",
        "realm (Name of the realm)",
        "{\"host\": {\"values\": [\"…\"], \"default\": \"…\"}, …}",
    ];
    assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    let own = |value: &str| json!({ "values": [value], "default": value });
    let config = put(json!({ "variables": { "host": own("id.acme.example"), "realm": own("main") } })).await.unwrap();
    let url = config.token_endpoint(&std::collections::BTreeMap::new()).unwrap();
    assert_eq!(url.as_str(), "https://id.acme.example/realms/main/protocol/openid-connect/token");
    let placeholder = json!({ "variables": { "host": own("<host>"), "realm": own("main") } });
    assert!(put(placeholder).await.unwrap_err().starts_with("auth_url must be "));
    let (known, unknown) = (
        format!("ask = {{ v = \"V\" }}\n{ACME}[variables.v]\nvalues = [\"a\"]\nmetadata = true"),
        format!("ask = {{ v = \"V\" }}\n{ACME}"),
    );
    assert!(built_in().parse(&id("mine"), &known).await.is_ok());
    let error = built_in().parse(&id("mine"), &unknown).await.unwrap_err().to_string();
    assert_eq!(error, "ask must be a table of variables of the profile, each with a string");
}

#[tokio::test]
async fn null_removes_a_field_of_the_profile() {
    let put = async |more: Value| {
        let mut body = json!({"provider": "google", "client_id": "id", "client_secret": "s", "redirect_url": "https://hub.example/cb"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let body = built_in().apply(body, &id("mine")).await.unwrap();
        parse_value(body, &id("mine"), UrlRules::default())
    };
    let whole = put(json!({})).await.unwrap();
    assert!(whole.identity.is_some() && whole.revocation_url.is_some() && !whole.auth_params.is_empty());
    let null = json!({"identity": null, "revocation_url": null, "auth_params": null, "scopes": null, "pkce": null});
    let bare = put(null).await.unwrap();
    assert!(bare.identity.is_none() && bare.revocation_url.is_none() && bare.auth_params.is_empty());
    assert_eq!((bare.scopes.as_str(), &bare.token_url), ("", &whole.token_url));
    for field in ["name", "token_url", "client_id"] {
        let error = put(json!({ field: null })).await.unwrap_err().to_string();
        assert_eq!(error, format!("missing field: {field}"), "a config does not work without it");
    }
}

#[tokio::test]
async fn a_provider_that_is_no_text_is_the_field_that_an_error_names() {
    for provider in [json!(5), json!(["google"]), json!({}), json!(true), json!("")] {
        let error = built_in().apply(json!({ "provider": provider }), &id("mine")).await.unwrap_err().to_string();
        assert!(error.starts_with("provider must be the id of a profile; "), "{provider}: {error}");
    }
    assert!(built_in().apply(json!({"provider": null}), &id("mine")).await.is_ok(), "null is absent");
}

#[tokio::test]
async fn unknown_profiles_are_refused_and_no_id_leads_out_of_the_folder() {
    let folder = folder(&[("acme.toml", "name = \"Acme\"")]);
    std::fs::create_dir(folder.path().join("below")).unwrap();
    let below = folder.path().join("below");
    for unknown in ["canary", "", "../acme", "..", ".", "/etc/passwd", "acme.toml", "a\0", "acme/"] {
        for profiles in [built_in(), Profiles { folder: Some(&below), ..Profiles::default() }] {
            let error = profiles.find(unknown).await.unwrap_err();
            assert!(matches!(error, ProfileError::Unknown), "{unknown}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
    }
}

const ACME: &str = r#"
    name = "Acme"
    auth_url = "https://acme.example/auth"
    token_url = "https://acme.example/token"
    auth_params = { access_type = "offline", prompt = "consent" }
    [common_scopes]
    read = "Read"
"#;

#[tokio::test]
async fn a_child_names_only_what_differs_and_objects_are_merged_by_key() {
    let child = "extends = \"acme\"\nname = \"Child\"\nauth_params = { prompt = \"login\", hd = \"x\" }\nverified = \"unconfirmed\"\nunconfirmed = [\"auth_params.hd\"]";
    let folder = folder(&[("acme.toml", ACME), ("child.toml", child), ("grandchild.toml", "extends = \"child\"")]);
    let profile = own(&folder).find("grandchild").await.unwrap();
    assert_eq!(profile.config["auth_params"], json!({"access_type": "offline", "prompt": "login", "hd": "x"}));
    assert_eq!(
        (profile.name.as_str(), profile.config["auth_url"].as_str()),
        ("Child", Some("https://acme.example/auth"))
    );
    assert_eq!(profile.about.common_scopes.keys().collect::<Vec<_>>(), ["read"]);
    assert_eq!(profile.about.unconfirmed, ["auth_params.hd"]);
}

#[tokio::test]
async fn a_file_of_the_folder_counts_from_the_next_read_and_may_extend_the_built_in_one_of_its_id() {
    let folder =
        folder(&[("google.toml", "extends = \"google\"\nname = \"Ours\""), ("notes.txt", ""), ("a.b.toml", "")]);
    let profiles = own(&folder);
    let profile = profiles.find("google").await.unwrap();
    assert_eq!(
        (profile.name.as_str(), profile.config["token_url"].as_str()),
        ("Ours", Some("https://oauth2.googleapis.com/token"))
    );
    std::fs::write(folder.path().join("acme.toml"), ACME).unwrap();
    assert_eq!(profiles.find("acme").await.unwrap().name, "Acme");
    let expected: BTreeSet<_> = built_in().ids().await.unwrap().into_iter().chain([id("acme")]).collect();
    assert_eq!(profiles.ids().await.unwrap(), expected);
}

#[tokio::test]
async fn a_broken_file_is_an_error_of_its_profile_only() {
    #[track_caller]
    fn check(id: &str, error: &ProfileError, expected: &str) {
        let error = error.to_string();
        assert!(
            error.starts_with(&format!("the profile {id} cannot be used: ")) && error.contains(expected),
            "{error}"
        );
    }
    let acme_with = |line: &str| format!("{line}\n{ACME}");
    let large = format!("{ACME}\n# {}", "x".repeat(64 * 1024));
    let secret = format!("client_secret = \"s\"\n{ACME}");
    let files = [
        ("broken", "name = \"x\"\nname =", "line 2 is not valid TOML"),
        ("itself", &acme_with("extends = \"itself\""), "extend each other in a circle: itself → itself"),
        ("one", "extends = \"two\"", "extend each other in a circle: one → two → one"),
        ("two", "extends = \"one\"", "extend each other in a circle: two → one → two"),
        ("long-4", "extends = \"long-3\"", "it extends too many profiles: long-4 → long-3 → long-2 → long-1 → acme"),
        ("number", &acme_with("extends = 5"), "extends must be the id of a profile"),
        ("list", &acme_with("extends = [\"acme\"]"), "extends must be the id of a profile"),
        ("away", &acme_with("extends = \"../acme\""), "extends must be the id of a profile"),
        ("orphan", "extends = \"nothing\"", "extends names nothing, and no profile has that id"),
        ("script", &acme_with("app_url = \"javascript:alert(1)\""), "app_url must be a URL with https or http"),
        ("user", &acme_with("app_url = \"https://acme.example@evil.example/\""), "app_url must be a URL with https"),
        ("data", &acme_with("documentation = \"data:text/html,x\""), "documentation must be a URL with https or http"),
        ("pages", &acme_with("documentation = [\"https://a.example\", \"file:///etc\"]"), "documentation must be"),
        ("clear", &acme_with("redirect_url_field = \"\\u001b[2J\""), "redirect_url_field must be without control"),
        ("scope", &format!("{ACME}\"a\\u009b\" = \"b\""), "common_scopes must be without control characters"),
        ("turned", &acme_with("unconfirmed = [\"\\u202e\"]"), "unconfirmed must be without control characters"),
        ("nan", &acme_with("timeout = nan"), "timeout must not hold `nan` or `inf`"),
        ("inf", &format!("{ACME}\n[refresh_token_lifetime]\nseconds = -inf"), "refresh_token_lifetime must not hold"),
        ("unknown", &acme_with("\"\\u001b[31m\" = 1"), "unknown field: \\u001b[31m"),
        ("large", large.as_str(), "64 KiB"),
        ("secret", secret.as_str(), "client_secret belongs to the config of one app"),
        ("word", &format!("verified = \"maybe\"\n{ACME}"), "verified must be documentation or unconfirmed"),
        ("misspelt", &format!("aut_url = \"x\"\n{ACME}"), "unknown field: aut_url"),
        ("nameless", &ACME.replace("name =", "issuer ="), "missing field: name"),
        ("insecure", &ACME.replace("https", "http"), "auth_url must be a URL with https"),
    ];
    let chain = [("long-1.toml", "extends = \"acme\""), ("long-2.toml", "extends = \"long-1\"")];
    let folder = folder(&[chain[0], chain[1], ("long-3.toml", "extends = \"long-2\""), ("acme.toml", ACME)]);
    for (id, text, _) in &files {
        std::fs::write(folder.path().join(format!("{id}.toml")), text).unwrap();
    }
    let profiles = own(&folder);
    for (id, _, expected) in &files {
        check(id, &profiles.find(id).await.unwrap_err(), expected);
    }
    std::fs::write(folder.path().join("bytes.toml"), b"name = \"\xff\"").unwrap();
    check("bytes", &profiles.find("bytes").await.unwrap_err(), "not plain text");
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("endless.toml")).unwrap();
    check("endless", &profiles.find("endless").await.unwrap_err(), "no regular file");
    for id in ["acme", "long-3", "google"] {
        assert!(profiles.find(id).await.is_ok(), "{id}");
    }
}

#[tokio::test]
async fn doubts_are_about_fields_that_are_there_and_an_error_in_a_parent_names_it() {
    let acme_with = |line: &str| format!("{line}\n{ACME}");
    let open = |names: &str| acme_with(&format!("verified = \"unconfirmed\"\nunconfirmed = [{names}]"));
    let files = [
        ("doubtful", open("\"pkec\""), "unconfirmed lists pkec, which the profile does not set"),
        ("absent", open("\"pkce\""), "unconfirmed lists pkce, which the profile does not set"),
        ("part", open("\"auth_params.hd\""), "unconfirmed lists auth_params.hd, which"),
        ("page", open("\"app_url\""), "unconfirmed lists app_url, which"),
        ("sure", acme_with("verified = \"unconfirmed\""), "must list the open fields in `unconfirmed`"),
        ("both", acme_with("verified = \"documentation\"\nunconfirmed = [\"name\"]"), "verified must be unconfirmed"),
        ("silent", acme_with("unconfirmed = [\"name\"]"), "verified must be unconfirmed beside `unconfirmed`"),
        ("child-1", "extends = \"insecure\"".to_owned(), "(in the profile insecure, which it extends)"),
        ("child-2", "extends = \"child-1\"\nname = \"x\"".to_owned(), "(in the profile insecure, which it extends)"),
        ("child-3", "extends = \"broken\"".to_owned(), "line 2 is not valid TOML"),
        ("child-4", "extends = \"broken\"".to_owned(), "(in the profile broken, which it extends)"),
        (
            "child-5",
            "extends = \"orphan\"".to_owned(),
            "no profile has that id (in the profile orphan, which it extends)",
        ),
        (
            "child-6",
            "extends = \"params\"\nauth_params = { a = \"b\" }".to_owned(),
            "auth_params.code must be absent: tokenbus",
        ),
        (
            "child-7",
            "extends = \"params\"\nauth_params = { a = \"b\" }".to_owned(),
            "(in the profile params, which it extends)",
        ),
        ("params", ACME.replace("access_type", "code"), "auth_params.code must be absent: tokenbus"),
        ("broken", "name = \"x\"\nname =".to_owned(), "line 2 is not valid TOML"),
        ("orphan", "extends = \"nothing\"".to_owned(), "extends names nothing, and no profile has that id"),
        ("insecure", ACME.replace("https", "http"), "auth_url must be a URL with https"),
    ];
    let folder = folder(&[]);
    for (id, text, _) in &files {
        std::fs::write(folder.path().join(format!("{id}.toml")), text).unwrap();
    }
    let profiles = own(&folder);
    for (id, _, expected) in &files {
        let error = profiles.find(id).await.unwrap_err().to_string();
        assert!(error.contains(expected), "{id}: {error}");
    }
    let text = "extends = \"params\"\nauth_params = { code = \"\" }\nname = \"Own\"";
    std::fs::write(folder.path().join("own.toml"), text).unwrap();
    let error = profiles.find("own").await.unwrap_err().to_string();
    assert!(error.ends_with("tokenbus sets this parameter"), "the child's own field: {error}");
}

#[tokio::test]
async fn built_in_profiles_are_parsed_once_and_files_of_the_folder_still_count() {
    let (gmail, google) = (id("gmail"), id("google"));
    let first = built_in().purely_built_in(&gmail).await.unwrap().unwrap();
    assert_eq!(first.chain, [gmail.clone(), google]);
    let folder = folder(&[("acme.toml", ACME)]);
    let profiles = own(&folder);
    assert!(std::ptr::eq(first, profiles.purely_built_in(&gmail).await.unwrap().unwrap()), "parsed once");
    assert!(!profiles.find("gmail").await.unwrap().is_operators_own);
    // A profile that it extends.
    let text = "extends = \"google\"\ntoken_url = \"https://own.example/token\"";
    std::fs::write(folder.path().join("google.toml"), text).unwrap();
    let changed = profiles.find("gmail").await.unwrap();
    assert_eq!(
        (changed.config["token_url"].as_str(), changed.is_operators_own),
        (Some("https://own.example/token"), true)
    );
    std::fs::remove_file(folder.path().join("google.toml")).unwrap();
    assert_eq!(profiles.find("gmail").await.unwrap().config["token_url"], first.config["token_url"]);
}
