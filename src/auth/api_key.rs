//! API keys: `tb_<id>_<secret>`. The secret has 256 random bits, so the bucket stores a plain hash of it: a slow
//! password hash would add nothing.
//!
//! Revocation replaces the key's entry by a deletion marker. The key then is in no list, and the event says who revoked
//! it.

mod cache;
pub(crate) mod unpublished;

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use fail::fail_point;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

pub(crate) use self::cache::ApiKeys;
use crate::command::Origin;
use crate::event::{Event, EventKind};
use crate::foreign_text::has_hidden;
use crate::jetstream::kv::{self, At, Change, Swapped, Write};
use crate::jetstream::{Nats, NatsError};
use crate::rights::{Derived, End, Grant, Networks, Rights, Role, Scopes};
use crate::secret::Secret;
use crate::subject::{API_KEYS, Account};
use crate::system;

/// Default lifetime of a key, in days.
pub(crate) const EXPIRES_DAYS: u16 = 90;
/// Longest lifetime of a key, in days: ten years.
const MAX_DAYS: u16 = 3_650;
/// Longest name of a key, in characters: fits into a line of a list.
const MAX_NAME_CHARS: usize = 128;
/// Length of a key's id, in hexadecimal digits.
const ID_LENGTH: usize = 12;
/// Length of a key's secret: 32 bytes in base64url.
const SECRET_LENGTH: usize = 43;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to {MAX_DAYS}")]
pub(crate) struct LifetimeError;

/// The end of a key that is made now: after the wished number of days, or after [`EXPIRES_DAYS`] at most.
pub(crate) fn end_of(wish: Option<u16>, now: Timestamp) -> Result<End, LifetimeError> {
    let after =
        |days: u16| now.saturating_add(SignedDuration::from_hours(i64::from(days) * 24)).unwrap_or(Timestamp::MAX);
    match wish {
        None => Ok(End::AtMost(after(EXPIRES_DAYS))),
        Some(days) if (1..=MAX_DAYS).contains(&days) => Ok(End::At(after(days))),
        Some(_) => Err(LifetimeError),
    }
}

/// Entry of the bucket. A worker that doesn't know one of its fields rejects the key: the field may be a restriction.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredKey {
    /// base64url(SHA-256(secret)).
    pub hash: String,
    pub account: Account,
    /// Either `role` or `scopes` is present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scopes: Option<Scopes>,
    #[serde(default, skip_serializing_if = "Networks::is_empty")]
    pub networks: Networks,
    /// For people.
    pub name: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    /// Requests per second that each worker accepts; unlimited if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NonZeroU32>,
    /// Accurate to a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

/// A key for display: everything but the hash.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ListedKey {
    /// The middle part of the key.
    pub id: String,
    pub account: Account,
    /// Absent if the key was made with scopes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// The scopes that the key has now.
    pub scopes: Scopes,
    #[serde(default, skip_serializing_if = "Networks::is_empty")]
    pub networks: Networks,
    pub name: String,
    pub created: Timestamp,
    pub expires: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_used: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(crate) struct NewKey {
    /// From [`id_from`].
    pub id: String,
    pub account: Account,
    pub rights: Derived,
    pub name: String,
    pub rate_limit: Option<NonZeroU32>,
}

