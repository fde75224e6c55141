//! Answers that are lost with the connection of their gateway: the call or command was carried out, and the caller gets the
//! result soon after the reconnection.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokenbus::Secret;
use tokenbus::internals::command::Credential;
use tokenbus::internals::gateway::{BackendError, Call, RequestContext};
use tokio::sync::watch;

use self::links::{Cut, Links};
use crate::bus::Bus;
use crate::fleet::{Fleet, INTEGRATION, eventually};
use crate::provider::{Provider, Scripted};
use crate::refresh_crash::{NAME as WORKSPACE, connected, due, refreshes, withholding_provider};
use crate::support::nats::Nats;

#[path = "../chaos/links.rs"]
mod links;

const NAME: &str = "one";
/// Far below the gateway's deadline of 20 s.
const SOON: Duration = Duration::from_secs(10);
/// Longer than a record is tried for after the end of its lease alone, and shorter than the hold.
const LONG_CUT: Duration = Duration::from_secs(50);
/// `refresh.min_interval`.
const MIN_INTERVAL: Duration = Duration::from_secs(5);

struct LinkedFleet {
    fleet: Fleet,
    /// Between the gateway and the server.
    links: Links,
    bus: Bus,
}

impl LinkedFleet {
    async fn start(provider: &Provider) -> Self {
        let nats = Nats::start().await;
        let links = Links::to(&nats.url).await;
        let mut fleet = Fleet::start_with_edge_by(&links.urls, nats, &provider.url).await;
        // A read is an event before it is answered.
        fleet.settings.insert("TOKENBUS_EVENTS__READS".to_owned(), "all".to_owned());
        let bus = Bus::of(&fleet.nats).await;
        Self { fleet, links, bus }
    }

    async fn events(&self, name: &str) -> usize {
        self.bus.events(name).await.len()
    }

    /// Makes a request. Once `is_due`, no answer reaches the gateway, and `goes_on` lets the request continue. When another event
    /// of that name is stored, and the queue is empty, the gateway's connection ends.
    async fn check(
        &self,
        request: impl Future<Output = (StatusCode, Value)>,
        is_due: impl AsyncFn() -> bool,
        goes_on: impl FnOnce(),
        event: &str,
    ) -> Value {
        let (before, ends) = (self.events(event).await, || self.fleet.edge_log().matches("disconnected from").count());
        let ended_before = ends();
        let losing = async {
            eventually("the request is under way", is_due).await;
            self.links.set(Cut::ToProcess);
            goes_on();
            eventually("the request was carried out", async || self.events(event).await > before).await;
            self.links.set(Cut::Closed);
            eventually("the gateway is disconnected", async || ends() > ended_before).await;
            self.links.set(Cut::Whole);
            Instant::now()
        };
        let ((status, body), lost) = tokio::join!(request, losing);
        assert_eq!(status, StatusCode::OK, "{event}: {body}");
        assert!(lost.elapsed() < SOON, "{event}: {:?} after its answer was lost", lost.elapsed());
        body
    }
}

#[tokio::test]
async fn the_result_of_a_call_or_callback_arrives_soon_after_its_answer_was_lost() {
    let (gate, opened) = watch::channel(true);
    let provider = Provider::start(move |number, received| match received.path.as_str() {
        "/token" => Scripted::tokens(number).once(&opened),
        _ => Scripted::json(200, &json!({})),
    })
    .await;
    let linked = LinkedFleet::start(&provider).await;
    let fleet = &linked.fleet;
    let _worker = fleet.worker().await;
    let (status, body) = fleet.put(&fleet.admin_keys[0], &fleet.config()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let at_once = async || true;

    let login = format!("{INTEGRATION}/oauth-login/{NAME}");
    linked.check(fleet.get(&login), at_once, || (), "login_started").await;

    let state = fleet.login(NAME).await;
    gate.send_replace(false);
    let is_sent = async || provider.received().len() == 1;
    let open = || {
        gate.send_replace(true);
    };
    let connection = linked.check(fleet.arrive(&state, "code"), is_sent, open, "connected").await;
    assert_eq!((connection["access_token"].as_str(), provider.received().len()), (Some("at-0"), 1));

    let read = format!("{INTEGRATION}/oauth-token/{NAME}");
    assert_eq!(linked.check(fleet.get(&read), at_once, || (), "read").await, connection);

    let refresh = format!("{INTEGRATION}/oauth-refresh-token/{NAME}");
    // A younger record would answer without a request to the provider.
    tokio::time::sleep(MIN_INTERVAL).await;
    gate.send_replace(false);
    let is_sent = async || refreshes(&provider) == 1;
    let open = || {
        gate.send_replace(true);
    };
    let refreshed = linked.check(fleet.get(&refresh), is_sent, open, "refreshed").await;
    assert_ne!(refreshed["access_token"], connection["access_token"]);
    assert_eq!(fleet.get(&read).await.1["access_token"], refreshed["access_token"]);

    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}");
    let delete = async || fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &json!({})).await;
    linked.check(delete(), at_once, || (), "revoked").await;
    assert_eq!(delete().await.0, StatusCode::NOT_FOUND, "a deletion that began later");
    assert_eq!(linked.events("revoked").await, 1);
}

