//! Fetches and caches the JWTs of accounts: from a folder first, then from nats-server's resolver through the system
//! account.
//!
//! A cached JWT is used for at most `auth.cache_ttl`, so a revocation in a newer JWT takes effect after that time.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::Request;
use jiff::Timestamp;
use moka::sync::Cache;
use tokio::sync::{Mutex, Semaphore};
use tracing::info;

use super::AuthError;
use super::jwt::MAX_ACCOUNT_JWT_BYTES;
use super::nats_jwt::AccountJwt;
use super::rejection::{Reason, Rejection};
use crate::jetstream::{Nats, NatsError};
use crate::subject::{self, Account};
use crate::system::later;

/// Cached accounts. Bounds memory against callers who name accounts at will.
const MAX_CACHED: u64 = 10_000;
/// Look-ups at the resolver at once. A caller may sign for accounts that it makes up, so their number needs a bound.
const MAX_LOOKUPS: usize = 64;
/// Longest wait for another caller's look-up of the same account, or for one of the look-ups to end.
const LOOKUP_WAIT: Duration = Duration::from_secs(2);
/// Longest time for which an account without a valid JWT is rejected without asking again. Short, because an operator
/// may be adding the account at this moment.
const REJECTED_TTL: Duration = Duration::from_secs(5);

#[derive(Clone)]
struct Cached {
    verified: Result<Arc<AccountJwt>, Rejection>,
    until: Timestamp,
}

pub(crate) struct Accounts {
    operators: Vec<String>,
    folder: Option<PathBuf>,
    resolver: Option<Nats>,
    ttl: Duration,
    cached: Cache<Account, Cached>,
    /// One look-up of an account at once: its other callers wait for the result.
    flights: Cache<Account, Arc<Mutex<()>>>,
    lookups: Semaphore,
}

impl Accounts {
    #[must_use]
    pub(crate) fn new(operators: Vec<String>, folder: Option<PathBuf>, resolver: Option<Nats>, ttl: Duration) -> Self {
        let cached = Cache::builder().max_capacity(MAX_CACHED).time_to_live(ttl).build();
        let flights = Cache::builder().max_capacity(MAX_CACHED).time_to_idle(LOOKUP_WAIT * 2).build();
        Self { operators, folder, resolver, ttl, cached, flights, lookups: Semaphore::new(MAX_LOOKUPS) }
    }

    /// Returns the account's JWT, and until when it may be used.
    pub(crate) async fn get(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<(Arc<AccountJwt>, Timestamp), AuthError> {
        let cached = match self.find(account, now) {
            Some(cached) => cached,
            None => self.look_up(account, now).await?,
        };
        Ok((cached.verified?, cached.until))
    }

    fn find(&self, account: &Account, now: Timestamp) -> Option<Cached> {
        self.cached.get(account).filter(|cached| now < cached.until)
    }

    /// Fetches the account's JWT, or waits for another caller who does.
    async fn look_up(&self, account: &Account, now: Timestamp) -> Result<Cached, NatsError> {
        let flight = self.flights.get_with_by_ref(account, Arc::default);
        let turn = async { (flight.lock().await, self.lookups.acquire().await) };
        let too_long = |_elapsed| NatsError::away("too many look-ups of accounts are under way");
        let _turn = tokio::time::timeout(LOOKUP_WAIT, turn).await.map_err(too_long)?;
        match self.find(account, now) {
            Some(cached) => Ok(cached),
            None => self.fetch(account, now).await,
        }
    }

    async fn fetch(&self, account: &Account, now: Timestamp) -> Result<Cached, NatsError> {
        let text = match self.read_file(account).await {
            Some(text) => Some(text),
            None => self.ask_resolver(account).await?,
        };
        let verified = text.ok_or_else(|| Reason::UnknownAccount.into()).and_then(|text| {
            let verified = AccountJwt::verify(&text, account, &self.operators, now);
            if let Err(rejection) = &verified {
                info!(%account, "account's JWT rejected: {rejection}");
            }
            verified.map(Arc::new)
        });
        let ttl = if verified.is_ok() { self.ttl } else { self.ttl.min(REJECTED_TTL) };
        let fetched = Cached { verified, until: later(now, ttl) };
        self.cached.insert(account.clone(), fetched.clone());
        Ok(fetched)
    }

    async fn read_file(&self, account: &Account) -> Option<String> {
        let path = self.folder.as_ref()?.join(format!("{account}.jwt"));
        let size = tokio::fs::metadata(&path).await.ok()?.len();
        if size > MAX_ACCOUNT_JWT_BYTES as u64 {
            info!(%account, "account's JWT ignored: its file has {size} bytes, more than {MAX_ACCOUNT_JWT_BYTES}");
            return None;
        }
        tokio::fs::read_to_string(&path).await.ok()
    }

    async fn ask_resolver(&self, account: &Account) -> Result<Option<String>, NatsError> {
        let Some(nats) = &self.resolver else { return Ok(None) };
        let answer = nats.request(&subject::account_claims(account), Request::new()).await?;
        Ok(std::str::from_utf8(&answer.payload).ok().filter(|text| !text.is_empty()).map(str::to_owned))
    }
}
