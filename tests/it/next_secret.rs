//! A client whose secret was replaced: every request to the provider is tried with the next secret.

use reqwest::Method;
use serde_json::json;

use crate::bus::Bus;
use crate::provider::{Provider, Received, Scripted};
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

const OLD: &str = "canary-client-secret";
const NEW: &str = "canary-newer-secret";

/// A world whose provider accepts only the newer of two secrets.
async fn world(refusal: &Scripted) -> World {
    let refusal = refusal.clone();
    let script = move |number, received: &Received| match received.form()["client_secret"].as_str() {
        NEW if received.path == "/revoke" => Scripted::json(200, &json!({})),
        NEW => Scripted::tokens(number),
        _ => refusal.clone(),
    };
    let world = World::with_settings(Provider::start(script).await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let mut config = world.config();
    config["client_secrets"] = json!([NEW]);
    config["revocation_url"] = json!(format!("{}/revoke", world.provider.url));
    world.tokenbus.configure(&config).await;
    world
}

/// The path and secret of each request since `from`.
fn sent(world: &World, from: usize) -> Vec<(String, String)> {
    let received = world.provider.received();
    received.iter().skip(from).map(|it| (it.path.clone(), it.form()["client_secret"].clone())).collect()
}

#[tokio::test]
async fn c3_logins_refreshes_and_revocations_try_the_next_secret() {
    let both = |path: &str| [OLD, NEW].map(|secret| (path.to_owned(), secret.to_owned()));
    for refusal in [
        Scripted::json(401, &json!({"error": "invalid_client"})),
        Scripted::json(400, &json!({"error": "unauthorized_client"})),
        Scripted::json(200, &json!({"ok": false, "error": "bad_client_secret"})),
        Scripted::new(401, "text/plain", "Unauthorized"),
    ] {
        let world = world(&refusal).await;
        let (status, body) = world.connect("one").await;
        assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-1")), "{refusal:?} {body}");
        assert_eq!(sent(&world, 0), both("/token"), "{refusal:?}");
        let path = format!("{INTEGRATION}/oauth-refresh-token/one");
        let (status, body) = world.tokenbus.call(Method::GET, &path).await;
        assert_eq!((status.as_u16(), &body["access_token"]), (200, &json!("at-3")), "{refusal:?} {body}");
        assert_eq!(sent(&world, 2), both("/token"), "{refusal:?}");
        let path = format!("{INTEGRATION}/oauth-connections/one");
        assert_eq!(world.tokenbus.call(Method::DELETE, &path).await.0, 200);
        let bus = Bus::of(&world.tokenbus.nats).await;
        eventually("the deletion has its event", async || bus.events("revoked").await.len() == 1).await;
        assert_eq!(bus.events("revoked").await[0]["reason"], "revoked_at_provider", "{refusal:?}");
        assert_eq!(sent(&world, 4), [both("/revoke"), both("/revoke")].concat(), "{refusal:?}");
    }
}
