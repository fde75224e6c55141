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
use crate::protocol::replies::Replies;
use crate::provider;
use crate::share::Shares;
use crate::store::Store;
use crate::subject::Account;
use crate::webhook::Webhook;
use crate::worker::background::refresh_limiter::Lanes;

/// What is kept, the ways to providers and the bus, settings, and what is counted.
pub(crate) struct Service {
    /// What is kept.
    pub store: Store,
    /// The way to providers.
    pub provider: provider::Client,
    /// Who is calling.
    pub auth: Authenticator,
    /// Where chosen events go.
    pub webhook: Option<Arc<Webhook>>,
    /// Settings.
    pub config: Config,
    /// Counters.
    pub measures: Measures,
    /// Answers to the commands that calls become.
    pub replies: Replies,
    /// Reads that are not written down yet.
    pub reads: Reads,
    /// The lines that refreshes stand in.
    pub lanes: Lanes,
    /// Configs that came back.
    pub resumed: Resumed,
    /// Logins under way.
    pub pending: PendingLogins,
    /// Calls under way, by account.
    pub calls: Arc<Shares<Account>>,
    /// Of these, calls that wait for commands.
    pub waiting: Arc<Shares<Account>>,
}
