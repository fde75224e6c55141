//! JWTs that were found valid a moment ago: bounded in number and lifetime.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use super::VerifiedCaller;
use super::nats_jwt::NatsUser;
use crate::system::later;

/// JWTs that are remembered at once.
const MOST: u64 = 10_000;

/// Who a valid JWT is of.
#[derive(Debug, Clone)]
pub enum VerifiedJwt {
    /// A NATS user.
    NatsUser(Arc<NatsUser>),
    /// The caller of an ordinary JWT.
    Ordinary(Arc<VerifiedCaller>),
}

/// Valid JWTs by their hash: a copy of the memory holds no credential.
pub struct VerifiedJwts {
    known: Cache<[u8; 32], (VerifiedJwt, Timestamp)>,
    lifetime: Duration,
}

impl VerifiedJwts {
    /// An empty cache whose entries live that long at most.
    #[must_use]
    pub fn new(lifetime: Duration) -> Self {
        Self { known: Cache::builder().max_capacity(MOST).time_to_live(lifetime).build(), lifetime }
    }

    /// Who the JWT is of, if it was found valid and still is.
    #[must_use]
    pub fn get(&self, jwt: &str, now: Timestamp) -> Option<VerifiedJwt> {
        let (proven, _) = self.known.get(&hash(jwt)).filter(|(_, until)| now < *until)?;
        Some(proven)
    }

    /// Remembers a JWT, for the cache's lifetime and no longer than until then.
    pub fn put(&self, jwt: &str, proven: VerifiedJwt, until: Timestamp, now: Timestamp) {
        self.known.insert(hash(jwt), (proven, until.min(later(now, self.lifetime))));
    }
}

fn hash(jwt: &str) -> [u8; 32] {
    Sha256::digest(jwt.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::super::Role;
    use super::*;
    use crate::subject::Account;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_jwt_is_remembered_within_its_own_time_and_the_caches() {
        let account = Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let caller = VerifiedCaller { account, role: Role::Member, actor: "jwt:x".to_owned() };
        let proven = VerifiedJwt::Ordinary(Arc::new(caller));
        let cache = VerifiedJwts::new(Duration::from_mins(1));
        cache.put("short", proven.clone(), at(1_010), at(1_000));
        cache.put("long", proven, at(9_000), at(1_000));
        assert!(cache.get("short", at(1_009)).is_some());
        assert!(cache.get("short", at(1_010)).is_none());
        assert!(cache.get("long", at(1_059)).is_some());
        assert!(cache.get("long", at(1_060)).is_none());
        assert!(cache.get("other", at(1_000)).is_none());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let account = Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap();
        let caller = VerifiedCaller { account, role: Role::Member, actor: "jwt:x".to_owned() };
        let proven = VerifiedJwt::Ordinary(Arc::new(caller));
        let cache = VerifiedJwts::new(Duration::from_mins(1));
        for number in 0..2 * MOST {
            cache.put(&number.to_string(), proven.clone(), at(9_000), at(1_000));
        }
        cache.known.run_pending_tasks();
        assert!((MOST / 2..=MOST).contains(&cache.known.entry_count()), "{}", cache.known.entry_count());
    }
}
