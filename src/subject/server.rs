//! Subjects of requests to nats-server, and its names for a bucket's stream and keys.

use super::Account;

/// Subject under which the server stores a bucket's key.
#[must_use]
pub fn kv_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// The stream that holds a bucket.
#[must_use]
pub(crate) fn kv_stream(bucket: &str) -> String {
    format!("KV_{bucket}")
}

/// Request for a stream's configuration and state.
#[must_use]
pub(crate) fn stream_info(stream: &str) -> String {
    format!("$JS.API.STREAM.INFO.{stream}")
}

/// Request for a snapshot of a stream.
#[must_use]
pub(crate) fn stream_snapshot(stream: &str) -> String {
    format!("$JS.API.STREAM.SNAPSHOT.{stream}")
}

/// Request to create a stream from a snapshot.
#[must_use]
pub(crate) fn stream_restore(stream: &str) -> String {
    format!("$JS.API.STREAM.RESTORE.{stream}")
}

/// Request to a stream's leader for one message.
#[must_use]
pub(crate) fn message_get(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.GET.{stream}")
}

/// Request to delete one message from a stream.
#[must_use]
pub(crate) fn message_delete(stream: &str) -> String {
    format!("$JS.API.STREAM.MSG.DELETE.{stream}")
}

/// Request for the next messages of a consumer.
#[must_use]
pub(crate) fn consumer_next(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}")
}

/// Question for a consumer's state.
#[must_use]
pub(crate) fn consumer_info(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.INFO.{stream}.{consumer}")
}

/// Request to delete a consumer.
#[must_use]
pub(crate) fn consumer_delete(stream: &str, consumer: &str) -> String {
    format!("$JS.API.CONSUMER.DELETE.{stream}.{consumer}")
}

/// Request for several messages of a stream at once. Any replica may answer.
#[must_use]
pub(crate) fn direct_get(stream: &str) -> String {
    format!("$JS.API.DIRECT.GET.{stream}")
}

/// Request to the server's resolver for an account's JWT. Only the system account may send it.
#[must_use]
pub(crate) fn account_claims(account: &Account) -> String {
    format!("$SYS.REQ.ACCOUNT.{account}.CLAIMS.LOOKUP")
}
