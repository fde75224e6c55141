//! Start tickets: links to the authorization request of a login that is bound to its browser. A ticket is used once.
//!
//! A ticket's key has three tokens (`<hash>.<account>.start`), a login's has two. So a ticket is never taken for a
//! state, and never counted as a pending login.

use async_nats::HeaderMap;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, json, parse};
use crate::jetstream::kv::{self, Entry, Swapped, Write};
use crate::seal::SealContext;
use crate::secret::{self, Secret};
use crate::subject::{self, Account, ConnectionName, Integration, STATES};

/// The authorization request that a ticket leads to, the connection that it is for, and the cookie that binds the login to
/// the browser.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Start {
    /// Secret, because it holds the state.
    #[serde(serialize_with = "secret::in_clear")]
    pub(crate) oauth_url: Secret,
    pub(crate) integration: Integration,
    pub(crate) name: ConnectionName,
    pub(crate) cookie_name: String,
    #[serde(serialize_with = "secret::in_clear")]
    pub(crate) cookie_value: Secret,
}

#[derive(Serialize, Deserialize)]
struct Ticket {
    sealed: String,
}

impl Store {
    pub(crate) async fn put_ticket(
        &self,
        ticket_hash: &str,
        account: &Account,
        start: &Start,
    ) -> Result<(), StoreError> {
        let what = format!("{STATES}/{ticket_hash}");
        let text = serde_json::to_string(start).map(Secret::new).map_err(StoreError::unreadable(what.as_str()))?;
        let sealed = self.keyring.seal(seal_context(ticket_hash), &text).map_err(StoreError::seal(what))?;
        let key = subject::ticket_key(ticket_hash, account);
        Ok(kv::create(&self.nats, STATES, &key, json(&Ticket { sealed })?).await?)
    }

    /// Returns the account that made a ticket, and the ticket's content. The ticket stays usable.
    pub(crate) async fn ticket(&self, ticket_hash: &str) -> Result<Option<(Account, Start)>, StoreError> {
        let Some((entry, start)) = self.unused_ticket(ticket_hash).await? else { return Ok(None) };
        let account = entry.key.split('.').nth(1).unwrap_or_default();
        let account = Account::parse(account).map_err(StoreError::unreadable(format!("{STATES}/{ticket_hash}")))?;
        Ok(Some((account, start)))
    }

    /// Uses a ticket up and returns its content. Opens it first: a key that is missing for a moment then costs no
    /// ticket.
    ///
    /// # Errors
    /// If the outcome is unknown. The ticket may then be used up.
    pub(crate) async fn take_ticket(&self, ticket_hash: &str) -> Result<Option<Start>, StoreError> {
        let Some((entry, start)) = self.unused_ticket(ticket_hash).await? else { return Ok(None) };
        let at = kv::At { bucket: STATES, key: &entry.key, replaces: entry.revision };
        let write = Write::Delete { headers: HeaderMap::new(), body: Bytes::new() };
        match kv::swap(&self.nats, at, write).await? {
            Swapped::Done => Ok(Some(start)),
            Swapped::Lost(_) => Ok(None),
        }
    }

    async fn unused_ticket(&self, ticket_hash: &str) -> Result<Option<(Entry, Start)>, StoreError> {
        let any = subject::ticket_key_of_any(ticket_hash);
        let Some(entry) = kv::get(&self.nats, STATES, &any).await? else { return Ok(None) };
        let Some(value) = &entry.value else { return Ok(None) };
        let Ticket { sealed } = parse(STATES, ticket_hash, value)?;
        let opened = self
            .keyring
            .open(seal_context(ticket_hash), &sealed)
            .map_err(StoreError::seal(format!("{STATES}/{ticket_hash}")))?;
        let start = parse(STATES, ticket_hash, opened.expose().as_bytes())?;
        Ok(Some((entry, start)))
    }
}

/// Returns the sealed text of a stored ticket.
pub(super) fn sealed(value: &[u8]) -> Result<String, StoreError> {
    parse(STATES, "a ticket", value).map(|Ticket { sealed }| sealed)
}

fn seal_context(ticket_hash: &str) -> SealContext<'_> {
    SealContext { bucket: STATES, key: ticket_hash, field: "start", sequence: 0, bound_to: "" }
}
