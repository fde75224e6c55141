//! Checks that sequences never go backwards: the next sequence that `OAUTH` assigns is above all sequences in the buckets.
//!
//! A bucket's entry holds the sequence of its record, and an entry with a lower sequence never replaces one with a higher.
//! An `OAUTH` that was restored alone or created anew would assign sequences that count as old, and new writes would be
//! ignored.
//!
//! The highest sequence of a bucket is found exactly, without reading all entries. `oauth_meta` holds a high-water mark of
//! each bucket: a revision, and the highest sequence of all entries up to it. A mark is set only after all of these entries
//! were read, and every later write has a higher revision, so a check reads only the entries after the mark. An old mark
//! costs time, not correctness; workers check twice a minute that at most [`MAX_UNMARKED`] entries come after it. The mark
//! of a bucket that was created anew or restored is ignored: the creation time differs, or the bucket has fewer revisions.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jetstream::reader::{Parts, Reader, Stored};
use crate::jetstream::{Nats, NatsError, StreamState, kv};
use crate::subject::{CONFIGS, CONNECTIONS, META, META_HIGH_WATER, OAUTH, kv_stream, kv_subject};

/// Most entries after a mark before it is set again. Reading that many takes a fraction of a second at a start.
const MAX_UNMARKED: u64 = 10_000;
/// Tries, a second apart, before a stream counts as ending too early: a newly elected leader may not have caught up.
const TRIES: u32 = 3;
const PAUSE: Duration = Duration::from_secs(1);
/// Sequences left free above the highest one in a bucket, for records that were assigned a sequence and pushed, but had
/// not reached their bucket.
const RESERVE: u64 = 1_000;

/// `OAUTH` would assign sequences a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream OAUTH ends at sequence {ends}, but a stored connection or config has {highest}: OAUTH was restored alone or created anew, and new writes would count as older than stored ones; restore a newer copy of OAUTH, or continue above that sequence with `tokenbus setup --first-seq {}` (docs/operations.md explains the consequences)",
    self.first_sequence()
)]
pub struct Backwards {
    /// The last sequence of `OAUTH`; 0 if there is no such stream.
    pub ends: u64,
    /// The highest sequence in a bucket.
    pub highest: u64,
}

impl Backwards {
    /// Returns a sequence at which `OAUTH` may continue.
    #[must_use]
    pub(crate) fn first_sequence(&self) -> u64 {
        self.highest.saturating_add(RESERVE)
    }
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum SequenceError {
    #[error(transparent)]
    Backwards(#[from] Backwards),
    #[error("{0}")]
    Nats(#[from] NatsError),
}

/// High-water mark of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// Creation time of the bucket's stream.
    created: String,
    /// Revision of the newest entry that the mark covers.
    upto: u64,
    /// Highest sequence in the entries that the mark covers.
    highest: u64,
}

type Marks = BTreeMap<String, Mark>;

/// The marks, with the revision of their entry in `oauth_meta`.
struct StoredMarks {
    marks: Marks,
    revision: u64,
}

/// The part of a bucket's entry that holds the sequence of its record.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    sequence: u64,
}

/// Checks that `OAUTH` continues above all sequences in the buckets.
///
/// # Errors
/// [`SequenceError::Backwards`] if it does not.
pub(crate) async fn check(nats: &Nats) -> Result<(), SequenceError> {
    let highest = highest(nats).await?;
    let mut tries = 0;
    loop {
        // Read after the buckets, so that the stream already holds the records of their entries.
        let ends = nats.stream_state(OAUTH).await?.map_or(0, |state| state.last_sequence);
        tries += 1;
        if ends >= highest {
            return Ok(());
        }
        if tries == TRIES {
            return Err(Backwards { ends, highest }.into());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns the highest sequence in the buckets. Sets new marks if many entries came after the old ones.
pub(crate) async fn highest(nats: &Nats) -> Result<u64, NatsError> {
    let StoredMarks { mut marks, revision } = stored_marks(nats).await?;
    let (mut highest, mut read) = (0, 0);
    for bucket in [CONNECTIONS, CONFIGS] {
        let Some(state) = nats.stream_state(&kv_stream(bucket)).await? else { continue };
        let mut mark = valid_mark(&marks, bucket, &state);
        read += advance(nats, bucket, &mut mark).await?;
        highest = highest.max(mark.highest);
        marks.insert(bucket.to_owned(), mark);
    }
    if read > MAX_UNMARKED {
        let value = serde_json::to_vec(&marks).map_err(NatsError::unreadable)?;
        match kv::put(nats, META, META_HIGH_WATER, value.into(), revision).await {
            // Another process has set marks meanwhile, which are as good.
            Ok(()) | Err(NatsError::WrongLastSequence) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(highest)
}

/// Sets new marks if many entries came after the old ones, so that the next start is quick.
pub(crate) async fn refresh_marks(nats: &Nats) -> Result<(), NatsError> {
    let StoredMarks { marks, .. } = stored_marks(nats).await?;
    let mut unmarked = 0;
    for bucket in [CONNECTIONS, CONFIGS] {
        if let Some(state) = nats.stream_state(&kv_stream(bucket)).await? {
            unmarked += state.last_sequence.saturating_sub(valid_mark(&marks, bucket, &state).upto);
        }
    }
    if unmarked > MAX_UNMARKED { highest(nats).await.map(drop) } else { Ok(()) }
}

/// Reads the marks. Unreadable ones count as missing.
async fn stored_marks(nats: &Nats) -> Result<StoredMarks, NatsError> {
    if nats.stream_state(&kv_stream(META)).await?.is_none() {
        return Ok(StoredMarks { marks: Marks::new(), revision: 0 });
    }
    let entry = kv::get(nats, META, META_HIGH_WATER).await?;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let value = entry.and_then(|entry| entry.value).unwrap_or_default();
    Ok(StoredMarks { marks: serde_json::from_slice(&value).unwrap_or_default(), revision })
}

/// Returns the bucket's mark, or an empty one if the mark is of another stream.
fn valid_mark(marks: &Marks, bucket: &str, state: &StreamState) -> Mark {
    let is_valid = |mark: &&Mark| mark.created == state.created && mark.upto <= state.last_sequence;
    let empty = Mark { created: state.created.clone(), ..Mark::default() };
    marks.get(bucket).filter(is_valid).cloned().unwrap_or(empty)
}

/// Reads the entries after the mark, moves the mark to the last of them and returns their number.
async fn advance(nats: &Nats, bucket: &str, mark: &mut Mark) -> Result<u64, NatsError> {
    let all = kv_subject(bucket, ">");
    let Some(mut reader) = Reader::through(nats, &kv_stream(bucket), &all, mark.upto, Parts::All).await? else {
        return Ok(0);
    };
    let mut read = 0;
    while let Some(Stored { sequence: revision, message }) = reader.next().await? {
        let sequence = serde_json::from_slice(&message.payload).map_or(0, |Entry { sequence }| sequence);
        (mark.upto, mark.highest) = (revision, mark.highest.max(sequence));
        read += 1;
    }
    Ok(read)
}
