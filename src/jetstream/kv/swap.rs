//! Compare-and-swap of a key, and the read-modify-write loop on top of it.
//!
//! A write whose answer is lost is sent again, and the server can refuse the second try although it stored the first. A
//! refusal therefore doesn't prove that another writer was first: [`swap`] sends an operation id with each write and,
//! after a refusal, reads the key from the leader and compares the id.

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;

use super::{At, Entry, delete, get, put_with};
use crate::jetstream::{Nats, NatsError, header};
use crate::system;

/// The server stores the headers with the value or the marker. [`swap`] adds the operation id.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Put { headers: HeaderMap, value: Bytes },
    Delete { headers: HeaderMap, body: Bytes },
}

pub(crate) enum Swapped {
    Done,
    /// Another writer was first. Holds the newest entry.
    Lost(Option<Entry>),
}

/// Writes a key if the revision to replace is still the newest. Of all writers that name the same revision, exactly one
/// gets [`Swapped::Done`]: so a deletion consumes an entry once, and a put in place of revision 0 claims a key once.
///
/// # Errors
/// [`NatsError`] if the outcome is unknown.
pub(crate) async fn swap(nats: &Nats, at: At<'_>, write: Write) -> Result<Swapped, NatsError> {
    let operation = system::random_id();
    let written = match write {
        Write::Put { mut headers, value } => {
            headers.insert(NATS_MESSAGE_ID, operation.as_str());
            put_with(nats, at, headers, value).await
        }
        Write::Delete { mut headers, body } => {
            headers.insert(NATS_MESSAGE_ID, operation.as_str());
            delete(nats, at, headers, body).await
        }
    };
    match written {
        Ok(()) => Ok(Swapped::Done),
        Err(error @ (NatsError::WrongLastSequence | NatsError::InFlight { .. })) => {
            let newest = get(nats, at.bucket, at.key).await?;
            let (revision, last) = newest
                .as_ref()
                .map_or((0, ""), |entry| (entry.revision, header(&entry.headers, NATS_MESSAGE_ID.as_ref())));
            if last == operation {
                return Ok(Swapped::Done);
            }
            // The write may still be stored, or be lost.
            if matches!(error, NatsError::InFlight { .. }) && revision == at.replaces {
                return Err(error);
            }
            Ok(Swapped::Lost(newest))
        }
        Err(error) => Err(error),
    }
}

/// Creates a key that no other writer chooses, such as a random id. A first try whose answer was lost counts as done.
///
/// # Errors
/// [`NatsError::WrongLastSequence`] if the key exists.
pub(crate) async fn create(nats: &Nats, bucket: &str, key: &str, value: Bytes) -> Result<(), NatsError> {
    match swap(nats, At { bucket, key, replaces: 0 }, Write::Put { headers: HeaderMap::new(), value }).await? {
        Swapped::Done => Ok(()),
        Swapped::Lost(_) => Err(NatsError::WrongLastSequence),
    }
}

/// Decision of an [`update`], with the result that it returns.
pub(crate) enum Change<T> {
    Keep(T),
    Write(Write, T),
}

/// Reads a key, lets `decide` choose from its newest entry, and writes. If another writer was first, decides again from
/// the entry of that writer. Each lost round means that another writer succeeded, so the loop needs no limit.
///
/// # Errors
/// As `decide`; [`NatsError`] if the outcome is unknown.
pub(crate) async fn update<T, E: From<NatsError>>(
    nats: &Nats,
    bucket: &str,
    key: &str,
    decide: impl FnMut(Option<&Entry>) -> Result<Change<T>, E>,
) -> Result<T, E> {
    let newest = get(nats, bucket, key).await?;
    update_from(nats, bucket, key, newest, decide).await
}

/// Like [`update`], but starts from an entry that was already read.
pub(crate) async fn update_from<T, E: From<NatsError>>(
    nats: &Nats,
    bucket: &str,
    key: &str,
    mut newest: Option<Entry>,
    mut decide: impl FnMut(Option<&Entry>) -> Result<Change<T>, E>,
) -> Result<T, E> {
    loop {
        let (write, result) = match decide(newest.as_ref())? {
            Change::Keep(result) => return Ok(result),
            Change::Write(write, result) => (write, result),
        };
        let at = At { bucket, key, replaces: newest.map_or(0, |entry| entry.revision) };
        match swap(nats, at, write).await? {
            Swapped::Done => return Ok(result),
            Swapped::Lost(entry) => newest = entry,
        }
    }
}
