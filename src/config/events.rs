//! Section `events`.

use std::time::Duration;

use serde::Deserialize;

use super::form;

/// Section `events`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Events {
    /// Shows clients' addresses in events.
    pub client_address: bool,
    pub reads: ReadEvents,
    /// Interval between summaries of reads.
    #[serde(deserialize_with = "form::duration")]
    pub reads_interval: Duration,
    /// Age at which an event is deleted.
    #[serde(deserialize_with = "form::duration")]
    pub max_age: Duration,
    /// Makes a single server write an event to its disk before it acknowledges the event.
    pub sync: bool,
}

/// The events that reads of access tokens produce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReadEvents {
    /// One event per connection and reader in each interval, with the number of reads.
    Summary,
    /// One event per read, stored before the token is sent.
    All,
}

/// `events.reads = "all"` promises an event for each token that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "`events.reads` is `all`, and with `events.sync = false` a crash of the server may lose events of tokens that were sent: \
     set `events.sync` to true, or `events.reads` to `summary`"
)]
pub struct UnsyncedReads;

impl Events {
    /// # Errors
    /// If two of the settings contradict each other.
    pub fn check(&self) -> Result<(), UnsyncedReads> {
        if self.reads == ReadEvents::All && !self.sync { Err(UnsyncedReads) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g2_no_read_is_promised_an_event_that_a_crash_may_lose() {
        let check = |reads, sync, is_accepted| {
            let events = Events {
                client_address: false,
                reads,
                reads_interval: Duration::from_mins(1),
                max_age: Duration::from_hours(24),
                sync,
            };
            assert_eq!(events.check().is_ok(), is_accepted, "{reads:?} {sync}");
        };
        check(ReadEvents::All, true, true);
        check(ReadEvents::All, false, false);
        check(ReadEvents::Summary, false, true);
    }
}
