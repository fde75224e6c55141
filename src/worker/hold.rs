//! The time for which no worker sends a refresh token again: until the worker that may have sent it has stored the provider's
//! answer or given up.

use std::time::Duration;

use crate::connection::MIN_MARGIN;
use crate::integration::MAX_TIMEOUT;
use crate::protocol::{records, topology};

/// Longest time that any release spends on one command's requests to its provider. Releases run side by side.
const LONGEST_REQUESTS: Duration = Duration::from_mins(1);
const _: () = assert!(MAX_TIMEOUT.as_millis() <= LONGEST_REQUESTS.as_millis());
/// Time after the end of its lease for which a worker tries to store what a provider has answered, and
/// [`records::RETRY_FOR`] at least. Those tokens exist nowhere else, and no other worker sends the refresh token before
/// [`HOLD`] is over.
pub(super) const WRITE_FOR: Duration = LONGEST_REQUESTS.saturating_add(records::RETRY_FOR);
/// Time to hold a refresh that is delivered again, and all refreshes after a restart of a single server. The previous worker
/// sends nothing later than [`topology::ACK_WAIT`] after its last answered progress report. From then it needs at most the
/// time of its requests and the longest write of a record, or tries to write for [`WRITE_FOR`].
pub(super) const HOLD: Duration =
    LONGEST_REQUESTS.saturating_add(records::LONGEST_WRITE).saturating_add(topology::ACK_WAIT);
// The hold must fit into the refresh margin, so that a due refresh whose worker dies is retried before the token expires.
const _: () = assert!(topology::ACK_WAIT.saturating_add(HOLD).as_millis() < MIN_MARGIN.as_millis());
