//! After the faults: ledger, entries, records, schedules, events and the provider's log agree.

use std::collections::HashSet;
use std::time::Duration;

use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{LastRawMessageErrorKind, Stream};
use futures_util::StreamExt as _;
use futures_util::stream::iter;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::configs::{CHANGING, Configs};
use crate::deployment::{Deployment, INTEGRATION};
use crate::driver::{Answer, Driver};
use crate::ledger::{Key, Known, State, sequence_and_token};
use crate::provider_log::ProviderLog;
use crate::support::wait::PATIENCE;
use crate::tenant::{Tenant, shown};

/// Messages that are read at once.
const AT_ONCE: usize = 16;
/// Time for the repair pass after a restart to set schedules that a server has lost.
const REPAIR: Duration = Duration::from_secs(30);
const BETWEEN_TRIES: Duration = Duration::from_secs(2);

/// The streams, as an operator sees them.
pub(crate) struct Stored {
    records: Stream,
    entries: Stream,
    schedules: Stream,
    configs: Stream,
    /// By account, name, kind and sequence.
    events: HashSet<(String, String, String, Option<u64>)>,
    pub(crate) config_events: [usize; 2],
    pub(crate) dead: u64,
}

impl Stored {
    pub(crate) async fn read(jetstream: &Context) -> Self {
        let stream = async |name: &str| jetstream.get_stream(name).await.expect("the stream");
        let all = messages(&stream("OAUTH_EVENTS").await).await;
        let text = |event: &Value, field: &str| event[field].as_str().unwrap_or_default().to_owned();
        let of_config = |kind: &str| {
            let own = all.iter().filter(|event| event["integration_id"] == CHANGING && event["event"] == kind);
            own.count()
        };
        let config_events = ["config_put", "config_deleted"].map(of_config);
        let events = all.iter().map(|event| {
            let names = ["account", "connection_id", "event"].map(|field| text(event, field));
            let [account, name, kind] = names;
            (account, name, kind, event["sequence"].as_u64())
        });
        Self {
            events: events.collect(),
            config_events,
            records: stream("OAUTH").await,
            entries: stream("KV_oauth_connections").await,
            schedules: stream("OAUTH_SCHEDULE").await,
            configs: stream("KV_oauth_configs").await,
            dead: stream("OAUTH_DEAD").await.cached_info().state.messages,
        }
    }
}

