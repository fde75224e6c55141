//! State that all calls and commands of a worker's process share.

mod calls;
mod measures;
mod needs;
mod pending_logins;
mod quotas;
mod restarts;
mod room;
mod sessions;
mod shares;
mod unsent;
mod wakeups;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use tokio::sync::{Semaphore, watch};

pub(crate) use self::calls::{Busy, CallPermit, Calls, QueuedCall};
pub(crate) use self::measures::{Measures, Tally};
pub(crate) use self::needs::Needs;
pub(crate) use self::pending_logins::PendingLogins;
pub(crate) use self::quotas::{ConnectionCounts, DELETED_PER_CONNECTION, EventBuckets, UsedUp};
pub(crate) use self::restarts::Restarts;
pub(crate) use self::room::{NO_ROOM_WAIT, NoRoom, Room};
pub(crate) use self::sessions::Sessions;
pub(crate) use self::shares::{RunningShare, Share, Shares};
pub(crate) use self::unsent::UnsentRefreshes;
pub(crate) use self::wakeups::Wakeups;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::connection::lifecycle::Rules;
use crate::event::{Event, Reads};
use crate::integration::IntegrationOauthConfig;
use crate::jetstream::{Nats, NatsError};
use crate::permits::Permits;
use crate::protocol::bus_clock::BusClock;
use crate::protocol::events::publish_event;
use crate::protocol::replies::Replies;
use crate::provider;
use crate::store::Store;
use crate::subject::Account;
use crate::webhook::Receiver;
use crate::worker::background::refresh_limiter::RefreshLimiter;

/// Calls of all accounts that wait for a command at once. Each needs memory until its command's answer. Fewer than a worker's
/// calls: those of other accounts get in while a provider hangs.
pub(crate) const WAITING_CALLS: usize = 2_048;

pub(crate) struct Context {
    pub(crate) nats: Nats,
    pub(crate) store: Store,
    pub(crate) provider: provider::Client,
    pub(crate) auth: Authenticator,
    pub(crate) receivers: Vec<Arc<Receiver>>,
    pub(crate) config: Config,
    pub(crate) clock: BusClock,
    /// Opened sessions of gateways.
    pub(crate) sessions: Sessions,
    pub(crate) measures: Measures,
    /// Receives the answers to commands that calls send.
    pub(crate) replies: Replies,
    /// Sums of reads that are not stored yet.
    pub(crate) reads: Reads,
    /// Requests to the background tasks.
    pub(crate) wakeups: Wakeups,
    pub(crate) limits: Limits,
    pub(crate) room: Room,
    pub(crate) restarts: Restarts,
    /// True once this worker has seen that NATS lacks the data of tokenbus, which an operator has to confirm.
    pub(crate) data_is_gone: AtomicBool,
    /// Changes with each SIGHUP.
    pub(crate) hangups: watch::Receiver<u64>,
}

/// Limits that calls and commands of this process share.
pub(crate) struct Limits {
    pub(crate) refreshes: RefreshLimiter,
    pub(crate) shares: Shares,
    pub(crate) unsent: UnsentRefreshes,
    pub(crate) needs: Needs,
    pub(crate) pending_logins: PendingLogins,
    pub(crate) connections: ConnectionCounts,
    pub(crate) events: EventBuckets,
    /// Permits for nodes' calls that lead to no command and return no page.
    pub(crate) node_calls: Arc<Calls>,
    /// The same for gateways' calls. Those that return pages exchange theirs.
    pub(crate) gateway_calls: Arc<Calls>,
    /// Permits for calls of both that lead to a command, and for these commands.
    pub(crate) command_calls: Arc<Calls>,
    /// Permits for calls that return pages.
    pub(crate) lists: Arc<Calls>,
    /// Calls that wait for a command, by account, and whether they are later tries. These have permits of their own: a gateway that
    /// tries again takes nothing from its account's other calls.
    pub(crate) waiting_calls: Arc<Permits<(Account, bool)>>,
    /// Permits for calls of all accounts that wait for a command.
    pub(crate) all_waiting_calls: Semaphore,
}

impl Context {
    /// Returns the settings that the rules for refreshes depend on.
    pub(crate) fn refresh_rules(&self, config: Option<&IntegrationOauthConfig>) -> Rules {
        let (min_interval, give_up_after) = (self.config.refresh.min_interval, self.config.refresh.give_up_after);
        let default_expires_in = config.and_then(|config| config.default_expires_in);
        let refresh_token_lifetime = config.and_then(|config| config.refresh_token_lifetime);
        Rules { min_interval, give_up_after, default_expires_in, refresh_token_lifetime }
    }

    /// Publishes an event, as [`events::publish_event`](crate::protocol::events::publish_event) does. Drops and counts it if
    /// it tells of no change and its account has no event left.
    pub(crate) async fn publish_event(
        &self,
        account: &Account,
        event: &Event<'_>,
        cause: Option<&str>,
    ) -> Result<(), NatsError> {
        let per_minute = self.config.events_per_minute(account);
        if !event.kind.is_change() && !self.limits.events.take(account, per_minute, Instant::now()) {
            self.measures.events_dropped.inc();
            return Ok(());
        }
        publish_event(&self.nats, event, cause).await
    }
}
