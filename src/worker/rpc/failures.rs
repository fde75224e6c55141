//! `failures`: the last failures of a connection, from the audit log.

use serde::Deserialize;
use serde_json::{Value, json};

use super::CallError;
use crate::event::EventKind;
use crate::jetstream::batch::{self, NumberedMessage, PageLimits};
use crate::store::StoreError;
use crate::subject::{Account, ConnectionName, Integration, OAUTH_EVENTS, event_subject};
use crate::worker::context::Context;

/// Failures per answer.
const SHOWN: usize = 5;
const KINDS: [EventKind; 4] =
    [EventKind::ExchangeFailed, EventKind::RefreshFailed, EventKind::NeedsReauthorization, EventKind::TokenExpired];
/// Sizes of the parts of the log that are read in turn, from its end, until one holds enough. In sequences.
const WINDOWS: [u64; 4] = [1_000, 100_000, 10_000_000, u64::MAX];
/// Events per request.
const PAGE: PageLimits = PageLimits { entries: 1_000, bytes: 1024 * 1024 };

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    integration_id: Integration,
    connection_id: ConnectionName,
}

/// Returns the newest failures, the newest first.
pub(super) async fn list(context: &Context, account: &Account, question: &Question) -> Result<Value, CallError> {
    let state = context.nats.stream_state(OAUTH_EVENTS).await.map_err(StoreError::from)?;
    let end = state.map_or(0, |state| state.last_sequence);
    let mut found = Vec::new();
    for window in WINDOWS {
        let start = end.saturating_sub(window);
        found.clear();
        for kind in KINDS {
            found.extend(after(context, account, question, kind, start).await?);
        }
        if found.len() >= SHOWN || start == 0 {
            break;
        }
    }
    found.sort_by_key(|message| std::cmp::Reverse(message.sequence));
    let events = found.into_iter().filter_map(|message| serde_json::from_slice::<Value>(&message.payload).ok());
    Ok(json!({ "results": events.take(SHOWN).collect::<Vec<_>>() }))
}

/// Returns the last failures of a kind after a sequence.
async fn after(
    context: &Context,
    account: &Account,
    question: &Question,
    kind: EventKind,
    mut start: u64,
) -> Result<Vec<NumberedMessage>, CallError> {
    let Question { integration_id, connection_id } = question;
    let (integration, connection) = (Some(integration_id.as_str()), Some(connection_id.as_str()));
    let filter = event_subject(account.as_str(), integration, connection, kind.as_str());
    let mut last = Vec::new();
    loop {
        let page = batch::after(&context.nats, OAUTH_EVENTS, filter.clone(), start, PAGE).await;
        let page = page.map_err(StoreError::from)?;
        let Some(newest) = page.last() else { return Ok(last) };
        start = newest.sequence;
        last.extend(page);
        last.drain(..last.len().saturating_sub(SHOWN));
    }
}