/// A later try, which begins after half of that time, has no more time than the first one.
#[tokio::test]
async fn a_refresh_or_deletion_that_no_worker_answers_ends_at_the_deadline() {
    const DEADLINE: Duration = Duration::from_secs(4);
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let credential = Credential::new(Secret::new(format!("X-Api-Key {}", fleet.admin_keys[0])));
    let caller = RequestContext { credential: Some(credential), ..RequestContext::default() };
    let edge = fleet.own_edge_with(DEADLINE).await;
    edge.seal_to(&caller).await;
    worker.signal("STOP");
    let names = json!({ "integration_id": INTEGRATION, "connection_id": NAME });
    for call in [Call::Refresh, Call::Delete] {
        let began = Instant::now();
        let answer = edge.bus.call(call, &caller, &names).await;
        let passed = began.elapsed();
        assert!(matches!(answer, Err(BackendError::Deadline)), "{call:?}: {answer:?}");
        assert!((DEADLINE..DEADLINE + Duration::from_secs(1)).contains(&passed), "{call:?}: {passed:?}");
    }
    worker.signal("CONT");
}

/// Before its first call, a gateway asks for the workers' key.
#[tokio::test]
async fn no_call_waits_for_the_others_while_the_workers_key_has_no_answer() {
    let provider = Provider::generous().await;
    let (fleet, worker) = Fleet::configured(&provider.url).await;
    let edge = fleet.own_edge().await;
    worker.signal("STOP");
    let (nobody, nothing, began) = (RequestContext::default(), json!({}), Instant::now());
    let answers = join_all((0..8).map(|_| edge.bus.call(Call::Whoami, &nobody, &nothing))).await;
    for answer in answers {
        assert!(matches!(answer, Err(BackendError::NoWorker(_))), "{answer:?}");
    }
    // A call waits for five seconds, and its second try too. One after the other, eight calls would take forty.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    worker.signal("CONT");
}

#[tokio::test]
async fn h6_a_deletion_that_reaches_its_worker_late_leaves_a_newer_login_alone() {
    let provider = Provider::generous().await;
    let (fleet, mut first) = Fleet::configured(&provider.url).await;
    let login = async || {
        let state = fleet.login(NAME).await;
        let (status, body) = fleet.arrive(&state, "code").await;
        assert_eq!(status, StatusCode::OK, "{body}");
        fleet.idle().await;
    };
    login().await;
    first.kill().await;
    // Takes the call as a worker does that is then stopped.
    let worker = fleet.nats.connect("worker").await;
    let mut calls = worker.subscribe("oauth.edge.delete").await.expect("subscribed");
    worker.flush().await.expect("the server has the subscription");
    let path = format!("hub/integrations/{INTEGRATION}/oauth-connections/{NAME}");
    let no_body = json!({});
    let delete = || fleet.request(Method::DELETE, &path, &fleet.admin_keys[0], &no_body);
    let call = tokio::select! {
        call = calls.next() => call.expect("the gateway calls"),
        (status, body) = delete() => panic!("{status} {body}"),
    };
    calls.unsubscribe().await.expect("unsubscribed");
    let _second = fleet.worker().await;
    fleet.ready().await;
    login().await;

    let gateway = fleet.nats.connect("edge").await;
    gateway.request("oauth.edge.delete", call.payload).await.expect("the worker answers");
    let (status, body) = fleet.get(&format!("{INTEGRATION}/oauth-token/{NAME}")).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = delete().await;
    assert_eq!(status, StatusCode::OK, "{body}");
}

#[tokio::test]
async fn d4_new_tokens_are_stored_after_the_link_of_their_worker_was_cut_for_most_of_a_hold() {
    let (gate, provider) = withholding_provider().await;
    let (fleet, _pushes) = connected(&provider).await;
    let links = Links::to(&fleet.nats.url).await;
    let cut_off = fleet.worker_with(&[("TOKENBUS_NATS__URL", links.urls.as_str())]);
    cut_off.ready().await;
    fleet.ready().await;
    let before = fleet.record(&Fleet::path(WORKSPACE)).await.1;
    due(&fleet).await;
    eventually("the refresh token was sent", async || refreshes(&provider) == 1).await;
    let _other = fleet.worker().await;
    links.set(Cut::Closed);
    // Before that, the client may hold a publish back until it reconnects.
    eventually("the worker is cut off", async || cut_off.log().contains("disconnected from NATS")).await;
    gate.send_replace(true);
    tokio::time::sleep(LONG_CUT).await;
    links.set(Cut::Whole);
    let refreshed = async || fleet.stored(WORKSPACE).await.0.is_some_and(|it| it["sequence"].as_u64() > Some(before));
    eventually("the new tokens are stored", refreshed).await;
    assert_eq!(refreshes(&provider), 1);
}