/// The author of a change, for its event.
#[derive(Debug)]
pub(crate) struct Author<'a> {
    pub actor: &'a str,
    pub origin: Origin,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CreateError {
    /// Lists show the name on a terminal.
    #[error("name must be at most {MAX_NAME_CHARS} characters, without control characters and invisible characters")]
    Name,
    #[error(transparent)]
    Nats(#[from] NatsError),
}

impl StoredKey {
    fn scopes(&self, member: &Scopes) -> Scopes {
        let Self { role, scopes, .. } = self;
        let of_role = || role.map(|role| Grant::Role(role).scopes(member));
        scopes.clone().or_else(of_role).unwrap_or_default()
    }

    fn rights(&self, member: &Scopes) -> Rights {
        Rights { scopes: self.scopes(member), networks: self.networks.clone(), end: Some(self.expires) }
    }
}

impl ListedKey {
    fn of(id: &str, stored: StoredKey, member: &Scopes) -> Self {
        let scopes = stored.scopes(member);
        let StoredKey { hash: _, account, role, scopes: _, networks, name, created, expires, rate_limit, last_used } =
            stored;
        Self { id: id.to_owned(), account, role, scopes, networks, name, created, expires, rate_limit, last_used }
    }
}

/// Makes a key's id of random bytes.
pub(crate) fn id_from(random: [u8; 32]) -> String {
    let first = random.first_chunk().copied().unwrap_or_default();
    format!("{:012x}", u64::from_be_bytes(first) >> 16)
}

/// Creates a key and stores its hash. Returns the key itself, which cannot be read again. `member` are the scopes of the
/// role `member`, for display.
pub(crate) async fn create(
    nats: &Nats,
    key: NewKey,
    author: &Author<'_>,
    member: &Scopes,
) -> Result<(Secret, ListedKey), CreateError> {
    let NewKey { id, account, rights, name, rate_limit } = key;
    let Derived { grant, networks, end: expires } = rights;
    let (role, scopes) = match grant {
        Grant::Role(role) => (Some(role), None),
        Grant::Scopes(scopes) => (None, Some(scopes)),
    };
    if name.chars().count() > MAX_NAME_CHARS || has_hidden(&name) {
        return Err(CreateError::Name);
    }
    let secret = Secret::new(BASE64_URL_SAFE_NO_PAD.encode(system::random::<32>()));
    let created = system::now();
    let hash = hash(secret.expose());
    let last_used = None;
    let stored = StoredKey { hash, account, role, scopes, networks, name, created, expires, rate_limit, last_used };
    let event = Event::about_key(&stored.account, &id, EventKind::ApiKeyCreated, author.actor, created);
    let event = event.from(&author.origin);
    let write = Write::Put { headers: unpublished::headers(&event)?, value: to_json(&stored)? };
    if let Swapped::Lost(_) = kv::swap(nats, At { bucket: API_KEYS, key: &id, replaces: 0 }, write).await? {
        return Err(NatsError::WrongLastSequence.into());
    }
    fail_point!("api_key_created");
    unpublished::publish(nats, &id).await?;
    Ok((Secret::new(format!("tb_{id}_{}", secret.expose())), ListedKey::of(&id, stored, member)))
}

/// Lists the keys of one account, or of all, sorted by id. Includes expired keys, but not revoked ones.
pub(crate) async fn list(nats: &Nats, account: Option<&Account>, member: &Scopes) -> Result<Vec<ListedKey>, NatsError> {
    let mut keys = Vec::new();
    for kv::KeyValue { key: id, value } in kv::values(nats, API_KEYS, ">").await? {
        let Ok(stored) = serde_json::from_slice::<StoredKey>(&value) else {
            warn!(id, "an entry of the API keys cannot be read; it is left out of lists, and no key has its id");
            continue;
        };
        if account.is_none_or(|account| *account == stored.account) {
            keys.push(ListedKey::of(&id, stored, member));
        }
    }
    Ok(keys)
}

/// Revokes a key of the given account, or of any account. Returns the key's account, or `None` if there is no such key.
/// Repeating a revocation does no harm.
pub(crate) async fn revoke(
    nats: &Nats,
    id: &str,
    account: Option<&Account>,
    author: &Author<'_>,
) -> Result<Option<Account>, NatsError> {
    if !is_id(id) {
        return Ok(None);
    }
    unpublished::publish(nats, id).await?;
    let now = system::now();
    // A worker may store the key's last use at the same moment: the loop then revokes the newer entry.
    let revoked = kv::update(nats, API_KEYS, id, |entry| {
        let Some(value) = entry.and_then(|entry| entry.value.as_ref()) else { return Ok(Change::Keep(None)) };
        let stored: StoredKey = serde_json::from_slice(value).map_err(NatsError::unreadable)?;
        if account.is_some_and(|account| *account != stored.account) {
            return Ok(Change::Keep(None));
        }
        let event = Event::about_key(&stored.account, id, EventKind::ApiKeyRevoked, author.actor, now);
        let event = event.from(&author.origin);
        let write = Write::Delete { headers: unpublished::headers(&event)?, body: bytes::Bytes::new() };
        Ok::<_, NatsError>(Change::Write(write, Some(stored.account)))
    });
    let revoked = revoked.await?;
    fail_point!("api_key_revoked");
    unpublished::publish(nats, id).await?;
    Ok(revoked)
}

fn to_json(value: &impl Serialize) -> Result<bytes::Bytes, NatsError> {
    serde_json::to_vec(value).map(Into::into).map_err(NatsError::unreadable)
}

fn parse(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix("tb_")?.split_once('_')?;
    (is_id(id) && secret.len() == SECRET_LENGTH).then_some((id, secret))
}

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
    fn only_keys_of_the_created_form_are_looked_up() {
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
