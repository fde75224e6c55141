//! `tokenbus providers`, which needs no bus, and `tokenbus config new`.

use serde_json::json;
use tempfile::TempDir;

use crate::cli_connections::{CommandOutput, tokenbus};
use crate::http_providers::write_profile;
use crate::provider::Provider;
use crate::support::nats::Nats;
use crate::world::{World, parameter};

async fn providers(nats: &Nats, folder: &TempDir, arguments: &[&str]) -> CommandOutput {
    let settings = folder.path().join("settings.toml.txt");
    std::fs::write(&settings, format!("[oauth]\nproviders_dir = \"{}\"\n", folder.path().display())).expect("a file");
    let settings = settings.to_str().expect("a path of text");
    tokenbus(nats, "admin", &[&["--config", settings, "providers"], arguments].concat()).await
}

#[tokio::test]
async fn profiles_are_listed_searched_and_shown() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().expect("a folder"));
    write_profile(&folder, "https://acme.example", "read");
    std::fs::write(folder.path().join("broken.toml"), "name = ").expect("a file");

    let list = providers(&nats, &folder, &["list"]).await;
    let lines: Vec<Vec<&str>> = list.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((list.code, &lines[0]), (Some(0), &vec!["PROVIDER", "NAME", "VERIFIED"]), "{}", list.errors);
    assert!(lines.contains(&vec!["acme", "Acme"]) && lines.iter().any(|line| line[0] == "slack"), "{}", list.out);
    assert!(list.errors.contains("the profile broken cannot be used: line 1 is not valid TOML"), "{}", list.errors);

    let found = providers(&nats, &folder, &["list", "--search", "ACM", "--json"]).await;
    assert_eq!(found.json(), [json!({ "id": "acme", "name": "Acme" })]);
    assert!(!found.errors.contains("not valid TOML"), "of a file that does not match: {}", found.errors);
    assert!(found.errors.contains("other files of `oauth.providers_dir` that cannot be used: 1;"), "{}", found.errors);
    let found = providers(&nats, &folder, &["list", "--search", "broken"]).await;
    assert!(found.errors.contains("line 1 is not valid TOML"), "{}", found.errors);
    assert_eq!(providers(&nats, &folder, &["list", "--search", "no such"]).await.out, "no profile matches\n");

    let shown = providers(&nats, &folder, &["show", "acme", "--json"]).await.json();
    assert_eq!(
        (&shown[0]["id"], &shown[0]["config"]["auth_url"]),
        (&json!("acme"), &json!("https://acme.example/authorize"))
    );
    let table = providers(&nats, &folder, &["show", "acme"]).await.out;
    for shown in ["https://acme.example/apps", "config: auth_url", "https://acme.example/authorize"] {
        assert!(table.contains(shown), "{table}");
    }
    providers(&nats, &folder, &["show", "nothing"]).await.fails(1, "tokenbus providers list");
    providers(&nats, &folder, &["show", "broken"]).await.fails(1, "the profile broken cannot be used");
}

#[tokio::test]
async fn a_config_is_made_from_a_profile_with_client_id_and_secret_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("a path of text").to_owned();
    let world = World::with_settings(Provider::generous().await, &[("OAUTH__PROVIDERS_DIR", &path)]).await;
    let tokenbus_ = &world.tokenbus;
    write_profile(&folder, &world.provider.url, "read");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "canary-client-secret\n").expect("a file");
    let new = async |more: &[&str]| {
        let arguments = ["config", "--api-key", &tokenbus_.admin_key, "new"];
        tokenbus(&tokenbus_.nats, "admin", &[&arguments, more].concat()).await
    };

    new(&["acme"]).await.fails(1, "pass --client-id and --client-secret-file and --redirect-url");
    new(&["nothing", "--client-id", "client"]).await.fails(1, "`tokenbus providers list --search TEXT`");
    new(&["../x"]).await.fails(2, "provider must be the id of a profile");
    for (text, problem) in [("\n", "is empty"), ("canary\ncanary", "more than one line")] {
        let wrong = folder.path().join("wrong");
        std::fs::write(&wrong, text).expect("a file");
        let refused = new(&["acme", "--client-secret-file", wrong.to_str().expect("a path of text")]).await;
        refused.fails(1, problem);
        assert!(!refused.errors.contains("canary"), "{}", refused.errors);
    }
    let (callback, secret) = (tokenbus_.callback(), secret.to_str().expect("a path of text"));
    let given = ["--client-id", "client", "--client-secret-file", secret, "--redirect-url", &callback];
    let stored = new(&[&["acme"], given.as_slice()].concat()).await;
    assert_eq!((stored.code, stored.out.as_str()), (Some(0), "config of acme stored\n"), "{}", stored.errors);
    let more = ["acme", "--integration", "second", "--name", "Second", "--scopes", "read,write"];
    assert_eq!(new(&[&more, given.as_slice()].concat()).await.out, "config of second stored\n");

    for (integration, scope) in [("acme", "read"), ("second", "read write")] {
        let url = tokenbus_.login(integration, "one").await;
        assert_eq!(parameter(&url, "scope"), scope);
        let state = parameter(&url, "state");
        let callback = world.callback(&[("code", "canary-code"), ("state", &state)]);
        assert_eq!(tokenbus_.arrive(&callback).await.0, 200, "it works");
    }
}

