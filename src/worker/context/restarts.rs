//! Restarts of a server that may have lost acknowledged commands and schedules (`persist_mode: async`).
//!
//! After such a restart a command may be gone although a worker still runs it, and its delivery count may be too low. So for
//! one [`HOLD`] no worker sends a refresh token, and commands from before count as delivered again. The restarted server does
//! not know a delivery from before. Such a delivery stores the tokens that it has received, and does nothing else.
//!
//! In a cluster, or with queues that were created without that mode, nothing acknowledged is lost, and all of this is off.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::jetstream::Nats;
use crate::protocol::server_start::{self, ServerStart};
use crate::protocol::topology::{self, ACK_WAIT, Sizes, TopologyError};
use crate::worker::hold::HOLD;

/// Interval of looks at the connection while tokens wait for the server. Short beside the hold.
const LOOK: Duration = Duration::from_millis(100);

pub(crate) struct Restarts(watch::Sender<Seen>);

#[derive(Debug, Clone)]
enum Seen {
    /// No worker of this process has looked.
    Nothing,
    /// The server loses no acknowledged command.
    Safe,
    Start {
        start: ServerStart,
        at: Instant,
    },
}

impl Default for Restarts {
    fn default() -> Self {
        Self(watch::Sender::new(Seen::Nothing))
    }
}

impl Restarts {
    /// Looks which start of the server the connection belongs to. Returns true if this process sees a restart for the first
    /// time.
    pub(crate) async fn look(&self, nats: &Nats, sizes: Sizes) -> Result<bool, TopologyError> {
        if !topology::may_lose_commands(nats, sizes).await? {
            self.0.send_replace(Seen::Safe);
            return Ok(false);
        }
        let start = server_start::current(nats).await?;
        let is_new = !self.knows(&start.server_id);
        let is_restart = is_new && start.restarted.is_some();
        if is_new {
            self.0.send_replace(Seen::Start { start, at: Instant::now() });
        }
        Ok(is_restart)
    }

    /// Waits until this process knows the start of the server that delivered a message. Returns false if the delivery is too
    /// old by then.
    pub(crate) async fn knows_soon(&self, server_id: &str) -> bool {
        let mut seen = self.0.subscribe();
        let known = seen.wait_for(|seen| is_of(seen, server_id));
        timeout(ACK_WAIT, known).await.is_ok_and(|known| known.is_ok())
    }

    /// Returns true if a restart of the server may lose acknowledged commands.
    pub(crate) fn are_tracked(&self) -> bool {
        matches!(*self.0.borrow(), Seen::Start { .. })
    }

    /// Returns true if the connection's server is another start than the one that delivered a message.
    pub(crate) fn is_gone(&self, nats: &Nats, server_id: &str) -> bool {
        self.are_tracked() && nats.server_id() != server_id
    }

    /// Returns the time for which no refresh token may be sent.
    pub(crate) fn hold_left(&self, now: Timestamp) -> Option<Duration> {
        let passed = now.duration_since(self.restarted()?);
        let left = HOLD.saturating_sub(Duration::try_from(passed).unwrap_or_default());
        Some(left).filter(|left| !left.is_zero())
    }

    /// Returns true if a command was queued before a restart whose hold lasts.
    pub(crate) fn is_before_restart(&self, queued: Timestamp, now: Timestamp) -> bool {
        self.hold_left(now).is_some() && self.restarted().is_some_and(|restarted| queued <= restarted)
    }

    /// The time of the last restart.
    pub(crate) fn restarted(&self) -> Option<Timestamp> {
        match &*self.0.borrow() {
            Seen::Start { start, .. } => start.restarted,
            Seen::Nothing | Seen::Safe => None,
        }
    }

    /// Waits while the server is away. Returns the time at which this process saw the restart, if there was one since a message
    /// was delivered by `server_id` and other workers still hold their refreshes.
    pub(crate) async fn returned(&self, nats: &Nats, server_id: &str, now: impl Fn() -> Timestamp) -> Option<Instant> {
        loop {
            let known = match &*self.0.borrow() {
                Seen::Nothing | Seen::Safe => return None,
                Seen::Start { start, at } => (start.server_id == nats.server_id()).then_some(*at),
            };
            if nats.is_connected() {
                if nats.server_id() == server_id {
                    return None;
                }
                if let Some(at) = known {
                    return self.hold_left(now()).map(|_| at);
                }
            }
            sleep(LOOK).await;
        }
    }

    fn knows(&self, server_id: &str) -> bool {
        matches!(&*self.0.borrow(), Seen::Start { start, .. } if start.server_id == server_id)
    }
}

fn is_of(seen: &Seen, server_id: &str) -> bool {
    match seen {
        Seen::Nothing => false,
        Seen::Safe => true,
        Seen::Start { start, .. } => start.server_id == server_id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(restarted: Option<Timestamp>) -> Restarts {
        let start = ServerStart { server_id: "a".to_owned(), restarted };
        Restarts(watch::Sender::new(Seen::Start { start, at: Instant::now() }))
    }

    #[test]
    fn a_restart_holds_refreshes_once() {
        #[track_caller]
        fn check(restarted: Option<i64>, now: i64, expected: Option<u64>) {
            let restarts = seen(restarted.map(|second| Timestamp::from_second(second).unwrap()));
            let left = restarts.hold_left(Timestamp::from_second(now).unwrap());
            assert_eq!(left.map(|left| left.as_secs()), expected, "{restarted:?} {now}");
        }
        let hold = HOLD.as_secs();
        check(None, 1_000, None);
        check(Some(1_000), 1_000, Some(hold));
        // A clock that has not been read since.
        check(Some(1_000), 990, Some(hold));
        check(Some(1_000), 1_030, Some(hold - 30));
        check(Some(1_000), 1_000 + i64::try_from(hold).unwrap() + 1, None);
    }

    #[test]
    fn commands_from_before_a_restart_count_as_delivered_again() {
        let time = |second| Timestamp::from_second(second).unwrap();
        let restarts = seen(Some(time(1_000)));
        assert!(restarts.is_before_restart(time(999), time(1_010)));
        assert!(!restarts.is_before_restart(time(1_001), time(1_010)));
        assert!(!restarts.is_before_restart(time(999), time(2_000)), "the hold is over");
        assert!(!seen(None).is_before_restart(time(999), time(1_010)));
    }
}
