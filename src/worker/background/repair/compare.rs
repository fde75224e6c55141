//! Compares records with the buckets' entries, in both directions.
//!
//! A worker writes an entry right after its record. If it dies in between and its command is lost, the entry is missing or old:
//! it is written from the record. Only a tombstone deletes an entry. An entry without any record stays, because nothing proves
//! that its connection was deleted, and is reported.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use tracing::{info, warn};

use crate::command::HEADER_STATUS;
use crate::connection::Status;
use crate::jetstream::reader::Stored;
use crate::jetstream::{age, batch, header, kv};
use crate::protocol::records;
use crate::store::StoreError;
use crate::subject::{
    CONFIGS, CONNECTIONS, ConnectionKey, Integration, OAUTH, RECORDS_TEST_STORED, config_subject, parse_config_subject,
};
use crate::worker::context::Context;

/// Age from which a tombstone deletes an entry that its deletion has left. Longer than a deletion takes: until it has asked the
/// provider, it may need the tokens in the entry.
const DELETION_TIME: SignedDuration = SignedDuration::from_mins(5);
/// Keys that the log names, of all that lack a record.
const NAMED: usize = 5;

/// Updates the entries that are missing or older than these records. Returns their number.
pub(super) async fn update_entries(context: &Context, seen: &[Stored]) -> Result<usize, StoreError> {
    let entries = Entries::of(context, seen).await?;
    let mut updated = 0;
    for stored in seen {
        let subject = &stored.message.subject;
        if subject.as_str() == RECORDS_TEST_STORED {
            continue;
        }
        if entries.fit(stored, context.clock.now()) || !context.store.update_entry(subject).await? {
            continue;
        }
        info!(record = %subject, sequence = stored.sequence, "updated an entry that was older than its record");
        updated += 1;
    }
    Ok(updated)
}

/// The sequences of the records from which a chunk's entries were written.
struct Entries {
    connections: HashMap<String, u64>,
    configs: HashMap<String, u64>,
}

impl Entries {
    async fn of(context: &Context, seen: &[Stored]) -> Result<Self, StoreError> {
        let (mut connections, mut configs) = (Vec::new(), Vec::new());
        for stored in seen {
            if let Ok(key) = ConnectionKey::parse_subject(&stored.message.subject) {
                connections.push(key.kv_key());
            } else if let Some(integration) = parse_config_subject(&stored.message.subject) {
                configs.push(integration.as_str().to_owned());
            }
        }
        let connections = context.store.entry_sequences(CONNECTIONS, connections).await?;
        Ok(Self { connections, configs: context.store.entry_sequences(CONFIGS, configs).await? })
    }

    /// Returns true if the record's entry or marker is as new.
    fn fit(&self, record: &Stored, now: Timestamp) -> bool {
        let (subject, sequence) = (&record.message.subject, record.sequence);
        if let Ok(key) = ConnectionKey::parse_subject(subject) {
            let status = record.message.headers.as_ref().map_or("", |headers| header(headers, HEADER_STATUS));
            let is_tombstone = status == Status::Revoked.as_str();
            return self.connections.get(&key.kv_key()).is_some_and(|entry| {
                *entry >= sequence || (is_tombstone && age(&record.message, now) < DELETION_TIME)
            });
        }
        let Some(integration) = parse_config_subject(subject) else { return true };
        self.configs.get(integration.as_str()).is_some_and(|entry| *entry >= sequence)
    }
}

/// Entries that no record is known of.
#[derive(Default)]
pub(super) struct WithoutRecord {
    named: Vec<String>,
    number: usize,
}

impl WithoutRecord {
    /// Looks for the records of a chunk's entries.
    pub(super) async fn add_connections(&mut self, context: &Context, seen: &[kv::Entry]) -> Result<(), StoreError> {
        let keys = seen.iter().filter_map(|entry| ConnectionKey::parse_kv_key(&entry.key).ok());
        self.add(context, keys.map(|key| key.subject()).collect()).await
    }

    pub(super) async fn add_configs(&mut self, context: &Context) -> Result<(), StoreError> {
        let keys = kv::keys(&context.nats, CONFIGS, ">").await?;
        let subjects: Vec<String> =
            keys.iter().filter_map(|key| Some(config_subject(&Integration::parse(key).ok()?))).collect();
        for subjects in subjects.chunks(super::CHUNK) {
            self.add(context, subjects.to_vec()).await?;
        }
        Ok(())
    }

    async fn add(&mut self, context: &Context, subjects: Vec<String>) -> Result<(), StoreError> {
        if subjects.is_empty() {
            return Ok(());
        }
        let nats = &context.nats;
        let present: HashSet<String> = batch::present(nats, OAUTH, subjects.clone()).await?.into_iter().collect();
        for subject in subjects.into_iter().filter(|subject| !present.contains(subject)) {
            // A replica may not have the record yet; the leader has.
            if records::last(nats, &subject).await?.is_none() {
                self.number += 1;
                if self.named.len() < NAMED {
                    self.named.push(subject);
                }
            }
        }
        Ok(())
    }

    pub(super) fn report(&self) {
        if self.number > 0 {
            let Self { named, number } = self;
            warn!(?named, "{number} entries have no record, so nothing can restore them; they stay as they are");
        }
    }
}
