//! `events`: the audit log in the order in which it was stored.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::list::page_bytes;
use super::super::{CallError, bad_request};
use crate::jetstream::batch::{self, NumberedMessage, PageLimits};
use crate::store::StoreError;
use crate::subject::{self, Account, ConnectionName, Integration, OAUTH_EVENTS};
use crate::worker::context::Context;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MOST: usize = 1_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Question {
    #[serde(default)]
    account: Option<Account>,
    #[serde(default)]
    integration_id: Option<Integration>,
    #[serde(default)]
    connection_id: Option<ConnectionName>,
    /// Number of the last event that the caller has. Without it, the call returns no event but the number of the newest.
    #[serde(default)]
    after: Option<u64>,
    #[serde(default)]
    limit: Option<usize>,
}

/// Returns events with their numbers, and in `last` the number to continue after. Any replica may answer, so the newest
/// events may be missing for a moment; the next call returns them.
pub(super) async fn list(context: &Context, question: &Question) -> Result<Value, CallError> {
    let Question { account, integration_id, connection_id, after, limit } = question;
    let entries = limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MOST).contains(&entries) {
        return Err(bad_request("limit must be 1 to 1000"));
    }
    let nats = &context.nats;
    let Some(after) = *after else {
        let state = nats.stream_state(OAUTH_EVENTS).await.map_err(StoreError::from)?;
        return Ok(json!({ "results": [], "last": state.map_or(0, |state| state.last_sequence) }));
    };
    let filter = subject::events_matching(account.as_ref(), integration_id.as_ref(), connection_id.as_ref());
    let limits = PageLimits { entries, bytes: u64::try_from(page_bytes(context)).unwrap_or(u64::MAX) };
    let found = batch::after(nats, OAUTH_EVENTS, filter, after, limits).await.map_err(StoreError::from)?;
    let last = found.last().map_or(after, |message| message.sequence);
    let numbered = |NumberedMessage { sequence, payload }: NumberedMessage| {
        let event: Value = serde_json::from_slice(&payload).ok()?;
        Some(json!({ "number": sequence, "event": event }))
    };
    let results: Vec<Value> = found.into_iter().filter_map(numbered).collect();
    Ok(json!({ "results": results, "last": last }))
}
