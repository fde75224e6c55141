//! Tombstones of form 1, which hold metadata and scope of the deleted connection and never expire.

use std::time::{Duration, Instant};

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_TTL;
use async_nats::jetstream::message::StreamMessage;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tracing::warn;

use super::migrate::{CHUNK, Migrated};
use crate::command::{HEADER_COMMAND, HEADER_SEALED_REFRESH, HEADER_STATUS};
use crate::connection::{SealedPart, Status, StoredConnection};
use crate::jetstream::reader::Reader;
use crate::jetstream::{NatsError, header};
use crate::protocol::records::{self, NewRecord, Written};
use crate::store::{Store, StoreError, json};
use crate::subject::{ConnectionKey, OAUTH, TOKENS};

/// [`NewRecord::name`] of a tombstone in place of one of form 1.
const MIGRATED: &str = "migrated";

impl Store {
    /// Replaces the tombstones without an expiry by empty ones that expire after `kept`.
    pub(super) async fn migrate_tombstones(&self, kept: Duration, migrated: &mut Migrated) -> Result<(), StoreError> {
        let mut reader = Reader::headers(&self.nats, OAUTH, TOKENS).await?;
        loop {
            let chunk = reader.next_chunk(CHUNK).await?;
            if chunk.is_empty() {
                return Ok(());
            }
            let subjects = chunk
                .into_iter()
                .map(|stored| stored.message)
                .filter(|message| message.headers.as_ref().is_some_and(is_of_form_1));
            let done = stream::iter(subjects).map(async |message| self.migrate_tombstone(&message.subject, kept).await);
            for unreadable in done.buffered(CHUNK).try_collect::<Vec<_>>().await? {
                migrated.unreadable.extend(unreadable);
            }
        }
    }

    /// Returns the tombstone's name if it cannot be read.
    async fn migrate_tombstone(&self, subject: &str, kept: Duration) -> Result<Option<String>, StoreError> {
        let newest = records::last(&self.nats, subject).await?;
        let Some(tombstone) = newest.filter(|newest| is_of_form_1(&newest.headers)) else { return Ok(None) };
        let until = Instant::now() + records::RETRY_FOR;
        match self.empty_tombstone(subject, &tombstone, kept) {
            Ok(record) => match records::write(&self.nats, record, || until, async || None).await? {
                Written::Stored(_) => Ok(None),
                Written::Replaced { .. } | Written::Superseded => Err(NatsError::WrongLastSequence.into()),
            },
            Err(error) if error.is_junk() => {
                warn!("not migrated: {error}");
                Ok(Some(format!("{OAUTH}/{subject}")))
            }
            Err(error) => Err(error),
        }
    }

    fn empty_tombstone(&self, subject: &str, old: &StreamMessage, kept: Duration) -> Result<NewRecord, StoreError> {
        let key = ConnectionKey::parse_subject(subject).map_err(StoreError::unreadable(subject))?;
        let command_id = header(&old.headers, HEADER_COMMAND).to_owned();
        let StoredConnection { connection, issued_at, login_id, grant, refresh_failure: _, unknown } =
            self.connection_of(&key, old)?.deleted();
        let part = SealedPart { refresh_token: None, issued_at, login_id, grant, unknown };
        let mut headers = HeaderMap::new();
        headers.insert(HEADER_SEALED_REFRESH, self.seal_part(&key, &command_id, &part)?);
        headers.insert(HEADER_STATUS, connection.status.as_str());
        headers.insert(NATS_MESSAGE_TTL, kept.as_secs().to_string());
        Ok(NewRecord {
            publish_to: key.record_subject(),
            subject: key.subject(),
            command_id,
            name: MIGRATED,
            replaces: old.sequence,
            headers,
            body: json(&connection)?,
        })
    }
}

fn is_of_form_1(headers: &HeaderMap) -> bool {
    header(headers, HEADER_STATUS) == Status::Revoked.as_str() && headers.get(NATS_MESSAGE_TTL).is_none()
}
