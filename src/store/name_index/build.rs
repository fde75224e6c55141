//! Reads the names of one account.

use std::time::Instant;

use tracing::info;

use super::{Indexed, MAX_NAMES, NameIndex, State};
use crate::command::HEADER_STATUS;
use crate::connection::Status;
use crate::jetstream::reader::Reader;
use crate::jetstream::{NatsError, header, kv};
use crate::subject::{self, Account, CONNECTIONS, OAUTH, kv_stream, kv_subject};

/// Decides whether the reading goes on.
#[derive(PartialEq, Eq)]
enum Read {
    Whole,
    TooMany,
    /// The watch ended meanwhile.
    Forgotten,
}

impl NameIndex {
    /// Reads an account's names while the watch adds what changes. Returns false if they do not fit into memory, or the watch
    /// ended.
    pub(super) async fn build(&self, account: &Account) -> Result<bool, NatsError> {
        let _one_at_a_time = self.0.building.lock().await;
        if self.has(account) || self.0.too_large.contains_key(account) {
            return Ok(self.has(account));
        }
        self.lock().accounts.insert(account.as_str().to_owned(), Indexed::empty());
        let read = tokio::try_join!(self.read_entries(account), self.read_tombstones(account));
        let mut state = self.lock();
        match read {
            Ok((Read::Whole, ())) => Ok(state.complete(account)),
            Ok((read, ())) => {
                if read == Read::TooMany {
                    self.0.too_large.insert(account.clone(), ());
                }
                state.accounts.remove(account.as_str());
                Ok(false)
            }
            Err(error) => {
                state.accounts.remove(account.as_str());
                Err(error)
            }
        }
    }

    async fn read_entries(&self, account: &Account) -> Result<Read, NatsError> {
        let filter = kv_subject(CONNECTIONS, &subject::connections_of(account, None));
        let mut reader = Reader::headers(&self.0.nats, &kv_stream(CONNECTIONS), filter).await?;
        while let Some(stored) = reader.next().await? {
            let entry = kv::entry_of(CONNECTIONS, stored.sequence, stored.message);
            let mut state = self.lock();
            let Some(Indexed { names, .. }) = state.accounts.get_mut(account.as_str()) else {
                return Ok(Read::Forgotten);
            };
            if let Some((_, name)) = subject::split_account(&entry.key)
                && entry.value.is_some()
            {
                names.put(name, entry.revision);
            }
            if names.len() > MAX_NAMES {
                return Ok(Read::TooMany);
            }
        }
        Ok(Read::Whole)
    }

    /// A deletion that began before the watch may not have removed its entry yet.
    async fn read_tombstones(&self, account: &Account) -> Result<(), NatsError> {
        let mut reader = Reader::headers(&self.0.nats, OAUTH, subject::tokens_of(account)).await?;
        while let Some(stored) = reader.next().await? {
            let message = stored.message.message;
            let is_tombstone =
                message.headers.is_some_and(|headers| header(&headers, HEADER_STATUS) == Status::Revoked.as_str());
            if is_tombstone
                && let Some((_, name)) = subject::split_record(&message.subject)
                && let Some(indexed) = self.lock().accounts.get_mut(account.as_str())
            {
                indexed.doubtful.insert(name.into());
            }
        }
        Ok(())
    }
}

impl State {
    fn complete(&mut self, account: &Account) -> bool {
        let Some(Indexed { names, doubtful, is_complete, listed }) = self.accounts.get_mut(account.as_str()) else {
            return false;
        };
        doubtful.retain(|name| names.revision(name).is_some());
        (*is_complete, *listed) = (true, Instant::now());
        info!(%account, names = names.len(), "read the names of a large account");
        true
    }
}
