//! Lists in pages. A page of connections reads only its own entries; configs are few, so all their keys are read.

use std::future::Future;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tracing::warn;

use super::token::set_pause_reason;
use super::{CallError, bad_request, no_config};
use crate::auth::VerifiedCaller;
use crate::jetstream::batch::PageLimits;
use crate::jetstream::kv;
use crate::store::{ConnectionPage, ListedConnection, StoreError};
use crate::subject::{CONFIGS, Integration, config_subject};
use crate::system::TimeSlice;
use crate::worker::context::Context;

// Connections on a page, as `/openapi.json` documents them.
const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;
/// Most bytes of a page.
const PAGE_BYTES: usize = 512 * 1024;
/// Entries to read in parallel.
const READ_AHEAD: usize = 32;
const CURSOR: &str = "cursor must be the next_cursor of an earlier page";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    integration_id: Option<Integration>,
    /// False for connections without tokens.
    #[serde(default)]
    tokens: Option<bool>,
}

pub(super) async fn configs(context: &Context, page: Page) -> Result<Value, CallError> {
    let keys = kv::keys(&context.nats, CONFIGS, "*").await.map_err(StoreError::from)?;
    let unreadable = &Mutex::new(Vec::new());
    let mut body = page_of(&page, &keys, page_bytes(context), |key: String| async move {
        let Ok(integration) = Integration::parse(&key) else { return Ok(None) };
        match context.store.config(&integration).await {
            Err(error) if error.is_junk() => {
                warn!("skipped in a list: {error}");
                unreadable.lock().unwrap_or_else(PoisonError::into_inner).push(config_subject(&integration));
                Ok(None)
            }
            config => Ok(config?.map(|config| json!(config.basic()))),
        }
    })
    .await?;
    name_unreadable(&mut body, &std::mem::take(&mut *unreadable.lock().unwrap_or_else(PoisonError::into_inner)));
    Ok(body)
}

/// Names entries that a list leaves out, by the subjects of their records. Without such an entry the field is absent.
fn name_unreadable(body: &mut Value, subjects: &[String]) {
    if let Some(body) = body.as_object_mut().filter(|_| !subjects.is_empty()) {
        body.insert("unreadable".to_owned(), json!(subjects));
    }
}

/// Bytes of a message beside the page's entries.
const BESIDE_PAGE: usize = 4 * 1024;

/// Most bytes of a page that fits into a message: it is sent in base64.
pub(super) fn page_bytes(context: &Context) -> usize {
    PAGE_BYTES.min((context.nats.max_payload() / 4 * 3).saturating_sub(BESIDE_PAGE))
}

/// Lists connections in the order of their last change. A caller that reads all pages misses none: a connection that is
/// refreshed meanwhile appears again at the end. A list of one page is read with one direct get; any replica may answer it, so
/// such a list may lack what a read shows, for a moment.
pub(super) async fn connections(context: &Context, caller: &VerifiedCaller, page: Page) -> Result<Value, CallError> {
    let after = page.cursor.as_deref().map(read_cursor).transpose()?.map_or(Ok(0), |text| text.parse());
    // Cursors are opaque to callers, so the cause ("not a number") would tell them nothing.
    let after = after.map_err(|_| bad_request(CURSOR))?;
    // Stored entries are larger than listed ones; twice the size of a page is enough.
    let page_bytes = page_bytes(context);
    let bytes = u64::try_from(2 * page_bytes).unwrap_or(u64::MAX);
    let limits = PageLimits { entries: page.limit()?, bytes };
    let ConnectionPage { connections, unreadable, last: last_of_page, total, more } =
        context.store.connections(&caller.account, page.integration_id.as_ref(), after, limits).await?;
    // Connections stay listed after their config was deleted, so only an empty list is a 404.
    if let Some(integration) = page.integration_id.as_ref().filter(|_| total == 0)
        && !context.store.is_configured(integration).await?
    {
        return Err(no_config());
    }
    let (mut results, mut size, mut last, mut is_cut, mut too_large) = (Vec::new(), 0, after, false, Vec::new());
    let mut slice = TimeSlice::begin();
    for ListedConnection { revision, key, mut connection } in connections {
        let has_config = context.store.is_configured(&key.integration).await?;
        set_pause_reason(&mut connection, has_config, context.clock.now());
        if page.tokens == Some(false) {
            (connection.access_token, connection.refresh_token) = (None, None);
        }
        let entry = json!(connection);
        slice.pause().await;
        let bytes = entry.to_string().len();
        if bytes > page_bytes {
            warn!("skipped in a list: {} has {bytes} bytes, too many for `max_payload`", key.subject());
            too_large.push(key.subject());
        } else if size + bytes > page_bytes {
            is_cut = true;
            break;
        } else {
            size += bytes;
            results.push(entry);
        }
        last = revision;
    }
    // Not the last connection: a page may end with entries that cannot be read, or have no others.
    let last = if is_cut { last } else { last_of_page };
    let next = (more || is_cut).then(|| last.to_string());
    let unreadable = unreadable.into_iter().filter(|entry| entry.revision <= last);
    let unreadable: Vec<String> = unreadable.map(|entry| entry.key.subject()).chain(too_large).collect();
    let mut body = body(results, total, next.as_deref());
    name_unreadable(&mut body, &unreadable);
    Ok(body)
}

impl Page {
    fn limit(&self) -> Result<usize, CallError> {
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let fits = (1..=MAX_LIMIT).contains(&limit);
        fits.then_some(limit).ok_or_else(|| bad_request("limit must be 1 to 1000"))
    }
}

/// Builds a page of the sorted keys, reading each entry by `read`. It has at most that many bytes, or one entry.
pub(super) async fn page_of<F, R>(page: &Page, keys: &[String], bytes: usize, read: F) -> Result<Value, CallError>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Option<Value>, StoreError>>,
{
    let limit = page.limit()?;
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let start = after.map_or(0, |after| keys.partition_point(|key| *key <= after));
    let wanted: Vec<String> = keys.iter().skip(start).take(limit).cloned().collect();
    let mut entries = std::pin::pin!(stream::iter(wanted.clone()).map(read).buffered(READ_AHEAD));
    let (mut results, mut size, mut taken) = (Vec::new(), 0, 0_usize);
    while let Some(entry) = entries.next().await {
        if let Some(entry) = entry? {
            size += entry.to_string().len();
            if size > bytes && !results.is_empty() {
                break;
            }
            results.push(entry);
        }
        taken += 1;
    }
    let last = taken.checked_sub(1).and_then(|last| wanted.get(last));
    let next = last.filter(|_| start + taken < keys.len());
    Ok(body(results, u64::try_from(keys.len()).unwrap_or(u64::MAX), next.map(String::as_str)))
}

fn body(results: Vec<Value>, total: u64, next: Option<&str>) -> Value {
    let mut body =
        Map::from_iter([("results".to_owned(), Value::Array(results)), ("results_total".to_owned(), json!(total))]);
    if let Some(next) = next {
        body.insert("next_cursor".to_owned(), json!(BASE64_URL_SAFE_NO_PAD.encode(next.as_bytes())));
    }
    Value::Object(body)
}

fn read_cursor(cursor: &str) -> Result<String, CallError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| bad_request(CURSOR))
}

#[cfg(test)]
mod tests;
