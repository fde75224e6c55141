//! Reads the names of one account.

use std::time::Instant;

use tracing::info;

use super::{Indexed, MAX_NAMES, NameIndex, State};
use crate::jetstream::reader::Reader;
use crate::jetstream::{NatsError, kv};
use crate::subject::{self, Account, CONNECTIONS, kv_stream, kv_subject};

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
        let read = self.read_entries(account).await;
        let mut state = self.lock();
        match read {
            Ok(Read::Whole) => Ok(state.complete(account)),
            Ok(read) => {
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
        let mut reader = Reader::headers(&self.0.nats, &kv_stream(CONNECTIONS), &filter).await?;
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
}

impl State {
    fn complete(&mut self, account: &Account) -> bool {
        let Some(Indexed { names, is_complete, listed }) = self.accounts.get_mut(account.as_str()) else {
            return false;
        };
        (*is_complete, *listed) = (true, Instant::now());
        info!(%account, names = names.len(), "read the names of a large account");
        true
    }
}
