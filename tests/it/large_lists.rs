//! Lists of an account with more connections than the server looks up by their names: workers keep the names in memory.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokenbus::subject::ConnectionKey;

use crate::fleet::{Fleet, INTEGRATION, Worker, eventually};
use crate::provider::Provider;
use crate::seed::Seed;
use crate::support::tokenbus::ACCOUNT;

/// More than the 1,024 subjects that the server looks up for one request.
const MANY: usize = 1_300;
/// Connections of another integration among them.
const OF_OTHER: usize = 100;
const LIFETIME: i64 = 30 * 86_400;

struct Large {
    fleet: Fleet,
    provider: Provider,
    worker: Worker,
}

struct Page {
    names: Vec<String>,
    total: u64,
    cursor: Option<String>,
}

/// An account with [`MANY`] connections, whose names the worker has in memory.
async fn large() -> Large {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let mut seed = Seed::on(&fleet, &provider.url).await;
    for number in 0..MANY {
        let integration = if number < OF_OTHER { "other" } else { INTEGRATION };
        seed.connection(&key(integration, number), (LIFETIME, number)).await;
    }
    // The server answers the seed's last writes before this list.
    eventually("all connections are stored", async || page(&fleet, "limit=1").await.total == MANY as u64).await;
    assert!(worker.log().contains("read the names of a large account"), "{}", worker.log());
    Large { fleet, provider, worker }
}

fn key(integration: &str, number: usize) -> ConnectionKey {
    ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.{integration}.c{number}")).expect("a key")
}

async fn page(fleet: &Fleet, query: &str) -> Page {
    let (mut status, mut body) = fleet.get(&format!("oauth-connections?{query}")).await;
    // A busy machine may not make a page of many connections within a call's time.
    while status == StatusCode::SERVICE_UNAVAILABLE {
        (status, body) = fleet.get(&format!("oauth-connections?{query}")).await;
    }
    assert_eq!(status, StatusCode::OK, "{body}");
    assert!(body.get("unreadable").is_none(), "{}", body["unreadable"]);
    let name = |entry: &Value| entry["subject"].as_str().and_then(|it| it.rsplit('.').next()).map(str::to_owned);
    Page {
        names: body["results"].as_array().into_iter().flatten().filter_map(name).collect(),
        total: body["results_total"].as_u64().expect("a number"),
        cursor: body["next_cursor"].as_str().map(str::to_owned),
    }
}

/// Reads all pages from a cursor on.
async fn names_from(fleet: &Fleet, mut cursor: Option<String>) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let from = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
        let page = page(fleet, &format!("limit=100&tokens=false{from}")).await;
        names.extend(page.names);
        cursor = page.cursor;
        if cursor.is_none() {
            return names;
        }
    }
}

async fn connect(fleet: &Fleet, name: &str) {
    let state = fleet.login(name).await;
    let (status, body) = fleet.arrive(&state, "code").await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

async fn delete(fleet: &Fleet, name: &str) {
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{name}");
    let (status, body) = fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

fn seeded(numbers: std::ops::Range<usize>) -> Vec<String> {
    numbers.map(|number| format!("c{number}")).collect()
}

#[tokio::test]
async fn pages_of_a_large_account_have_each_connection_once_in_the_order_of_its_last_change() {
    let Large { fleet, provider: _provider, worker: _worker } = large().await;
    assert_eq!(names_from(&fleet, None).await, seeded(0..MANY));
    // A page also ends at its size in bytes.
    let large = page(&fleet, "limit=1000").await;
    assert_eq!(large.names, seeded(0..large.names.len()));
    assert_eq!(names_from(&fleet, large.cursor).await, seeded(large.names.len()..MANY));

    let of_one = async |integration: &str| {
        let (_, body) = fleet.get(&format!("{integration}/oauth-connections?limit=60")).await;
        (body["results"][0]["subject"].clone(), body["results_total"].clone(), body.get("next_cursor").is_some())
    };
    let subject = |integration: &str, number| json!(key(integration, number).subject());
    assert_eq!(of_one("other").await, (subject("other", 0), json!(OF_OTHER), true));
    assert_eq!(of_one(INTEGRATION).await, (subject(INTEGRATION, OF_OTHER), json!(MANY - OF_OTHER), true));
    assert_eq!(fleet.get("none/oauth-connections").await.0, StatusCode::BAD_REQUEST);
    // Names in memory belong to one account.
    let (_, theirs) = fleet.get_as(&fleet.admin_keys[1], "oauth-connections").await;
    assert_eq!(theirs, json!({ "results": [], "results_total": 0 }));
}

#[tokio::test]
async fn a_page_of_a_large_account_shows_what_another_worker_has_just_written() {
    let Large { fleet, provider: _provider, worker: _worker } = large().await;
    let _other = fleet.worker().await;
    let cursor = page(&fleet, "limit=200").await.cursor;
    let mut end = names_from(&fleet, cursor.clone()).await;
    for number in 0..8 {
        // A new connection, and one of the first page that another login moves to the end.
        let name = if number % 2 == 0 { format!("new{number}") } else { format!("c{}", OF_OTHER + number) };
        connect(&fleet, &name).await;
        end.push(name);
        assert_eq!(names_from(&fleet, cursor.clone()).await, end);
    }
    delete(&fleet, "new0").await;
    end.retain(|name| name != "new0");
    assert_eq!(names_from(&fleet, cursor).await, end);
    // The total may be 10 s old.
    for _ in 0..4 {
        eventually("the deleted connection is not counted", async || {
            page(&fleet, "limit=1").await.total == MANY as u64 + 3
        })
        .await;
    }
}

#[tokio::test]
async fn pages_miss_no_connection_during_concurrent_changes_and_a_restart_of_the_server() {
    const CHANGED: usize = 30;
    let Large { mut fleet, provider: _provider, worker: _worker } = large().await;
    let stays: BTreeSet<String> = seeded(OF_OTHER + CHANGED..MANY).into_iter().collect();
    let goes_on = AtomicBool::new(true);
    let changes = async {
        for number in 0..CHANGED {
            connect(&fleet, &format!("c{}", OF_OTHER + number)).await;
            delete(&fleet, &format!("c{}", OF_OTHER + number)).await;
        }
        goes_on.store(false, Ordering::Relaxed);
    };
    let lists = async {
        while goes_on.load(Ordering::Relaxed) {
            let found: BTreeSet<String> = names_from(&fleet, None).await.into_iter().collect();
            assert_eq!(stays.difference(&found).next(), None, "a connection is missing");
        }
    };
    tokio::join!(changes, lists);
    let left = (MANY - CHANGED) as u64;
    eventually("the deleted connections are not counted", async || page(&fleet, "limit=1").await.total == left).await;

    fleet.idle().await;
    fleet.nats.kill().await;
    fleet.nats.restart_once_killed().await;
    eventually("a worker answers again", async || {
        fleet.get(&format!("{INTEGRATION}/oauth-login/after")).await.0 == StatusCode::OK
    })
    .await;
    connect(&fleet, "after").await;
    let found = names_from(&fleet, None).await;
    assert_eq!(found.last().map(String::as_str), Some("after"));
    assert_eq!(page(&fleet, "limit=1").await.total, left + 1);
    let found: BTreeSet<String> = found.into_iter().collect();
    let mut expected: BTreeSet<String> = seeded(0..OF_OTHER).into_iter().chain(stays).collect();
    expected.insert("after".to_owned());
    assert_eq!(found, expected, "a connection is missing after the restart, or a deleted one is back");
}
