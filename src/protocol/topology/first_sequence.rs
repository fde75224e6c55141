//! Continues `OAUTH` at a higher sequence, when it would assign some sequences a second time.
//!
//! The server uses `first_seq` only when a stream is created. A purge up to a sequence that the stream has not reached
//! leaves the stream empty and continuing there. So `admin` may purge `OAUTH`; a user that may change the stream could empty
//! it anyway.

use async_nats::jetstream::stream::Config;

use super::streams::{Sizes, records};
use super::{TopologyError, create, refused};
use crate::jetstream::{Nats, StreamState};
use crate::protocol::high_water;
use crate::subject::OAUTH;

/// Sequence at which `OAUTH` continues.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstSequence {
    /// The next sequence that the stream assigns.
    pub sequence: u64,
    /// Allows to drop the stream's records.
    pub drop_records: bool,
}

pub(super) async fn continue_at(nats: &Nats, sizes: Sizes, first: FirstSequence) -> Result<(), TopologyError> {
    let FirstSequence { sequence, drop_records } = first;
    let unusable = |text: String| Err(TopologyError::FirstSequence(text));
    let highest = high_water::highest(nats).await?;
    if sequence <= highest {
        return unusable(format!("a stored connection or config has sequence {highest}; name a higher one"));
    }
    let Some(StreamState { last_sequence, messages, .. }) = nats.stream_state(OAUTH).await? else {
        let config = Config { first_sequence: Some(sequence), ..sizes.applied_to(records()) };
        return create(nats, config, sizes).await;
    };
    if last_sequence.saturating_add(1) >= sequence {
        return Ok(());
    }
    if messages > 0 && !drop_records {
        return unusable(format!(
            "OAUTH holds {messages} records, which must be dropped for that: if none of them is newer than what the buckets hold, add --drop-records"
        ));
    }
    nats.purge_below(OAUTH, sequence).await.map_err(refused(OAUTH))
}
