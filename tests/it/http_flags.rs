//! Parameters that are `true` or `false`: lists without tokens, and deletions that leave the grant alone.

use reqwest::Method;

use crate::ask::{get, send};
use crate::bus::Bus;
use crate::provider::{Provider, Scripted};
use crate::world::World;

#[tokio::test]
async fn a_list_without_tokens_has_everything_else() {
    let world = World::with(Provider::generous().await).await;
    assert_eq!(world.connect("one").await.0, 200);
    let (tokenbus, key) = (&world.tokenbus, &world.tokenbus.key);
    for path in ["oauth-connections", "odd/oauth-connections"] {
        let whole = get(tokenbus, key, &format!("{path}?tokens=true")).await.json();
        assert_eq!(whole, get(tokenbus, key, path).await.json());
        assert_eq!(
            (&whole["results"][0]["access_token"], &whole["results"][0]["refresh_token"]),
            (&"at-0".into(), &"rt-0".into())
        );
        let answer = get(tokenbus, key, &format!("{path}?tokens=false")).await;
        assert!(!answer.text.contains("at-0") && !answer.text.contains("rt-0"), "{}", answer.text);
        let bare = answer.json();
        for field in ["subject", "sequence", "status", "expiry"] {
            assert_eq!(bare["results"][0][field], whole["results"][0][field], "{field}");
        }
    }
    for wrong in ["", "0", "False", "yes"] {
        get(tokenbus, key, &format!("oauth-connections?tokens={wrong}")).await.assert_error(400, "true");
    }
}

#[tokio::test]
async fn a_deletion_can_leave_the_grant_alone() {
    let provider = Provider::start(|number, received| match received.path.as_str() {
        "/revoke" => Scripted::new(200, "text/plain", ""),
        _ => Scripted::tokens(number),
    });
    let world = World::with(provider.await).await;
    let mut config = world.config();
    config["revocation_url"] = format!("{}/revoke", world.provider.url).into();
    world.tokenbus.configure(&config).await;
    let (tokenbus, key) = (&world.tokenbus, &world.tokenbus.key);
    let asked = || world.provider.received().iter().filter(|received| received.path == "/revoke").count();
    for (query, asks) in [("?revoke=false", 0), ("?revoke=true", 2), ("", 4)] {
        assert_eq!(world.connect("one").await.0, 200);
        let path = format!("odd/oauth-connections/one{query}");
        assert_eq!(send(tokenbus, Method::DELETE, key, &path).await.status, 200);
        assert_eq!(asked(), asks, "{query}");
        assert_eq!(world.read("one").await.0, 404);
    }
    let events = Bus::of(&tokenbus.nats).await.events("revoked").await;
    let reasons: Vec<_> = events.iter().map(|event| event["reason"].as_str().unwrap_or_default()).collect();
    assert_eq!(reasons, ["grant_kept", "revoked_at_provider", "revoked_at_provider"]);
    let wrong = send(tokenbus, Method::DELETE, key, "odd/oauth-connections/one?revoke=no").await;
    wrong.assert_error(400, "revoke must be `true` or `false`");
}