#[tokio::test]
async fn a_file_is_checked_and_its_requests_are_printed() {
    let (nats, folder) = (Nats::start().await, tempfile::tempdir().expect("a folder"));
    let file = folder.path().join("acme.toml");
    let text = "name = \"Acme\"\nscopes = \"read,write\"\nauth_url = \"https://${tenant}.acme.example/authorize\"\n\
        token_url = \"https://${tenant}.acme.example/token\"\nrevocation_url = \"https://acme.example/revoke\"\n\
        token_auth_method = \"client_secret_basic\"\nscope_separator = \",\"\n\
        identity = { url = \"https://acme.example/me\", id = \"id\" }\n[variables.tenant]\npattern = \"[a-z]+\"\n\
        [common_scopes]\nread = \"Read\"\nwrite = \"Write\"\n";
    std::fs::write(&file, text).expect("a file");
    let path = file.to_str().expect("a path of text");
    let valid = providers(&nats, &folder, &["check", path]).await;
    assert_eq!(valid.code, Some(0), "{}", valid.errors);
    assert!(
        valid.out.contains("acme.toml is valid. To see its requests, pass `--var tenant=<value>`"),
        "{}",
        valid.out
    );
    let valid = providers(&nats, &folder, &["check", path, "--json"]).await;
    assert_eq!((valid.code, valid.out.as_str()), (Some(0), ""));
    assert!(valid.errors.contains("the value matches `[a-z]+`"), "{}", valid.errors);
    providers(&nats, &folder, &["check", path, "--var", "tenant"]).await.fails(1, "must be `<name>=<value>`");

    let requests = providers(&nats, &folder, &["check", path, "--var", "tenant=one", "--json"]).await.json();
    let urls: Vec<&str> = requests.iter().map(|it| it["url"].as_str().expect("a URL")).collect();
    assert!(urls[0].starts_with("https://one.acme.example/authorize?") && urls[0].contains("scope=read%2Cwrite"));
    assert_eq!(
        urls[1..],
        [
            "https://one.acme.example/token",
            "https://acme.example/me",
            "https://one.acme.example/token",
            "https://acme.example/revoke"
        ]
    );
    assert_eq!(requests[1]["headers"]["authorization"], "Basic Y2xpZW50LWlkOmNsaWVudC1zZWNyZXQ=");
    assert_eq!(requests[2]["headers"]["authorization"], "Bearer ACCESS-TOKEN");
    let body = requests[3]["body"].as_str().expect("a body");
    assert!(body.contains("grant_type=refresh_token") && body.contains("refresh_token=REFRESH-TOKEN"), "{body}");
    let shown = providers(&nats, &folder, &["check", path, "--var", "tenant=one"]).await.out;
    for line in ["acme.toml is valid", "tokens for a code: POST https://one.acme.example/token", "  code=CODE"] {
        assert!(shown.contains(line), "{shown}");
    }

    std::fs::write(&file, text.replace("scopes = \"read,write\"\n", "")).expect("a file");
    let requests = providers(&nats, &folder, &["check", path, "--var", "tenant=one", "--json"]).await.json();
    let url = requests[0]["url"].as_str().expect("a URL");
    assert!(!url.contains("scope"), "the profile has none: {url}");

    std::fs::write(&file, text.replace("auth_url", "aut_url")).expect("a file");
    providers(&nats, &folder, &["check", path]).await.fails(1, "unknown field: aut_url");
    providers(&nats, &folder, &["check", "/nothing.toml"]).await.fails(1, "cannot read /nothing.toml");
    providers(&nats, &folder, &["check", "/dev/zero"]).await.fails(1, "must be named `<id>.toml`");
    for name in ["a.b.toml", "acme.txt", "oauth-x.toml", "-x.toml", "acme"] {
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file");
        let path = path.to_str().expect("a path of text");
        providers(&nats, &folder, &["check", path]).await.fails(1, "must be named `<id>.toml`");
    }
    let endless = folder.path().join("endless.toml");
    std::os::unix::fs::symlink("/dev/zero", &endless).expect("a link");
    let endless = endless.to_str().expect("a path of text");
    providers(&nats, &folder, &["check", endless]).await.fails(1, "no regular file");
    std::fs::write(&file, format!("verified = \"unconfirmed\"\nunconfirmed = [\"pkec\"]\n{text}")).expect("a file");
    providers(&nats, &folder, &["check", path]).await.fails(1, "unconfirmed lists pkec");
}
