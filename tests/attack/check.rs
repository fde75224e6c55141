//! After the attack: the ledger, the provider's log, the bucket and the record stream agree.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use serde_json::Value;

use crate::fleet::{Fleet, INTEGRATION};
use crate::ledger::Known;
use crate::provider::Provider;
use crate::tenant::{number_of, token_of};

/// A connection in the list.
struct Listed {
    access: Option<usize>,
    refresh: Option<usize>,
    sequence: Option<u64>,
}

/// Returns what does not hold.
pub(crate) async fn check(fleet: &Fleet, connections: &BTreeMap<String, Known>, provider: &Provider) -> Vec<String> {
    fleet.idle().await;
    let (log, mut faults) = provider_log(provider);
    let listed = list(fleet).await;
    let setup = fleet.jetstream("setup").await;
    let records = setup.get_stream("OAUTH").await.expect("the stream");
    let schedules = setup.get_stream("OAUTH_SCHEDULE").await.expect("the stream");
    let events = setup.get_stream("OAUTH_EVENTS").await.expect("the stream");
    for (name, known) in connections {
        let path = format!("{}.{INTEGRATION}.{name}", fleet.other_account);
        let record = last(&records, &format!("ms.integration.oauth.{path}")).await;
        let schedule = last(&schedules, &format!("ms.integration.oauth.{path}.refresh.at")).await;
        let event = format!("ms.oauth.{}.event.{INTEGRATION}.{name}", fleet.other_account);
        let mut expect = |what: &str, holds: bool| {
            if !holds {
                faults.push(format!("{name}: {what}"));
            }
        };
        expect("event `connected`", last(&events, &format!("{event}.connected")).await.is_some());
        let (sequence, record) = record.unwrap_or_default();
        if known.is_deleted {
            expect("deleted and not in the list", !listed.contains_key(name));
            expect("a record without token", record["status"] == "revoked" && token_of(&record).is_none());
            expect("no schedule", schedule.is_none());
            expect("event `revoked`", last(&events, &format!("{event}.revoked")).await.is_some());
        } else {
            let newest = newest(&log, name);
            expect("the provider issued the answered token", newest >= Some(known.token));
            expect("the record has the newest token", token_of(&record) == newest);
            let kept = listed.get(name);
            expect("the list has the newest access token", kept.and_then(|it| it.access) == newest);
            expect("the list has the newest refresh token", kept.and_then(|it| it.refresh) == newest);
            expect("the list is as new as the record", kept.and_then(|it| it.sequence) == Some(sequence));
            expect("a schedule", schedule.is_some());
        }
    }
    for name in listed.keys().filter(|name| !connections.contains_key(*name)) {
        faults.push(format!("{name} is in the list, and no callback for it was answered"));
    }
    faults
}

/// The provider's log: by code or refresh token, the number of the tokens that it issued. And what was sent twice.
fn provider_log(provider: &Provider) -> (HashMap<String, usize>, Vec<String>) {
    let (mut log, mut twice) = (HashMap::new(), Vec::new());
    for (number, received) in provider.received().iter().enumerate() {
        let mut form = received.form();
        let secret = form.remove("code").or_else(|| form.remove("refresh_token")).expect("a code or a refresh token");
        if log.insert(secret.clone(), number).is_some() {
            twice.push(format!("{secret} was sent twice"));
        }
    }
    (log, twice)
}

/// The number of the tokens that the provider issued last for that connection.
fn newest(log: &HashMap<String, usize>, name: &str) -> Option<usize> {
    let mut newest = *log.get(&format!("code-{name}"))?;
    while let Some(next) = log.get(&format!("rt-{newest}")) {
        newest = *next;
    }
    Some(newest)
}

/// All connections of the tenant by name, read page by page.
async fn list(fleet: &Fleet) -> HashMap<String, Listed> {
    let (mut found, mut cursor) = (HashMap::new(), String::new());
    loop {
        let path = format!("{INTEGRATION}/oauth-connections?limit=1000{cursor}");
        let (status, page) = fleet.get_as(&fleet.admin_keys[1], &path).await;
        assert_eq!(status, 200, "{page}");
        for connection in page["results"].as_array().expect("a page has results") {
            let subject = connection["subject"].as_str().expect("a connection has a subject");
            let name = subject.rsplit('.').next().unwrap_or_default().to_owned();
            let refresh = connection["refresh_token"].as_str().and_then(number_of);
            let sequence = connection["sequence"].as_u64();
            found.insert(name, Listed { access: token_of(connection), refresh, sequence });
        }
        let Some(next) = page["next_cursor"].as_str() else { return found };
        cursor = format!("&cursor={next}");
        // Below the gateway's rate.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sequence and body of a subject's newest message.
async fn last(stream: &Stream, subject: &str) -> Option<(u64, Value)> {
    let message = stream.get_last_raw_message_by_subject(subject).await.ok()?;
    Some((message.sequence, serde_json::from_slice(&message.payload).unwrap_or_default()))
}
