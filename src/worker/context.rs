//! What calls and commands of a worker's process share.

mod measures;
mod pending_logins;
mod resumed;

use std::sync::Arc;

use tokio::sync::watch;

pub(crate) use self::measures::Measures;
pub(crate) use self::pending_logins::PendingLogins;
pub(crate) use self::resumed::Resumed;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::event::Reads;
use crate::jetstream::Nats;
use crate::permits::Permits;
use crate::protocol::replies::Replies;
use crate::provider;
use crate::store::Store;
use crate::subject::Account;
use crate::webhook::Webhook;
use crate::worker::background::refresh_limiter::Lanes;

/// What is kept, the ways to providers and the bus, settings, and what is counted.
pub(crate) struct Context {
    /// What is kept.
    pub(crate) nats: Nats,
    pub(crate) store: Store,
    /// The way to providers.
    pub(crate) provider: provider::Client,
    /// Who is calling.
    pub(crate) auth: Authenticator,
    /// Where chosen events go.
    pub(crate) webhook: Option<Arc<Webhook>>,
    /// Settings.
    pub(crate) config: Config,
    /// Counters.
    pub(crate) measures: Measures,
    /// Answers to the commands that calls become.
    pub(crate) replies: Replies,
    /// Reads that are not written down yet.
    pub(crate) reads: Reads,
    /// Configs that came back.
    pub(crate) resumed: Resumed,
    pub(crate) limits: Limits,
    /// Changes with each SIGHUP.
    pub(crate) hangups: watch::Receiver<u64>,
}

/// Limits that calls and commands of this process share.
pub(crate) struct Limits {
    pub(crate) refreshes: Lanes,
    pub(crate) pending_logins: PendingLogins,
    /// Running calls, by account.
    pub(crate) calls: Arc<Permits<Account>>,
    /// Running calls that wait for a command, by account.
    pub(crate) waiting_calls: Arc<Permits<Account>>,
}
