//! Records of connections. The body of a record is for subscribers; the parts that only workers may see are sealed in a
//! header.

use async_nats::jetstream::message::StreamMessage;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Store, StoreError, parse};
use crate::command::{HEADER_COMMAND, HEADER_SEALED_EVENT, HEADER_SEALED_REFRESH, HEADER_SEALED_REVOCATION};
use crate::connection::{OauthConnection, SealedPart, StoredConnection, WaitingRevocation};
use crate::event::RecordEvent;
use crate::jetstream::header;
use crate::seal::SealContext;
use crate::secret::Secret;
use crate::subject::{ConnectionKey, OAUTH};

impl Store {
    /// Seals the header of a connection's record, bound to the command that writes the record.
    pub fn seal_part(&self, key: &ConnectionKey, command_id: &str, part: &SealedPart) -> Result<String, StoreError> {
        let subject = key.subject();
        let text = serde_json::to_string(part).map(Secret::new).map_err(StoreError::unreadable(subject.as_str()))?;
        self.keyring
            .seal(seal_context(&subject, command_id), &text)
            .map_err(StoreError::seal(format!("{OAUTH}/{subject}")))
    }

    /// Seals the revocation that a tombstone waits for.
    pub(crate) fn seal_revocation(
        &self,
        key: &ConnectionKey,
        command_id: &str,
        waiting: &WaitingRevocation,
    ) -> Result<String, StoreError> {
        self.seal_header(HEADER_SEALED_REVOCATION, &key.subject(), command_id, waiting)
    }

    /// Returns the revocation that a tombstone waits for.
    pub(crate) fn waiting_revocation(
        &self,
        key: &ConnectionKey,
        tombstone: &StreamMessage,
    ) -> Result<Option<WaitingRevocation>, StoreError> {
        self.open_header(HEADER_SEALED_REVOCATION, &key.subject(), tombstone)
    }

    /// Seals the event of a record of a connection or config.
    pub(crate) fn seal_event(
        &self,
        subject: &str,
        command_id: &str,
        event: &RecordEvent,
    ) -> Result<String, StoreError> {
        self.seal_header(HEADER_SEALED_EVENT, subject, command_id, event)
    }

    /// Returns the event of a record. Records of earlier releases have none.
    pub(crate) fn event_of(&self, subject: &str, record: &StreamMessage) -> Result<Option<RecordEvent>, StoreError> {
        self.open_header(HEADER_SEALED_EVENT, subject, record)
    }

    fn seal_header(
        &self,
        field: &str,
        subject: &str,
        command_id: &str,
        value: &impl Serialize,
    ) -> Result<String, StoreError> {
        let text = serde_json::to_string(value).map(Secret::new).map_err(StoreError::unreadable(subject))?;
        let context = SealContext { field, ..seal_context(subject, command_id) };
        self.keyring.seal(context, &text).map_err(StoreError::seal(format!("{OAUTH}/{subject}")))
    }

    fn open_header<T: DeserializeOwned>(
        &self,
        field: &str,
        subject: &str,
        record: &StreamMessage,
    ) -> Result<Option<T>, StoreError> {
        let sealed = header(&record.headers, field);
        if sealed.is_empty() {
            return Ok(None);
        }
        let context = SealContext { field, ..seal_context(subject, header(&record.headers, HEADER_COMMAND)) };
        let opened = self.keyring.open(context, sealed).map_err(StoreError::seal(format!("{OAUTH}/{subject}")))?;
        parse(OAUTH, subject, opened.expose().as_bytes()).map(Some)
    }

    /// Puts a connection together from its record.
    pub(crate) fn connection_of(
        &self,
        key: &ConnectionKey,
        record: &StreamMessage,
    ) -> Result<StoredConnection, StoreError> {
        let subject = key.subject();
        let mut connection: OauthConnection = parse(OAUTH, &subject, &record.payload)?;
        let context = seal_context(&subject, header(&record.headers, HEADER_COMMAND));
        let opened = self
            .keyring
            .open(context, header(&record.headers, HEADER_SEALED_REFRESH))
            .map_err(StoreError::seal(format!("{OAUTH}/{subject}")))?;
        let SealedPart { refresh_token, issued_at, login_id, grant, unknown } =
            parse(OAUTH, &subject, opened.expose().as_bytes())?;
        connection.refresh_token = refresh_token;
        connection.sequence = record.sequence;
        connection.modified = modified(record);
        Ok(StoredConnection { connection, issued_at, login_id, grant, refresh_failure: None, unknown })
    }
}

/// Unix seconds at which the server stored a record.
#[must_use]
pub(super) fn modified(record: &StreamMessage) -> u64 {
    u64::try_from(record.time.unix_timestamp()).unwrap_or(0)
}

fn seal_context<'a>(subject: &'a str, command_id: &'a str) -> SealContext<'a> {
    SealContext { bucket: OAUTH, key: subject, field: HEADER_SEALED_REFRESH, sequence: 0, bound_to: command_id }
}
