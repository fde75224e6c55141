//! Pages of an account's connections.

use std::collections::HashMap;

use tracing::warn;

use super::parse_key;
use crate::connection::{OauthConnection, StoredConnection};
use crate::jetstream::batch::{self, PageLimits, Part};
use crate::jetstream::kv::{self, Entry};
use crate::store::names::{Named, NamesPage};
use crate::store::{Store, StoreError};
use crate::subject::{self, Account, CONNECTIONS, ConnectionKey, Integration};
use crate::system::TimeSlice;

/// Entries to read with one direct get. Their number bounds the memory that a page of large entries needs.
const READ_AT_ONCE: usize = 100;

pub(crate) struct ConnectionPage {
    pub(crate) connections: Vec<ListedConnection>,
    /// Entries that can neither be read nor restored.
    pub(crate) unreadable: Vec<UnreadableConnection>,
    /// Revision of the last entry, readable or not, or of a deletion marker after it.
    pub(crate) last: u64,
    /// Matching connections in the bucket. The server counts deleted connections too where an account has more names than fit
    /// into memory.
    pub(crate) total: u64,
    /// True if more follow after the last one.
    pub(crate) more: bool,
}

pub(crate) struct ListedConnection {
    /// Revision of the entry in the list. The next page starts after the last one of this page.
    pub(crate) revision: u64,
    pub(crate) key: ConnectionKey,
    pub(crate) connection: OauthConnection,
}

pub(crate) struct UnreadableConnection {
    pub(crate) revision: u64,
    pub(crate) key: ConnectionKey,
}

/// Entries of a page, without deletion markers.
struct EntriesPage {
    /// With their revisions in the list.
    entries: Vec<Entry>,
    last: u64,
    total: u64,
    more: bool,
}

impl Store {
    /// Lists an account's connections after a revision, of one integration or of all, in the order of their last change. Logs
    /// the keys of entries that can neither be read nor restored, and names those that a connection can have.
    pub(crate) async fn connections(
        &self,
        account: &Account,
        integration: Option<&Integration>,
        after: u64,
        limits: PageLimits,
    ) -> Result<ConnectionPage, StoreError> {
        let EntriesPage { entries, last, total, more } = self.entries(account, integration, after, limits).await?;
        let (mut connections, mut unreadable, mut slice) = (Vec::new(), Vec::new(), TimeSlice::begin());
        for entry in entries {
            let (revision, key) = (entry.revision, parse_key(&entry.key).ok());
            slice.pause().await;
            match self.listed_connection(entry).await {
                Ok(Some((key, stored))) => {
                    connections.push(ListedConnection { revision, key, connection: stored.connection });
                }
                Ok(None) => {}
                Err(error) if error.is_junk() => {
                    warn!("skipped in a list: {error}");
                    unreadable.extend(key.map(|key| UnreadableConnection { revision, key }));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ConnectionPage { connections, unreadable, last, total, more })
    }

    async fn listed_connection(&self, entry: Entry) -> Result<Option<(ConnectionKey, StoredConnection)>, StoreError> {
        let key = parse_key(&entry.key)?;
        Ok(self.open_or_restore(&key, &entry).await?.map(|stored| (key, stored)))
    }

    /// Reads the only page of an account with one request to the server, and any other page by the account's names in memory:
    /// the server would count deletion markers.
    async fn entries(
        &self,
        account: &Account,
        integration: Option<&Integration>,
        after: u64,
        limits: PageLimits,
    ) -> Result<EntriesPage, StoreError> {
        let part = Part { bucket: CONNECTIONS, filter: &subject::connections_of(account, integration), after, limits };
        if !self.names.has(account)
            && after == 0
            && let Some(page) = batch::page_of_few(&self.nats, part).await?
            && !page.more
        {
            return Ok(EntriesPage::of(page));
        }
        match self.names.page(account, integration, after, limits.entries).await {
            Ok(Some(page)) => return self.read_named(account, page, after, limits.bytes).await,
            Ok(None) => {}
            Err(error) if error.is_unavailable() => return Err(error.into()),
            Err(error) => warn!("the server makes a page of a large account: {error}"),
        }
        Ok(EntriesPage::of(batch::page_of_many(&self.nats, part).await?))
    }

    /// Reads the entries of the names until they have `bytes` bytes.
    async fn read_named(
        &self,
        account: &Account,
        NamesPage { names, mut total, more }: NamesPage,
        after: u64,
        bytes: u64,
    ) -> Result<EntriesPage, StoreError> {
        let (mut entries, mut last, mut size, mut left) = (Vec::new(), after, 0, names.len());
        'page: for chunk in names.chunks(READ_AT_ONCE) {
            let keys: Vec<String> = chunk.iter().map(|named| subject::with_account(account, &named.name)).collect();
            let found = batch::entries(&self.nats, CONNECTIONS, &keys).await?;
            let mut found: HashMap<String, Entry> = found.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
            for (named, key) in chunk.iter().zip(keys) {
                let entry = self.listed_entry(found.remove(&key), named, &key).await?;
                (last, left) = (named.revision, left - 1);
                let Some(entry) = entry else {
                    self.names.forget_name(account, named);
                    total = total.saturating_sub(1);
                    continue;
                };
                size += u64::try_from(entry.payload.len()).unwrap_or(u64::MAX);
                entries.push(entry);
                if size >= bytes {
                    break 'page;
                }
            }
        }
        Ok(EntriesPage { entries, last, total, more: more || left > 0 })
    }

    /// Returns the entry of a name with its revision in the list, or nothing if it is gone. Any replica may have answered the
    /// direct get, so the leader is asked for what is missing or older than its name in the list.
    async fn listed_entry(&self, found: Option<Entry>, named: &Named, key: &str) -> Result<Option<Entry>, StoreError> {
        let entry = match found.filter(|entry| entry.revision >= named.revision) {
            Some(entry) => Some(entry),
            None => kv::get(&self.nats, CONNECTIONS, key).await?,
        };
        // An entry that was written meanwhile stays where it was in the list; it appears again at the end.
        let entry = entry.filter(|entry| entry.value.is_some());
        Ok(entry.map(|entry| Entry { revision: named.revision, ..entry }))
    }
}

impl EntriesPage {
    fn of(batch::Page { entries, last, total, more }: batch::Page) -> Self {
        Self { entries, last, total, more }
    }
}