/// Compares everything for each connection whose state the ledger knows.
pub(crate) async fn check(
    driver: &Driver,
    deployment: &Deployment,
    tenants: &[Tenant<'_>],
    provider_log: &ProviderLog,
) -> Stored {
    deployment.idle().await;
    let stored = Stored::read(&deployment.jetstream().await).await;
    let connections = driver.ledger().connections.clone();
    for (key, known) in &connections {
        let account = &deployment.accounts[key.0];
        for fault in faults_of(&stored, account, (key, known), provider_log).await {
            driver.ledger().fault(format!("{key:?}: {fault}"));
        }
        if known.state == State::Stored {
            let answer = read(&tenants[key.0], key, known).await;
            let token = sequence_and_token(&answer.body).map(|(_, token)| token);
            if !token.as_ref().is_some_and(|token| provider_log.has_issued(token)) {
                let body = shown(&answer.body);
                driver.ledger().fault(format!("{key:?}: a read returns {:?} {body}", answer.status));
            }
        }
    }
    stored
}

async fn faults_of(
    stored: &Stored,
    account: &str,
    (key, known): (&Key, &Known),
    provider_log: &ProviderLog,
) -> Vec<String> {
    let path = format!("{account}.{INTEGRATION}.{}", key.1);
    let record = last(&stored.records, &format!("ms.integration.oauth.{path}")).await;
    let entry = last(&stored.entries, &format!("$KV.oauth_connections.{path}")).await;
    let mut faults = Vec::new();
    for success in &known.successes {
        let is_event = |(of, name, kind, sequence): &(String, String, String, Option<u64>)| {
            of == account
                && *name == key.1
                && kind == success.event
                && (success.sequence.is_none() || *sequence == success.sequence)
        };
        if !stored.events.iter().any(is_event) {
            faults.push(format!("no event for {success:?}"));
        }
    }
    match known.state {
        State::Stored => {
            let (sequence, record) = record.unwrap_or_default();
            if sequence < known.sequence {
                faults.push(format!("sequence {} was answered, and the newest record is {sequence}", known.sequence));
            }
            if entry.as_ref().and_then(|(_, entry)| entry["sequence"].as_u64()) != Some(sequence) {
                faults.push(format!("record {sequence} and entry {entry:?} differ"));
            }
            if record["status"] != "active" && !provider_log.saw_again(key) {
                faults.push(format!("its status is {} ({})", record["status"], record["status_reason"]));
            }
            if !has_schedule(&stored.schedules, &path).await {
                faults.push("no schedule".to_owned());
            }
        }
        State::Deleted => {
            // An entry that came back with a restart of the server is counted by reads.
            let (sequence, record) = record.unwrap_or_default();
            if record["status"] != "revoked" || !record["access_token"].is_null() {
                let successes = &known.successes;
                faults.push(format!("deleted after {successes:?}, and record {sequence} is {}", shown(&record)));
            }
        }
        State::Unknown | State::Open => {}
    }
    faults
}

async fn has_schedule(schedules: &Stream, path: &str) -> bool {
    let (subject, end) = (format!("ms.integration.oauth.{path}.refresh.at"), Instant::now() + REPAIR);
    while last(schedules, &subject).await.is_none() {
        if Instant::now() > end {
            return false;
        }
        sleep(Duration::from_millis(200)).await;
    }
    true
}

/// Refreshes every connection, so that a stuck one shows.
pub(crate) async fn refresh_all(driver: &Driver, tenants: &[Tenant<'_>], provider_log: &ProviderLog) {
    let connections = driver.ledger().connections.clone();
    let stored = connections.into_iter().filter(|(_, known)| known.state == State::Stored);
    let mut left: Vec<(Key, Option<u16>)> = stored.map(|(key, _)| (key, None)).collect();
    let end = Instant::now() + PATIENCE;
    while !left.is_empty() && Instant::now() < end {
        let tries = left.into_iter().map(async |(key, _)| {
            let status = tenants[key.0].refresh(&key).await;
            // A provider that saw a spent token again may have refused the grant.
            let is_done = status == Some(200) || (status == Some(400) && provider_log.saw_again(&key));
            (!is_done).then_some((key, status))
        });
        left = Box::pin(iter(tries).buffer_unordered(AT_ONCE).filter_map(async |left| left).collect()).await;
        sleep(BETWEEN_TRIES).await;
    }
    for (key, status) in left {
        driver.ledger().fault(format!("{key:?} is stuck: its refresh is answered with {status:?}"));
    }
}

/// Reads until there is an answer: on a busy machine the bus may time out.
async fn read(tenant: &Tenant<'_>, key: &Key, known: &Known) -> Answer {
    let end = Instant::now() + PATIENCE;
    loop {
        let answer = tenant.read_one(key, known).await;
        if !matches!(answer.status, None | Some(503 | 504)) || Instant::now() > end {
            return answer;
        }
        sleep(BETWEEN_TRIES).await;
    }
}

pub(crate) async fn check_configs(driver: &Driver, stored: &Stored, configs: &Configs) {
    let entry = last(&stored.configs, &format!("$KV.oauth_configs.{CHANGING}")).await;
    let name = entry.and_then(|(_, entry)| entry["config"]["name"].as_str().map(str::to_owned));
    if !configs.possible.contains(&name) {
        driver.ledger().fault(format!("the config is {name:?}, and may be {:?}", configs.possible));
    }
    for ((kind, confirmed), events) in configs.confirmed.iter().zip(stored.config_events) {
        if events < *confirmed {
            driver.ledger().fault(format!("{confirmed} changes were confirmed, and {events} events are {kind}"));
        }
    }
}

async fn messages(stream: &Stream) -> Vec<Value> {
    let state = &stream.cached_info().state;
    let reads = (state.first_sequence..=state.last_sequence).map(|sequence| stream.get_raw_message(sequence));
    let found = iter(reads).buffer_unordered(AT_ONCE).filter_map(async |message| message.ok());
    Box::pin(found.map(|message| serde_json::from_slice(&message.payload).unwrap_or_default()).collect()).await
}

/// Sequence and body of a subject's newest message.
async fn last(stream: &Stream, subject: &str) -> Option<(u64, Value)> {
    let end = Instant::now() + PATIENCE;
    loop {
        match stream.get_last_raw_message_by_subject(subject).await {
            Ok(message) => {
                return Some((message.sequence, serde_json::from_slice(&message.payload).unwrap_or_default()));
            }
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return None,
            // A new leader may be chosen.
            Err(error) => assert!(Instant::now() < end, "{subject}: {error}"),
        }
        sleep(BETWEEN_TRIES).await;
    }
}
