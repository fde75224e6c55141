//! Quotas of each account.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::bus::Bus;
use crate::fleet::{Fleet, Worker};
use crate::provider::Provider;
use crate::room::leave_room;
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
        let (status, body) = status_of_login(&fleet, ours, "new").await;
        status == StatusCode::TOO_MANY_REQUESTS && body.contains("limits.connections")
    })
    .await;
    assert_eq!(status_of_login(&fleet, ours, "two").await.0, StatusCode::OK);
    let (status, body) = status_of_login(&fleet, theirs, "one").await;
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS, "{body}");
}

async fn delete(fleet: &Fleet, name: &str) {
    let path = format!("hub/integrations/odd/oauth-connections/{name}");
    let (status, body) = fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn h5_an_account_that_connects_and_deletes_without_end_is_refused_and_no_other_account_notices() {
    let provider = Provider::generous().await;
    let settings = [("ACCOUNTS__OTHER__LIMITS__CONNECTIONS", "100"), ("LIMITS__CONNECTIONS", "1")];
    let (fleet, _worker) = fleet(&provider, &settings).await;
    let [ours, theirs] = &fleet.admin_keys;
    for number in 0..10 {
        // The count of connections is remembered for a moment.
        let name = format!("c{number}");
        crate::fleet::eventually("a login begins", async || {
            status_of_login(&fleet, ours, &name).await.0 == StatusCode::OK
        })
        .await;
        connect(&fleet, &name).await;
        delete(&fleet, &name).await;
    }
    // The count is remembered for some seconds.
    crate::fleet::eventually("a login under a new name is refused", async || {
        let (status, body) = status_of_login(&fleet, ours, "new").await;
        status == StatusCode::TOO_MANY_REQUESTS && body.contains("deleted connections")
    })
    .await;
    // A name that was deleted needs no room of its own.
    connect(&fleet, "c5").await;
    assert_eq!(status_of_login(&fleet, theirs, "one").await.0, StatusCode::OK);
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

#[tokio::test]
async fn h5_a_tenant_that_fills_its_quota_of_a_small_store_is_refused_and_no_other_tenant_notices() {
    const QUOTA: usize = 100;
    let provider = Provider::generous().await;
    let settings = [("LIMITS__CONNECTIONS", "100"), ("REFRESH__MIN_INTERVAL", "1ms")];
    let (fleet, worker) = fleet(&provider, &settings).await;
    let [ours, theirs] = &fleet.admin_keys;
    let login = async |key: &str, name: &str| {
        let (status, body) = fleet.get_as(key, &format!("odd/oauth-login/{name}")).await;
        (status, body.get("oauth_url").map(|_| crate::fleet::state_of(&body)))
    };
    let arrive =
        async |key: &str, state: &str| fleet.get_as(key, &format!("oauth-callback?code=code&state={state}")).await.0;
    let delete = async |key: &str, name: &str| {
        fleet
            .request(Method::DELETE, &format!("hub/integrations/odd/oauth-connections/{name}"), key, &json!({}))
            .await
            .0
    };
    let share = async |stream: &str| {
        let info = Bus::of(&fleet.nats).await.info(stream).await;
        i64::try_from(info.state.bytes).expect("a small stream") * 100 / info.config.max_bytes
    };
    for name in ["one", "two", "three"] {
        let state = login(theirs, name).await.1.expect("a login begins");
        assert_eq!(arrive(theirs, &state).await, StatusCode::OK);
    }
    // Room for the quota, and not much more.
    for stream in ["OAUTH", "KV_oauth_connections"] {
        leave_room(&fleet, stream, 400_000).await;
    }
    let mut made = 0;
    loop {
        let (status, state) = login(ours, &format!("c{made}")).await;
        let Some(state) = state else {
            assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
            break;
        };
        assert_eq!(arrive(ours, &state).await, StatusCode::OK);
        made += 1;
        assert!(share("OAUTH").await < 95 && share("KV_oauth_connections").await < 95, "the store fills");
    }
    assert!(made >= QUOTA, "{made}");
    assert_eq!(fleet.get_as(theirs, "odd/oauth-refresh-token/one").await.0, StatusCode::OK);
    assert_eq!(delete(theirs, "two").await, StatusCode::OK);
    assert!(login(theirs, "two").await.1.is_some());

    // Above 95 %, deletions continue, and make room.
    let refused = login(theirs, "two").await.1.expect("a login begins");
    for stream in ["OAUTH", "KV_oauth_connections"] {
        let bytes = Bus::of(&fleet.nats).await.info(stream).await.state.bytes;
        leave_room(&fleet, stream, i64::try_from(bytes / 25).expect("a small number")).await;
    }
    crate::fleet::eventually("the worker sees the full store", async || worker.log().contains("is above 95 %")).await;
    assert_eq!(arrive(theirs, &refused).await, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(delete(theirs, "three").await, StatusCode::OK);
    for number in 0..made {
        assert_eq!(delete(ours, &format!("c{number}")).await, StatusCode::OK);
    }
    crate::fleet::eventually("the refused login connects", async || arrive(theirs, &refused).await == 200).await;
    assert_eq!(fleet.get_as(theirs, "odd/oauth-refresh-token/one").await.0, StatusCode::OK);
    crate::fleet::eventually("the tenant begins logins again", async || login(ours, "new").await.1.is_some()).await;
}
