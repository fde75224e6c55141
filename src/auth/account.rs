//! Where JWTs of accounts come from: a folder, or the server's resolver asked through the system account.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_nats::client::Request;
use jiff::Timestamp;
use moka::sync::Cache;
use tracing::info;

use super::jwt::{MAX_ACCOUNT_JWT_BYTES, Rejection};
use super::nats_jwt::AccountJwt;
use crate::jetstream::{Nats, NatsError};
use crate::subject::{self, Account};
use crate::system::later;

/// Accounts that are known at once.
const MOST: u64 = 10_000;
/// How long an account without a valid JWT is not asked for again.
const UNUSABLE: Duration = Duration::from_secs(5);

/// An account's JWT, or why there is none to go by.
#[derive(Clone)]
struct Known {
    judged: Result<Arc<AccountJwt>, Rejection>,
    until: Timestamp,
}

/// The accounts of the operators that are trusted.
pub(crate) struct Accounts {
    operators: Vec<String>,
    folder: Option<PathBuf>,
    resolver: Option<Nats>,
    lifetime: Duration,
    known: Cache<Account, Known>,
}

impl Accounts {
    /// Accounts of these operators, from the folder first and then from the server's resolver. What was read is
    /// believed for that long: a revocation takes effect no later.
    #[must_use]
    pub(crate) fn new(
        operators: Vec<String>,
        folder: Option<PathBuf>,
        resolver: Option<Nats>,
        lifetime: Duration,
    ) -> Self {
        let known = Cache::builder().max_capacity(MOST).time_to_live(lifetime).build();
        Self { operators, folder, resolver, lifetime, known }
    }

    /// The account's JWT, and how long it may be gone by.
    ///
    /// # Errors
    /// [`NatsError`] when nobody says; [`Rejection`] within.
    pub(crate) async fn get(
        &self,
        account: &Account,
        now: Timestamp,
    ) -> Result<Result<(Arc<AccountJwt>, Timestamp), Rejection>, NatsError> {
        let known = match self.known.get(account).filter(|known| now < known.until) {
            Some(known) => known,
            None => self.read(account, now).await?,
        };
        Ok(known.judged.map(|jwt| (jwt, known.until)))
    }

    async fn read(&self, account: &Account, now: Timestamp) -> Result<Known, NatsError> {
        let text = match self.read_file(account).await {
            Some(text) => Some(text),
            None => self.ask_resolver(account).await?,
        };
        let judged = text.ok_or(Rejection::UnknownAccount).and_then(|text| {
            let judged = AccountJwt::verify(&text, account, &self.operators, now);
            if let Err(reason) = &judged {
                info!(%account, "JWT of the account refused: {reason}");
            }
            judged.map(Arc::new)
        });
        let lifetime = if judged.is_ok() { self.lifetime } else { self.lifetime.min(UNUSABLE) };
        let known = Known { judged, until: later(now, lifetime) };
        self.known.insert(account.clone(), known.clone());
        Ok(known)
    }

    async fn read_file(&self, account: &Account) -> Option<String> {
        let path = self.folder.as_ref()?.join(format!("{account}.jwt"));
        let size = tokio::fs::metadata(&path).await.ok()?.len();
        if size > MAX_ACCOUNT_JWT_BYTES as u64 {
            info!(%account, "JWT of the account refused: its file is too large");
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
