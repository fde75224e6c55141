//! The sequence that `OAUTH` goes on with, when it would give out some a second time.

use async_nats::jetstream::stream::Config;

use super::{Sizes, TopologyError, records};
use crate::jetstream::Nats;
use crate::jetstream::reader::{self, State};
use crate::protocol::high_water;
use crate::subject;

/// Where `OAUTH` is to go on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FirstSequence {
    /// The next sequence that it gives out.
    pub sequence: u64,
    /// Whether the records it holds may be dropped for that.
    pub drop_records: bool,
}

/// Has `OAUTH` go on with that sequence, above all that were given out before.
pub(super) async fn go_on_with(nats: &Nats, sizes: Sizes, first: FirstSequence) -> Result<(), TopologyError> {
    let FirstSequence { sequence, drop_records } = first;
    let refused = |text: String| Err(TopologyError::FirstSequence(text));
    let highest = high_water::highest(nats).await?;
    if sequence <= highest {
        return refused(format!("a stored connection or config has sequence {highest}; name a higher one"));
    }
    let failed = |error: &dyn std::fmt::Display| TopologyError::Refused {
        stream: subject::OAUTH.to_owned(),
        reason: error.to_string(),
    };
    let Some(State { last_sequence, messages, .. }) = reader::state(nats, subject::OAUTH).await? else {
        let config = Config { first_sequence: Some(sequence), num_replicas: sizes.replicas, ..records() };
        return nats.jetstream.create_stream(config).await.map(drop).map_err(|error| failed(&error));
    };
    if last_sequence.saturating_add(1) >= sequence {
        return Ok(());
    }
    if messages > 0 && !drop_records {
        return refused(format!(
            "OAUTH holds {messages} records, which have to go for that: add --drop-records, if none of them is newer than what is stored"
        ));
    }
    // With a sequence, a purge drops what is below it; a stream that ends below it goes on there.
    let stream = nats.jetstream.get_stream_no_info(subject::OAUTH).await.map_err(|error| failed(&error))?;
    stream.purge().sequence(sequence).await.map(drop).map_err(|error| failed(&error))
}
