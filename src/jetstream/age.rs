//! The age of a stored message.

use async_nats::jetstream::Message;
use jiff::{SignedDuration, Timestamp};

/// Time since the server stored the message; zero for one that no stream holds.
pub(crate) fn age(message: &Message, now: Timestamp) -> SignedDuration {
    let stored = message.info().ok().map(|info| info.published.unix_timestamp_nanos());
    let stored = stored.and_then(|stored| Timestamp::from_nanosecond(stored).ok());
    stored.map_or(SignedDuration::ZERO, |stored| now.duration_since(stored))
}
