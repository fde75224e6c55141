//! Finds entries and records that no worker can read.

use async_nats::jetstream::message::StreamMessage;

use super::connection::parse_key;
use super::{Store, StoreError, config};
use crate::jetstream::NatsError;
use crate::jetstream::kv;
use crate::jetstream::reader::{Parts, Reader, Stored};
use crate::subject::{
    self, CONFIGS, CONNECTIONS, ConnectionKey, OAUTH, RECORDS_STORED, RECORDS_TEST_STORED, TEST_KEY, kv_stream,
    kv_subject,
};

impl Store {
    /// Returns what is wrong with each entry of a connection or config, and with each record, that cannot be read. Reads all of
    /// them.
    pub(crate) async fn unreadable(&self) -> Result<Vec<StoreError>, StoreError> {
        let mut found = Vec::new();
        for bucket in [CONNECTIONS, CONFIGS] {
            let reader =
                Reader::through(&self.nats, &kv_stream(bucket), &kv_subject(bucket, ">"), 0, Parts::All).await?;
            let Some(mut reader) = reader else { continue };
            while let Some(Stored { sequence, message }) = reader.next().await? {
                let entry = kv::entry_of(bucket, sequence, message);
                if entry.key == TEST_KEY {
                    continue;
                }
                let named = if bucket == CONNECTIONS { parse_key(&entry.key).map(drop) } else { Ok(()) };
                found.extend(named.and_then(|()| self.check_entry(bucket, &entry)).err());
            }
        }
        let Some(mut reader) = Reader::through(&self.nats, OAUTH, RECORDS_STORED, 0, Parts::All).await? else {
            return Ok(found);
        };
        while let Some(Stored { sequence, message }) = reader.next().await? {
            let time = message.info().map_err(NatsError::unreadable)?.published;
            let async_nats::Message { subject, payload, headers, .. } = message.message;
            let headers = headers.unwrap_or_default();
            if subject.as_str() == RECORDS_TEST_STORED {
                continue;
            }
            let record = StreamMessage { subject, sequence, headers, payload, time };
            found.extend(self.check_record(&record).err());
        }
        Ok(found)
    }

    fn check_record(&self, record: &StreamMessage) -> Result<(), StoreError> {
        if let Some(integration) = subject::parse_config_subject(&record.subject) {
            return if config::is_tombstone(record) { Ok(()) } else { self.config_of(&integration, record).map(drop) };
        }
        let key = ConnectionKey::parse_subject(&record.subject);
        let key = key.map_err(StoreError::unreadable(format!("{OAUTH}/{}", record.subject)))?;
        self.connection_of(&key, record).map(drop)
    }
}
