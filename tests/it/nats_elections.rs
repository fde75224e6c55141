//! Elections in a cluster while logins and refreshes run: no token is lost, and nothing of a record is missing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::client::Request;
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::ask::{Answer, ask, send};
use crate::bus::Bus;
use crate::nats_cluster::{cluster_ports, started_on};
use crate::provider::{Provider, Received, Scripted};
use crate::support::nats::Nats;
use crate::support::wait::eventually;
use crate::world::{INTEGRATION, World};

/// A user that may end the terms of leaders: no shipped user may.
const VOTER: (&str, &str) = (
    "    users: [\n      # The workers.",
    "    users: [\n      { user: voter, password: $NATS_VOTER_PASSWORD }\n      # The workers.",
);
/// Streams whose leaders step down, and the consumers of commands.
const STREAMS: [&str; 6] =
    ["OAUTH", "OAUTH_COMMANDS", "OAUTH_EVENTS", "OAUTH_SCHEDULE", "KV_oauth_connections", "KV_oauth_states"];
const CONSUMERS: [&str; 2] = ["exchange", "refresh"];
/// Rounds in which each of them elects a leader.
const ROUNDS: usize = 4;
/// Time from one step-down to the next. An election takes less.
const TERM: Duration = Duration::from_millis(400);
/// Connections, each with logins and refreshes of its own.
const CONNECTIONS: usize = 4;
/// Pause after a refused request, and between refreshes.
const PAUSE: Duration = Duration::from_millis(50);

/// The number of the newest tokens of each connection.
type Issued = Arc<Mutex<HashMap<String, usize>>>;

/// A provider that rotates refresh tokens: it accepts the newest one only.
async fn rotating(issued: Issued) -> Provider {
    Provider::start(move |_, received: &Received| {
        let form = received.form();
        let mut issued = issued.lock().expect("no test panics with the lock");
        let (name, number) = match form.get("refresh_token") {
            None => (form["code"].clone(), 0),
            Some(token) => {
                let (name, number) = token.rsplit_once('-').expect("our own token");
                (name.to_owned(), number.parse::<usize>().expect("our own token") + 1)
            }
        };
        if issued.get(&name).copied() != number.checked_sub(1) {
            return Scripted::json(400, &json!({ "error": "invalid_grant" }));
        }
        issued.insert(name.clone(), number);
        let token = format!("{name}-{number}");
        Scripted::json(200, &json!({ "access_token": token, "refresh_token": token, "expires_in": 3600 }))
    })
    .await
}

/// Checks that an answer is a success, or asks to come again.
#[track_caller]
fn is_success(answer: &Answer) -> bool {
    if answer.status == 503 {
        assert!(answer.header("retry-after").parse::<u32>().is_ok_and(|seconds| seconds > 0), "{}", answer.text);
        return false;
    }
    assert!([200, 504].contains(&answer.status), "{}: {}", answer.status, answer.text);
    answer.status == 200
}

async fn get(world: &World, path: &str) -> Answer {
    send(&world.tokenbus, Method::GET, &world.tokenbus.key, &format!("{INTEGRATION}/{path}")).await
}

/// Sends a request until it succeeds.
async fn patiently(request: impl AsyncFn() -> Answer) -> Answer {
    loop {
        let answer = request().await;
        if is_success(&answer) {
            return answer;
        }
        sleep(PAUSE).await;
    }
}

/// Connects, then refreshes until the elections are over. Returns the number of refreshes that succeeded.
async fn connect_and_refresh(world: &World, name: &str, are_over: &AtomicBool) -> usize {
    let login = patiently(async || get(world, &format!("oauth-login/{name}")).await).await;
    let state = crate::world::state_of(&login.json()["oauth_url"]);
    let path = format!("hub/integrations/oauth-callback?code={name}&state={state}");
    let arrive = || world.tokenbus.request(Method::GET, &path).header("x-api-key", &world.tokenbus.key);
    loop {
        let answer = ask(arrive().header("accept", "application/json")).await;
        // A refused callback may have been queued nevertheless: then the login is used when it comes again.
        if answer.status == 401 || is_success(&answer) {
            break;
        }
        sleep(PAUSE).await;
    }
    let mut refreshes = 0;
    while !are_over.load(Ordering::Relaxed) {
        refreshes += usize::from(is_success(&get(world, &format!("oauth-refresh-token/{name}")).await));
        sleep(PAUSE).await;
    }
    refreshes
}

