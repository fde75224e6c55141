//! Lists, page by page. A page reads its own entries and, of all others, nothing but their keys.

use std::future::Future;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{CallError, bad_request};
use crate::auth::Caller;
use crate::nats::bucket;
use crate::store::StoreError;
use crate::subject::{self, CONFIGS, CONNECTIONS, ConnectionKey, Integration};
use crate::worker::Service;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MOST: usize = 1_000;
/// Size at which a page ends early.
const PAGE_BYTES: usize = 512 * 1024;
/// Entries read at once.
const READ_AHEAD: usize = 32;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    #[serde(default)]
    limit: Option<usize>,
    #[serde(default)]
    cursor: Option<String>,
    #[serde(default)]
    integration_id: Option<Integration>,
}

pub(super) async fn configs(service: &Service, page: Page) -> Result<Value, CallError> {
    let keys = bucket::keys(&service.store.nats, CONFIGS, "*").await.map_err(StoreError::from)?;
    cut(&page, &keys, |key: String| async move {
        let Ok(integration) = Integration::parse(&key) else { return Ok(None) };
        Ok(service.store.stored_config(&integration).await?.map(|stored| json!(stored.config.basic())))
    })
    .await
}

pub(super) async fn connections(service: &Service, caller: &Caller, page: Page) -> Result<Value, CallError> {
    let filter = subject::connections_of(&caller.account, page.integration_id.as_ref());
    let keys = bucket::keys(&service.store.nats, CONNECTIONS, &filter).await.map_err(StoreError::from)?;
    cut(&page, &keys, |key: String| async move {
        let Ok(key) = ConnectionKey::parse_kv_key(&key) else { return Ok(None) };
        Ok(service.store.connection(&key).await?.map(|connection| json!(connection)))
    })
    .await
}

/// One page of the sorted keys, each read by `read`.
async fn cut<F, R>(page: &Page, keys: &[String], read: F) -> Result<Value, CallError>
where
    F: Fn(String) -> R,
    R: Future<Output = Result<Option<Value>, StoreError>>,
{
    let limit = page.limit.unwrap_or(LIMIT_DEFAULT);
    if !(1..=LIMIT_MOST).contains(&limit) {
        return Err(bad_request("limit must be 1 to 1000"));
    }
    let after = page.cursor.as_deref().map(read_cursor).transpose()?;
    let start = after.map_or(0, |after| keys.partition_point(|key| *key <= after));
    let wanted: Vec<String> = keys.iter().skip(start).take(limit).cloned().collect();
    let mut entries = std::pin::pin!(stream::iter(wanted.clone()).map(read).buffered(READ_AHEAD));
    let (mut results, mut size, mut taken) = (Vec::new(), 0, 0);
    while let Some(entry) = entries.next().await {
        taken += 1;
        let Some(entry) = entry? else { continue };
        size += entry.to_string().len();
        results.push(entry);
        if size >= PAGE_BYTES {
            break;
        }
    }
    let mut body =
        Map::from_iter([("results".to_owned(), json!(results)), ("results_total".to_owned(), json!(keys.len()))]);
    if start + taken < keys.len()
        && let Some(last) = taken.checked_sub(1).and_then(|last| wanted.get(last))
    {
        body.insert("next_cursor".to_owned(), json!(BASE64_URL_SAFE_NO_PAD.encode(last.as_bytes())));
    }
    Ok(Value::Object(body))
}

fn read_cursor(cursor: &str) -> Result<String, CallError> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    bytes.ok_or_else(|| bad_request("cursor must be one that a page gave as next_cursor"))
}

#[cfg(test)]
mod tests;
