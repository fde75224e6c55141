//! Quotas of each account.

use reqwest::StatusCode;

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker};
use crate::provider::Provider;
use crate::support::tokenbus::ACCOUNT;

async fn fleet(provider: &Provider, settings: &[(&str, &str)]) -> (Fleet, Worker) {
    let mut fleet = Fleet::start(&provider.url).await;
    for (name, value) in settings {
        let name = name.replace("OTHER", &fleet.other_account);
        fleet.settings.insert(format!("TOKENBUS_{name}"), (*value).to_owned());
    }
    fleet.configure().await
}

async fn status_of_login(fleet: &Fleet, key: &str, name: &str) -> (StatusCode, String) {
    let (status, body) = fleet.get_as(key, &format!("odd/oauth-login/{name}")).await;
    (status, body.to_string())
}

async fn connect(fleet: &Fleet, name: &str) {
    let state = fleet.login(name).await;
    assert_eq!(fleet.arrive(&state, "code").await.0, StatusCode::OK);
}

#[tokio::test]
async fn h5_an_account_with_all_its_connections_begins_no_login_of_a_new_one() {
    let provider = Provider::generous().await;
    let settings = [("LIMITS__CONNECTIONS", "2"), ("ACCOUNTS__OTHER__LIMITS__CONNECTIONS", "0")];
    let (fleet, _worker) = fleet(&provider, &settings).await;
    let [ours, theirs] = &fleet.admin_keys;
    for name in ["one", "two"] {
        connect(&fleet, name).await;
    }
    // The count is remembered for some seconds.
    crate::fleet::eventually("a third connection is refused", async || {
        let (status, body) = status_of_login(&fleet, ours, "three").await;
        status == StatusCode::TOO_MANY_REQUESTS && body.contains("limits.connections")
    })
    .await;
    assert_eq!(status_of_login(&fleet, ours, "two").await.0, StatusCode::OK);
    let (status, body) = status_of_login(&fleet, theirs, "one").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
}

#[tokio::test]
async fn h5_a_tenant_that_floods_the_audit_log_loses_events_of_logins_and_no_other_tenant_does() {
    const FLOOD: usize = 100;
    let provider = Provider::generous().await;
    let (fleet, _worker) = fleet(&provider, &[("LIMITS__EVENTS_PER_MINUTE", "20")]).await;
    let [ours, theirs] = &fleet.admin_keys;
    for number in 0..FLOOD {
        let (status, body) = status_of_login(&fleet, ours, &format!("flood{number}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    connect(&fleet, "one").await;
    assert_eq!(status_of_login(&fleet, theirs, "one").await.0, StatusCode::OK);

    let bus = Bus::of(&fleet.nats).await;
    let started = bus.events("login_started").await;
    let of = |account: &str| started.iter().filter(|event| event["account"] == account).count();
    assert!((20..FLOOD / 2).contains(&of(ACCOUNT)), "{} of {FLOOD} events were stored", of(ACCOUNT));
    assert_eq!(of(&fleet.other_account), 1);
    assert_eq!(bus.events("connected").await.len(), 1, "an event of a change was dropped");
}