/// Has the leaders of all streams and consumers step down, one after the other.
async fn elect(nats: &Nats) {
    let voter = nats.connect("voter").await;
    let streams = STREAMS.map(|name| format!("$JS.API.STREAM.LEADER.STEPDOWN.{name}"));
    let consumers = CONSUMERS.map(|name| format!("$JS.API.CONSUMER.LEADER.STEPDOWN.OAUTH_COMMANDS.{name}"));
    let mut done = 0;
    for request in (0..ROUNDS).flat_map(|_| streams.iter().chain(&consumers)) {
        // Without a leader nothing answers.
        if let Ok(answer) = voter.request(request.clone(), "".into()).await {
            let answer: Value = serde_json::from_slice(&answer.payload).expect("JSON");
            done += usize::from(answer["success"] == true);
        }
        sleep(TERM).await;
    }
    let all = ROUNDS * (STREAMS.len() + CONSUMERS.len());
    assert!(done > all / 2, "{done} of {all} step-downs");
}

#[tokio::test]
async fn h4_elections_lose_no_token_and_leave_no_record_alone() {
    let issued = Issued::default();
    let nats = Nats::edited_cluster(cluster_ports(400), &[VOTER], &["voter"]).await;
    let world = started_on(nats, rotating(Arc::clone(&issued)).await, &[("REFRESH__MIN_INTERVAL", "1ms")]).await;
    let (names, are_over) = ((0..CONNECTIONS).map(|number| format!("c{number}")), AtomicBool::new(false));
    let names: Vec<String> = names.collect();
    let work = join_all(names.iter().map(|name| connect_and_refresh(&world, name, &are_over)));
    let elections = async {
        elect(&world.tokenbus.nats).await;
        are_over.store(true, Ordering::Relaxed);
    };
    let (refreshes, ()) = tokio::join!(work, elections);
    println!("{refreshes:?} refreshes");

    let bus = Bus::of(&world.tokenbus.nats).await;
    eventually("all commands end", async || bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    for name in &names {
        let newest = format!("{name}-{}", issued.lock().expect("no test panics with the lock")[name]);
        let answer = patiently(async || get(&world, &format!("oauth-token/{name}")).await).await;
        assert_eq!(answer.json()["access_token"], newest.as_str(), "{}", answer.text);
        let answer = patiently(async || get(&world, &format!("oauth-refresh-token/{name}")).await).await;
        assert_ne!(answer.json()["access_token"], newest.as_str(), "the grant lives");
    }
    eventually("the last commands end", async || bus.info("OAUTH_COMMANDS").await.state.messages == 0).await;
    assert_eq!(bus.info("OAUTH_DEAD").await.state.messages, 0);
    assert_eq!(bus.events("connected").await.len(), CONNECTIONS);
    let written: usize = issued.lock().expect("no test panics with the lock").values().sum();
    assert_eq!(bus.events("refreshed").await.len(), written, "each new record has its event");
    assert_eq!(bus.messages("OAUTH_SCHEDULE").await.len(), CONNECTIONS);
}

/// Has the stream elect that node as its leader.
async fn lead(nats: &Nats, stream: &str, node: &str) {
    let (voter, bus) = (nats.connect("voter").await, Bus::of(nats).await);
    let wanted = json!({ "placement": { "preferred": node } }).to_string();
    let is_leader = async || {
        let leader = bus.info(stream).await.cluster.and_then(|cluster| cluster.leader);
        if leader.as_deref().is_some_and(|leader| leader != node) {
            // Without a leader nothing answers.
            let subject = format!("$JS.API.STREAM.LEADER.STEPDOWN.{stream}");
            let request = Request::new().payload(wanted.clone().into()).timeout(Some(TERM));
            let _ = voter.send_request(subject, request).await;
        }
        leader.as_deref() == Some(node)
    };
    eventually("the node leads the stream", is_leader).await;
}

/// A leader that loses its followers may lose what it stores alone. It refuses a repeated message in another way than a stored
/// one.
#[tokio::test]
async fn h4_a_login_that_only_the_leader_has_is_refused() {
    let mut nats = Nats::edited_cluster(cluster_ports(1_200), &[VOTER], &["voter"]).await;
    // Only the node that leads answers in the meantime.
    nats.url = nats.url.split(',').next().expect("there are three").to_owned();
    let mut world = started_on(nats, Provider::generous().await, &[]).await;
    let buckets = ["KV_oauth_api_keys", "KV_oauth_configs", "KV_oauth_connections", "KV_oauth_states"];
    for stream in buckets.into_iter().chain(["OAUTH", "OAUTH_EVENTS"]) {
        lead(&world.tokenbus.nats, stream, "tokenbus-1").await;
    }
    (1..3).for_each(|node| world.tokenbus.nats.signal_node(node, "STOP"));
    let answer = get(&world, "oauth-login/alone").await;
    (1..3).for_each(|node| world.tokenbus.nats.signal_node(node, "CONT"));
    assert_eq!(answer.status, 503, "{}", answer.text);
    patiently(async || get(&world, "oauth-login/alone").await).await;
}
