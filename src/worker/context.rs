//! What calls and commands of a worker's process share.

mod measures;
mod pending_logins;
mod resumed;

use std::sync::Arc;

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
    /// The lines that refreshes stand in.
    pub(crate) lanes: Lanes,
    /// Configs that came back.
    pub(crate) resumed: Resumed,
    /// Logins under way.
    pub(crate) pending: PendingLogins,
    /// Calls under way, by account.
    pub(crate) calls: Arc<Permits<Account>>,
    /// Of these, calls that wait for commands.
    pub(crate) waiting: Arc<Permits<Account>>,
}
