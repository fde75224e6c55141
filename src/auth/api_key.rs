//! API keys: `tb_<id>_<secret>`. The secret has 256 random bits, so the bucket keeps a plain hash of it.
//!
//! A revoked key's entry becomes a deletion marker: it is in no list any more, and its event says who revoked it.

mod cache;

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub(crate) use self::cache::ApiKeys;
use super::Role;
use crate::event::{Event, EventKind};
use crate::jetstream::{Nats, NatsError, kv};
use crate::secret::Secret;
use crate::subject::{self, API_KEYS, Account};
use crate::system;

/// Days that a key lives when nothing else is said.
pub(crate) const EXPIRES_DAYS: u16 = 90;
/// Longest life of a key that can be asked for, in days.
const MAX_DAYS: u16 = 3_650;
/// Longest name of a key, in characters.
const MAX_NAME: usize = 128;
const ID_LENGTH: usize = 12;

/// A number of days that no key may live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_DAYS}")]
pub(crate) struct LifetimeError;

/// A lifetime in days.
///
/// # Errors
/// No days, or more than ten years of them.
pub(crate) fn days(days: u16) -> Result<SignedDuration, LifetimeError> {
    if (1..=MAX_DAYS).contains(&days) {
        Ok(SignedDuration::from_hours(i64::from(days) * 24))
    } else {
        Err(LifetimeError)
    }
}

/// What the bucket keeps of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    /// base64url(SHA-256(secret)).
    pub hash: String,
    /// The account it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Requests a second at each worker; none: as many as come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NonZeroU32>,
    /// When it was used, to the minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// What people see of a key: all but the hash.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct ListedKey {
    /// Its id, the middle part of the key.
    pub id: String,
    /// The account it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// When it was made.
    pub created: Timestamp,
    /// When it ends.
    pub expires: Timestamp,
    /// Requests a second at each worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NonZeroU32>,
    /// When it was used, to the minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// What a new key is for.
#[derive(Debug, Clone)]
pub(crate) struct NewKey {
    /// The account it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// How long it lives.
    pub lifetime: SignedDuration,
    /// Requests a second at each worker.
    pub rate_limit: Option<NonZeroU32>,
}

/// Why no key was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// A name that does not do in a list.
    #[error("name must be at most {MAX_NAME} characters, without control characters")]
    Name,
    /// It could not be stored.
    #[error("{0}")]
    Nats(#[from] NatsError),
}

impl ListedKey {
    fn of(id: &str, stored: StoredKey) -> Self {
        let StoredKey { hash: _, account, role, name, created, expires, rate_limit, last_used } = stored;
        Self { id: id.to_owned(), account, role, name, created, expires, rate_limit, last_used }
    }
}

/// Makes a key and stores its hash. Gives the key itself, which nobody can read again, and what is shown of it.
///
/// # Errors
/// [`CreateError`].
pub(crate) async fn create(nats: &Nats, key: NewKey, actor: &str) -> Result<(Secret, ListedKey), CreateError> {
    let NewKey { account, role, name, lifetime, rate_limit } = key;
    if name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        return Err(CreateError::Name);
    }
    let id = format!("{:012x}", u64::from_be_bytes(system::random()) >> 16);
    let secret = Secret::new(BASE64_URL_SAFE_NO_PAD.encode(system::random::<32>()));
    let created = system::now();
    let expires = created.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
    let hash = hash(secret.expose());
    let stored = StoredKey { hash, account, role, name, created, expires, rate_limit, last_used: None };
    kv::put(nats, API_KEYS, &id, to_json(&stored)?, 0).await?;
    publish_event(nats, EventKind::ApiKeyCreated, &stored.account, &id, actor).await?;
    Ok((Secret::new(format!("tb_{id}_{}", secret.expose())), ListedKey::of(&id, stored)))
}

/// The keys of one account, or of all, in the order of their ids. Expired ones are among them, revoked ones are not.
///
/// # Errors
/// [`NatsError`] when they could not be read.
pub(crate) async fn list(nats: &Nats, account: Option<&Account>) -> Result<Vec<ListedKey>, NatsError> {
    let mut keys = Vec::new();
    for kv::KeyValue { key: id, value } in kv::values(nats, API_KEYS, ">").await? {
        let stored: StoredKey = serde_json::from_slice(&value).map_err(NatsError::unreadable)?;
        if account.is_none_or(|account| *account == stored.account) {
            keys.push(ListedKey::of(&id, stored));
        }
    }
    Ok(keys)
}

/// Revokes a key of that account, or of any. Gives the account, or nothing when there is no such key.
///
/// # Errors
/// [`NatsError`] when it could not be revoked; asking again does no harm.
pub(crate) async fn revoke(
    nats: &Nats,
    id: &str,
    account: Option<&Account>,
    actor: &str,
) -> Result<Option<Account>, NatsError> {
    if !is_id(id) {
        return Ok(None);
    }
    loop {
        let Some(entry) = kv::get(nats, API_KEYS, id).await? else { return Ok(None) };
        let Some(value) = entry.value else { return Ok(None) };
        let stored: StoredKey = serde_json::from_slice(&value).map_err(NatsError::unreadable)?;
        if account.is_some_and(|account| *account != stored.account) {
            return Ok(None);
        }
        let at = kv::At { bucket: API_KEYS, key: id, replaces: entry.revision };
        match kv::delete(nats, at, crate::jetstream::headers(None), bytes::Bytes::new()).await {
            Ok(_) => {
                publish_event(nats, EventKind::ApiKeyRevoked, &stored.account, id, actor).await?;
                return Ok(Some(stored.account));
            }
            // Somebody noted down that it was used: once more, in place of that.
            Err(NatsError::WrongLastSequence) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Leaves an event about a key.
async fn publish_event(
    nats: &Nats,
    kind: EventKind,
    account: &Account,
    id: &str,
    actor: &str,
) -> Result<(), NatsError> {
    let name = kind.as_str();
    let event = Event::about_key(account, id, kind, actor, system::now());
    let headers = crate::jetstream::headers(Some(&format!("{id}.{name}")));
    nats.publish(&subject::account_event(account, name), headers, to_json(&event)?).await.map(drop)
}

fn to_json(value: &impl Serialize) -> Result<bytes::Bytes, NatsError> {
    serde_json::to_vec(value).map(Into::into).map_err(NatsError::unreadable)
}

fn parse(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix("tb_")?.split_once('_')?;
    (is_id(id) && secret.len() == 43).then_some((id, secret))
}

/// Whether a text has the form of a key's id.
#[must_use]
pub(crate) fn is_id(text: &str) -> bool {
    text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit())
}

fn hash(secret: &str) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(Sha256::digest(secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_form_that_create_makes_is_looked_up() {
        let secret = "s".repeat(43);
        assert_eq!(parse(&format!("tb_0123456789ab_{secret}")), Some(("0123456789ab", secret.as_str())));
        for key in [
            "",
            "tb_",
            "tb__",
            "tb_*_x",
            &format!("tb_>_{secret}"),
            &format!("tb_0123456789ab_{secret}x"),
            &format!("0123456789ab_{secret}"),
        ] {
            assert_eq!(parse(key), None, "{key}");
        }
    }
}
