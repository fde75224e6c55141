//! Requests that a connection keeps from its login, after the config has changed.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::world::{INTEGRATION, World};

#[tokio::test]
async fn d8_a_request_that_the_config_no_longer_has_gets_no_secret_of_it() {
    let provider = Provider::start(|number, received| match received.path.as_str() {
        "/upgrade" | "/me" => Scripted::json(500, &json!({})),
        _ => Scripted::json(200, &json!({ "access_token": format!("at-{number}"), "expires_in": 3600 })),
    })
    .await;
    let world = World::with_settings(provider, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let plain = world.config();
    let mut config = plain.clone();
    config["token_headers"] = json!({ "X-Key": "old" });
    config["identity"] = json!({ "url": format!("{}/me", world.provider.url), "id": "id" });
    config["upgrade"] = json!({
        "url": format!("{}/upgrade", world.provider.url), "method": "POST",
        "params": { "s": "${client_secret}", "t": "${access_token}" },
    });
    world.tokenbus.configure(&config).await;
    assert_eq!(world.connect("w").await.0, StatusCode::OK);
    Bus::of(&world.tokenbus.nats).await.idle().await;
    let requests = |path: &str| {
        let all = world.provider.received().into_iter().filter(|received| received.path == path);
        all.collect::<Vec<_>>()
    };
    let (upgrades, facts) = (requests("/upgrade").len(), requests("/me").len());
    assert_eq!((upgrades, requests("/me")[0].headers.get("x-key").map(String::as_str)), (1, Some("old")));

    let mut changed = plain;
    changed["client_secret"] = json!("canary-new");
    changed["token_headers"] = json!({ "X-Key": "new" });
    world.tokenbus.configure(&changed).await;
    let refresh = format!("{INTEGRATION}/oauth-refresh-token/w");
    assert_ne!(world.tokenbus.call(Method::GET, &refresh).await.0, StatusCode::OK);
    assert_eq!(requests("/upgrade").len(), upgrades, "its only secret would be the new one");
    for request in requests("/me").iter().skip(facts) {
        assert_eq!(request.headers.get("x-key"), None);
    }
    // With the old requests in the config again, they get the present secrets.
    config["client_secret"] = json!("canary-new");
    world.tokenbus.configure(&config).await;
    world.tokenbus.call(Method::GET, &refresh).await;
    let last = requests("/upgrade").pop().expect("the upgrade is tried again");
    assert_eq!(last.form()["s"], "canary-new");
}
