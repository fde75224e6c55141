//! Message headers.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;

use crate::system;

/// Returns headers with the given message id, or with a random one.
#[must_use]
pub(crate) fn headers(message_id: Option<&str>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    match message_id {
        Some(id) => headers.insert(NATS_MESSAGE_ID, id),
        None => headers.insert(NATS_MESSAGE_ID, system::random_id()),
    }
    headers
}

/// Returns a header's value, empty if the header is missing.
#[must_use]
pub(crate) fn header<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).map_or("", |value| value.as_str())
}
