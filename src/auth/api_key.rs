//! API keys: `tb_<id>_<secret>`. The secret has 256 random bits, so the bucket keeps a plain hash of it.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use super::{AuthError, Caller, Role};
use crate::nats::{Nats, NatsError, bucket};
use crate::secret::Secret;
use crate::subject::{API_KEYS, Account};
use crate::system;

/// A lifetime in days.
#[must_use]
pub const fn days(days: u16) -> SignedDuration {
    SignedDuration::from_hours(days as i64 * 24)
}

/// What the bucket keeps of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredKey {
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
}

/// What a new key is for.
pub struct NewKey {
    /// The account it acts for.
    pub account: Account,
    /// What it may do.
    pub role: Role,
    /// What people call it.
    pub name: String,
    /// How long it lives.
    pub lifetime: SignedDuration,
}

/// Makes a key and stores its hash. Gives the key itself, which nobody can read again, and its id.
///
/// # Errors
/// [`NatsError`] when it could not be stored.
pub async fn create(nats: &Nats, key: NewKey) -> Result<(Secret, String), NatsError> {
    let NewKey { account, role, name, lifetime } = key;
    let id = format!("{:012x}", u64::from_be_bytes(system::random()) >> 16);
    let secret = Secret::new(BASE64_URL_SAFE_NO_PAD.encode(system::random::<32>()));
    let created = system::now();
    let expires = created.saturating_add(lifetime).unwrap_or(Timestamp::MAX);
    let stored = StoredKey { hash: hash(secret.expose()), account, role, name, created, expires };
    let value = serde_json::to_vec(&stored).map_err(|_| NatsError::Unreadable)?;
    bucket::put(nats, API_KEYS, &id, value.into(), 0).await?;
    Ok((Secret::new(format!("tb_{id}_{}", secret.expose())), id))
}

/// Checks a key: the same work is done whether the id is known or not.
///
/// # Errors
/// [`AuthError::Invalid`] for anything but a known key within its lifetime.
pub async fn authenticate(nats: &Nats, key: &str, now: Timestamp) -> Result<Caller, AuthError> {
    let (id, secret) = parse(key).ok_or(AuthError::Invalid)?;
    let entry = bucket::get(nats, API_KEYS, id).await?;
    let stored: Option<StoredKey> =
        entry.and_then(|entry| entry.value).and_then(|value| serde_json::from_slice(&value).ok());
    let expected = stored.as_ref().map_or("", |stored| stored.hash.as_str());
    let is_same: bool = hash(secret).as_bytes().ct_eq(expected.as_bytes()).into();
    match stored {
        Some(stored) if is_same && now < stored.expires => {
            Ok(Caller { account: stored.account, role: stored.role, actor: format!("key:{id}") })
        }
        _ => Err(AuthError::Invalid),
    }
}

fn parse(key: &str) -> Option<(&str, &str)> {
    let (id, secret) = key.strip_prefix("tb_")?.split_once('_')?;
    let is_id = id.len() == 12 && id.bytes().all(|b| b.is_ascii_hexdigit());
    (is_id && secret.len() == 43).then_some((id, secret))
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
