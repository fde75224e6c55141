//! Reads of access tokens, counted until a worker publishes the counts as events.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::subject::ConnectionKey;

/// Most tallies in memory at once. Each takes some hundred bytes.
const MAX_TALLIES: usize = 10_000;

/// The number of times that one reader received one connection's access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    pub key: ConnectionKey,
    /// The reader, as in [`Event::actor`](crate::event::Event).
    pub actor: String,
    pub count: u64,
    /// Highest sequence among the records read.
    pub sequence: u64,
}

/// The tallies of one process.
#[derive(Debug, Default)]
pub(crate) struct Reads(Mutex<HashMap<Reader, Sum>>);

#[derive(Debug, PartialEq, Eq, Hash)]
struct Reader {
    key: ConnectionKey,
    actor: String,
}

#[derive(Debug, Default)]
struct Sum {
    count: u64,
    sequence: u64,
}

impl Reads {
    /// Adds reads to the tally of their connection and reader. Returns them if there is no room for another tally: the
    /// caller must publish them at once.
    #[must_use]
    pub(crate) fn add(&self, tally: Tally) -> Option<Tally> {
        let mut sums = self.lock();
        let is_full = sums.len() >= MAX_TALLIES;
        let Tally { key, actor, count, sequence } = tally;
        let reader = Reader { key, actor };
        if is_full && !sums.contains_key(&reader) {
            let Reader { key, actor } = reader;
            return Some(Tally { key, actor, count, sequence });
        }
        let sum = sums.entry(reader).or_default();
        sum.count += count;
        sum.sequence = sequence.max(sum.sequence);
        None
    }

    /// Removes and returns all tallies.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<Tally> {
        let sums = std::mem::take(&mut *self.lock());
        let tallies = sums.into_iter().map(|(Reader { key, actor }, Sum { count, sequence })| Tally {
            key,
            actor,
            count,
            sequence,
        });
        tallies.collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Reader, Sum>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCOUNT: &str = "AC75JGNMJHTRQNXCBDMIAJCJ57HAEWP2RGWXJCIFFGW2K64OKG267A2D";

    fn read(name: &str, actor: &str, sequence: u64) -> Tally {
        let key = ConnectionKey::parse_kv_key(&format!("{ACCOUNT}.odd.{name}")).unwrap();
        Tally { key, actor: actor.to_owned(), count: 1, sequence }
    }

    #[test]
    fn g2_reads_are_counted_for_each_connection_and_reader() {
        let reads = Reads::default();
        for (name, actor, sequence) in [("a", "x", 2), ("a", "x", 1), ("a", "y", 1), ("b", "x", 1)] {
            assert_eq!(reads.add(read(name, actor, sequence)), None);
        }
        let mut tallies = reads.take();
        tallies.sort_by_key(|tally| (tally.key.name.to_string(), tally.actor.clone()));
        let twice = Tally { count: 2, ..read("a", "x", 2) };
        assert_eq!(tallies, [twice, read("a", "y", 1), read("b", "x", 1)]);
        assert_eq!(reads.take(), []);
    }

    #[test]
    fn g2_a_tally_without_room_is_returned() {
        let reads = Reads::default();
        for number in 0..MAX_TALLIES {
            assert_eq!(reads.add(read("a", &number.to_string(), 1)), None);
        }
        assert_eq!(reads.add(read("a", "one more", 1)), Some(read("a", "one more", 1)));
        assert_eq!(reads.add(read("a", "7", 1)), None, "an existing tally still counts");
        assert_eq!(reads.take().len(), MAX_TALLIES);
    }
}
