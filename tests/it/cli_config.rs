//! `tokenbus config`, as the NATS user `admin` runs it with an API key.

use serde_json::json;

use crate::cli_connections::tokenbus;
use crate::provider::Provider;
use crate::support::tokenbus::Tokenbus;
use crate::world::World;

async fn config(tokenbus_: &Tokenbus, key: &str, arguments: &[&str]) -> crate::cli_connections::CommandOutput {
    tokenbus(&tokenbus_.nats, "admin", &[&["config", "--api-key", key], arguments].concat()).await
}

#[tokio::test]
async fn configs_are_put_shown_and_deleted_from_the_command_line() {
    let world = World { tokenbus: Tokenbus::start(&[]).await, provider: Provider::generous().await };
    let bus = &world.tokenbus;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("odd.json");
    std::fs::write(&file, world.config().to_string()).unwrap();
    let file = file.to_str().unwrap();

    assert_eq!(config(bus, &bus.key, &["list"]).await.out, "no configs\n");
    assert_eq!(config(bus, &format!("{}\r\n", bus.key), &["list"]).await.out, "no configs\n");
    config(bus, &format!("{}\r\nodd", bus.key), &["list"]).await.fails(1, "a line break");
    config(bus, &bus.key, &["put", file]).await.fails(1, "lacks the scope `configs:write`");
    let put = config(bus, &bus.admin_key, &["put", file]).await;
    assert_eq!((put.code, put.out.as_str()), (Some(0), "config of odd stored\n"), "{}", put.errors);
    assert_eq!(world.connect("one").await.0, 200, "it works");

    let get = config(bus, &bus.key, &["get", "odd", "--json"]).await;
    assert!(!get.out.contains("canary"), "{}", get.out);
    assert_eq!((&get.json()[0]["name"], &get.json()[0]["scopes"]), (&json!("Odd"), &json!("read,write")));
    assert_eq!(get.json()[0].get("settings"), None, "only admins see URLs");
    let get = config(bus, &bus.admin_key, &["get", "odd"]).await.out;
    assert!(!get.contains("canary"), "{get}");
    for (field, value) in [("token_url", world.provider.url.as_str()), ("client_secret", "set"), ("pkce", "S256")] {
        assert!(get.lines().any(|line| line.trim_start().starts_with(field) && line.contains(value)), "{field}: {get}");
    }
    let list = config(bus, &bus.key, &["list"]).await;
    let lines: Vec<Vec<&str>> = list.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines, [["INTEGRATION", "NAME", "SCOPES"], ["odd", "Odd", "read,write"]]);

    config(bus, &bus.key, &["delete", "odd"]).await.fails(1, "lacks the scope `configs:write`");
    let deleted = config(bus, &bus.admin_key, &["delete", "odd"]).await;
    assert_eq!((deleted.code, deleted.out.as_str()), (Some(0), "config of odd deleted\n"), "{}", deleted.errors);
    config(bus, &bus.key, &["get", "odd"]).await.fails(1, "no config with that");
    config(bus, &bus.admin_key, &["delete", "odd"]).await.fails(1, "no config with that");
}

#[tokio::test]
async fn invalid_configs_and_keys_are_refused_with_helpful_messages() {
    let world = World { tokenbus: Tokenbus::start(&[]).await, provider: Provider::generous().await };
    let bus = &world.tokenbus;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.json");
    let path = file.to_str().unwrap();
    config(bus, &bus.admin_key, &["put", path]).await.fails(1, "No such file");
    std::fs::write(&file, "{}").unwrap();
    config(bus, &bus.admin_key, &["put", path]).await.fails(1, "integration_id");
    for (text, problem) in [
        (r#"{"provider": 5}"#, "provider must be a string"),
        (r#"{"integration_id": "a.b", "provider": "slack"}"#, "integration_id must be a string"),
        (r#"{"integration_id": null, "provider": "canary"}"#, "provider must be the id of a profile"),
    ] {
        std::fs::write(&file, text).unwrap();
        config(bus, &bus.admin_key, &["put", path]).await.fails(1, problem);
    }
    config(bus, &bus.admin_key, &["put", "/dev/zero"]).await.fails(1, "more than 64 KiB");
    let mut wrong = world.config();
    wrong["client_secret"] = json!(7);
    std::fs::write(&file, wrong.to_string()).unwrap();
    config(bus, &bus.admin_key, &["put", path]).await.fails(1, "client_secret");
    config(bus, "tb_wrong", &["list"]).await.fails(1, "not valid");
    tokenbus(&bus.nats, "admin", &["config", "list"]).await.fails(1, "missing API key");
    tokenbus(&bus.nats, "demo", &["config", "--api-key", &bus.key, "list"]).await.fails(1, "no worker answers");
    tokenbus(&bus.nats, "operator", &["config", "--api-key", &bus.key, "list"])
        .await
        .fails(1, "a permission that `admin` has");
}
