//! Holds that sequences never go backwards: what `OAUTH` gives out next is above all that the buckets hold.
//!
//! Entries say which record they stand for by its sequence, and a lower one never replaces a higher one. An `OAUTH` that
//! was restored alone, or made anew, would give out sequences that count as old, and what is written then would be passed
//! over. The highest sequence in a bucket is found without reading all of it: a mark says what it is up to some
//! revision, and only entries behind that are read.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::jetstream::reader::{self, State, Walk};
use crate::jetstream::{Nats, NatsError, kv};
use crate::subject::{CONFIGS, CONNECTIONS, META, META_MARKS, OAUTH, kv_stream, kv_subject};

/// Entries behind the mark at which it is set anew: reading that many takes a fraction of a second.
const MOST_UNMARKED: u64 = 10_000;
/// Looks at a stream that seems to end too early: a leader that was just elected may not have caught up.
const LOOKS: u32 = 3;
/// Room above the highest sequence in a bucket, for records that were told of and had not come to it.
const ROOM: u64 = 1_000;

/// `OAUTH` would give out sequences that were given out before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "stream OAUTH ends at sequence {ends}, but a stored connection or config has {highest}: OAUTH was restored alone or made anew, and what is written now would count as older than what is there; restore a newer copy of OAUTH, or let it go on above that with `tokenbus setup --first-seq {}` (docs/operations.md says what that means)",
    self.first_sequence()
)]
pub struct Backwards {
    /// The last sequence of `OAUTH`, 0 when there is no such stream.
    pub ends: u64,
    /// The highest one that a bucket holds.
    pub highest: u64,
}

impl Backwards {
    /// A sequence to go on with.
    #[must_use]
    pub fn first_sequence(&self) -> u64 {
        self.highest.saturating_add(ROOM)
    }
}

/// Why it could not be said, or what was found.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SequenceError {
    /// They would go backwards.
    #[error(transparent)]
    Backwards(#[from] Backwards),
    /// The server gives no answer.
    #[error("{0}")]
    Nats(#[from] NatsError),
}

/// What is known of a bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    /// When its stream was made: a mark of another stream says nothing.
    created: String,
    /// Up to this revision …
    upto: u64,
    /// … this is the highest sequence.
    highest: u64,
}

type Marks = BTreeMap<String, Mark>;

/// Whatever carries a sequence.
#[derive(Deserialize)]
struct Entry {
    #[serde(default)]
    sequence: u64,
}

/// Checks that `OAUTH` goes on above all that the buckets hold.
///
/// # Errors
/// [`SequenceError::Backwards`] when it does not.
pub(crate) async fn check(nats: &Nats) -> Result<(), SequenceError> {
    let highest = highest(nats).await?;
    let mut looks = 0;
    loop {
        // After the buckets: what they hold is in the stream already.
        let ends = reader::state(nats, OAUTH).await?.map_or(0, |state| state.last_sequence);
        looks += 1;
        if ends >= highest {
            return Ok(());
        }
        if looks == LOOKS {
            return Err(Backwards { ends, highest }.into());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

/// The highest sequence that a bucket holds. Sets the marks anew when that took long.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn highest(nats: &Nats) -> Result<u64, NatsError> {
    let (mut marks, revision) = marks(nats).await?;
    let (mut highest, mut read) = (0, 0);
    for bucket in [CONNECTIONS, CONFIGS] {
        let Some(state) = reader::state(nats, &kv_stream(bucket)).await? else { continue };
        let mut mark = of(&marks, bucket, &state);
        read += look(nats, bucket, &mut mark).await?;
        highest = highest.max(mark.highest);
        marks.insert(bucket.to_owned(), mark);
    }
    if read > MOST_UNMARKED {
        let value = serde_json::to_vec(&marks).map_err(|_| NatsError::Unreadable)?;
        match kv::put(nats, META, META_MARKS, value.into(), revision).await {
            // Another one's mark is as good.
            Ok(_) | Err(NatsError::WrongLastSequence) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(highest)
}

/// Sets the marks anew when there is much behind them, so that the next start is quick.
///
/// # Errors
/// [`NatsError`] when the server gives no answer.
pub(crate) async fn keep_marked(nats: &Nats) -> Result<(), NatsError> {
    let (marks, _) = marks(nats).await?;
    let mut unmarked = 0;
    for bucket in [CONNECTIONS, CONFIGS] {
        if let Some(state) = reader::state(nats, &kv_stream(bucket)).await? {
            unmarked += state.last_sequence.saturating_sub(of(&marks, bucket, &state).upto);
        }
    }
    if unmarked > MOST_UNMARKED { highest(nats).await.map(drop) } else { Ok(()) }
}

/// The marks and their revision. Unreadable ones are as good as none.
async fn marks(nats: &Nats) -> Result<(Marks, u64), NatsError> {
    if reader::state(nats, &kv_stream(META)).await?.is_none() {
        return Ok((Marks::new(), 0));
    }
    let entry = kv::get(nats, META, META_MARKS).await?;
    let revision = entry.as_ref().map_or(0, |entry| entry.revision);
    let value = entry.and_then(|entry| entry.value).unwrap_or_default();
    Ok((serde_json::from_slice(&value).unwrap_or_default(), revision))
}

fn of(marks: &Marks, bucket: &str, state: &State) -> Mark {
    let fits = |mark: &&Mark| mark.created == state.created && mark.upto <= state.last_sequence;
    let none = Mark { created: state.created.clone(), ..Mark::default() };
    marks.get(bucket).filter(fits).cloned().unwrap_or(none)
}

/// Reads what is behind the mark, moves it there and says how much it was.
async fn look(nats: &Nats, bucket: &str, mark: &mut Mark) -> Result<u64, NatsError> {
    let all = kv_subject(bucket, ">");
    let Some(mut scan) = Walk::begin(nats, &kv_stream(bucket), &all, mark.upto).await? else { return Ok(0) };
    let mut read = 0;
    while let Some((revision, message)) = scan.next().await? {
        let sequence = serde_json::from_slice(&message.payload).map_or(0, |Entry { sequence }| sequence);
        (mark.upto, mark.highest) = (revision, mark.highest.max(sequence));
        read += 1;
    }
    Ok(read)
}
