//! Start tickets: one-time links to the authorization request of a login that is bound to its browser.

use async_nats::header::NATS_MESSAGE_ID;
use serde::{Deserialize, Serialize};

use super::{Store, StoreError, json, parse, seal_error};
use crate::jetstream::{NatsError, header, kv};
use crate::seal::SealContext;
use crate::secret::{self, Secret};
use crate::subject::{self, Account, STATES};
use crate::system;

/// What a ticket leads to.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The authorization URL, which holds the state.
    #[serde(serialize_with = "secret::in_clear")]
    pub oauth_url: Secret,
    /// Name of the cookie that the callback demands.
    pub cookie_name: String,
    /// Its value.
    #[serde(serialize_with = "secret::in_clear")]
    pub cookie_value: Secret,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ticket {
    sealed: String,
}

impl Store {
    /// Keeps what a ticket leads to, sealed.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn put_ticket(&self, ticket_hash: &str, account: &Account, start: &Start) -> Result<(), StoreError> {
        let unreadable = |_| StoreError::Unreadable(format!("{STATES}/{ticket_hash}"));
        let text = serde_json::to_string(start).map(Secret::new).map_err(unreadable)?;
        let sealed = self.keyring.seal(seal_context(ticket_hash), &text).map_err(seal_error(STATES, ticket_hash))?;
        let key = subject::ticket_key(ticket_hash, account);
        Ok(kv::put(&self.nats, STATES, &key, json(&Ticket { sealed })?, 0).await.map(drop)?)
    }

    /// Takes what a ticket leads to, once: the mark that it was taken comes first.
    ///
    /// # Errors
    /// [`StoreError`] when the outcome is not known.
    pub async fn take_ticket(&self, ticket_hash: &str) -> Result<Option<Start>, StoreError> {
        let any = subject::ticket_key_of_any(ticket_hash);
        let Some(entry) = kv::get(&self.nats, STATES, &any).await? else { return Ok(None) };
        let Some(value) = entry.value else { return Ok(None) };
        let Ticket { sealed } = parse(STATES, ticket_hash, &value)?;
        let opened = self.keyring.open(seal_context(ticket_hash), &sealed).map_err(seal_error(STATES, ticket_hash))?;
        let start = parse(STATES, ticket_hash, opened.expose().as_bytes())?;

        let attempt = system::random_id();
        let at = kv::At { bucket: STATES, key: &entry.key, replaces: entry.revision };
        match kv::delete(&self.nats, at, crate::jetstream::headers(Some(&attempt)), bytes::Bytes::new()).await {
            Ok(_) => return Ok(Some(start)),
            Err(NatsError::WrongLastSequence | NatsError::InFlight) => {}
            Err(error) => return Err(error.into()),
        }
        // Another took it, or a repetition of this very mark met the first one.
        let mark = kv::get(&self.nats, STATES, &any).await?;
        Ok(mark.filter(|mark| header(&mark.headers, NATS_MESSAGE_ID.as_ref()) == attempt).map(|_| start))
    }
}

/// What of a kept ticket is sealed.
pub(super) fn sealed(value: &[u8]) -> Result<String, StoreError> {
    parse(STATES, "a ticket", value).map(|Ticket { sealed }| sealed)
}

fn seal_context(ticket_hash: &str) -> SealContext<'_> {
    SealContext { bucket: STATES, key: ticket_hash, field: "start", sequence: 0, bound_to: "" }
}
