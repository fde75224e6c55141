//! Cache of verified JWTs, so that a caller's next request costs a hash instead of a signature check. Limited in number
//! and lifetime.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::Identity;
use super::nats_jwt::NatsUser;
use crate::system::later;

/// Cached JWTs. Bounds memory.
const MAX_CACHED: u64 = 10_000;

/// Result of a verification.
#[derive(Debug, Clone)]
pub enum VerifiedJwt {
    NatsUser(Arc<NatsUser>),
    Ordinary(Arc<Identity>),
}

/// The keys are hashes of the JWTs: a memory dump shows no credential.
pub struct VerifiedJwts {
    cached: Cache<[u8; 32], (VerifiedJwt, Timestamp)>,
    ttl: Duration,
}

impl VerifiedJwts {
    #[must_use]
    pub fn new(ttl: Duration) -> Self {
        Self { cached: Cache::builder().max_capacity(MAX_CACHED).time_to_live(ttl).build(), ttl }
    }

    #[must_use]
    pub fn get(&self, jwt: &str, now: Timestamp) -> Option<VerifiedJwt> {
        let (verified, _) = self.cached.get(&hash(jwt)).filter(|(_, until)| now < *until)?;
        Some(verified)
    }

    /// Caches a JWT until the given time, or for the cache's TTL if that is shorter.
    pub fn put(&self, jwt: &str, verified: VerifiedJwt, until: Timestamp, now: Timestamp) {
        self.cached.insert(hash(jwt), (verified, until.min(later(now, self.ttl))));
    }
}

fn hash(jwt: &str) -> [u8; 32] {
    Sha256::digest(jwt.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Role;
    use crate::subject::Account;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_jwt_is_cached_until_it_or_the_ttl_expires() {
        let account = Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let caller = Identity { account, role: Role::Member, actor: "jwt:x".to_owned() };
        let verified = VerifiedJwt::Ordinary(Arc::new(caller));
        let cache = VerifiedJwts::new(Duration::from_mins(1));
        cache.put("short", verified.clone(), at(1_010), at(1_000));
        cache.put("long", verified, at(9_000), at(1_000));
        assert!(cache.get("short", at(1_009)).is_some());
        assert!(cache.get("short", at(1_010)).is_none());
        assert!(cache.get("long", at(1_059)).is_some());
        assert!(cache.get("long", at(1_060)).is_none());
        assert!(cache.get("other", at(1_000)).is_none());
    }

    #[test]
    fn the_number_of_cached_jwts_is_limited() {
        let account = Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let caller = Identity { account, role: Role::Member, actor: "jwt:x".to_owned() };
        let verified = VerifiedJwt::Ordinary(Arc::new(caller));
        let cache = VerifiedJwts::new(Duration::from_mins(1));
        for number in 0..2 * MAX_CACHED {
            cache.put(&number.to_string(), verified.clone(), at(9_000), at(1_000));
        }
        cache.cached.run_pending_tasks();
        assert!((MAX_CACHED / 2..=MAX_CACHED).contains(&cache.cached.entry_count()), "{}", cache.cached.entry_count());
    }
}
