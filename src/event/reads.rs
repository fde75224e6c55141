//! Reads, summed up until somebody writes them down.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::subject::ConnectionKey;

/// Sums kept at once: some hundred bytes each.
const MOST: usize = 10_000;

/// How often somebody was handed a connection's access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Which connection.
    pub key: ConnectionKey,
    /// Whom the audit log calls the reader.
    pub actor: String,
    /// How often.
    pub count: u64,
    /// Highest sequence among the records read.
    pub sequence: u64,
}

/// The sums of one process.
#[derive(Debug, Default)]
pub(crate) struct Reads(Mutex<HashMap<(ConnectionKey, String), (u64, u64)>>);

impl Reads {
    /// Adds reads to the sum of their connection and reader. Gives them back when there is no place for another sum:
    /// they have to be written down at once.
    #[must_use]
    pub(crate) fn add(&self, tally: Tally) -> Option<Tally> {
        let mut sums = self.lock();
        let is_full = sums.len() >= MOST;
        let Tally { key, actor, count, sequence } = tally;
        let place = (key, actor);
        if is_full && !sums.contains_key(&place) {
            let (key, actor) = place;
            return Some(Tally { key, actor, count, sequence });
        }
        let (sum, newest) = sums.entry(place).or_default();
        *sum += count;
        *newest = sequence.max(*newest);
        None
    }

    /// Takes all sums out.
    #[must_use]
    pub(crate) fn take(&self) -> Vec<Tally> {
        let sums = std::mem::take(&mut *self.lock());
        sums.into_iter().map(|((key, actor), (count, sequence))| Tally { key, actor, count, sequence }).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(ConnectionKey, String), (u64, u64)>> {
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
    fn g2_reads_are_summed_up_for_each_connection_and_reader() {
        let reads = Reads::default();
        for (name, actor, sequence) in [("a", "x", 2), ("a", "x", 1), ("a", "y", 1), ("b", "x", 1)] {
            assert_eq!(reads.add(read(name, actor, sequence)), None);
        }
        let mut sums = reads.take();
        sums.sort_by_key(|sum| (sum.key.name.to_string(), sum.actor.clone()));
        let twice = Tally { count: 2, ..read("a", "x", 2) };
        assert_eq!(sums, [twice, read("a", "y", 1), read("b", "x", 1)]);
        assert_eq!(reads.take(), []);
    }

    #[test]
    fn g2_a_sum_for_which_there_is_no_place_comes_back() {
        let reads = Reads::default();
        for number in 0..MOST {
            assert_eq!(reads.add(read("a", &number.to_string(), 1)), None);
        }
        assert_eq!(reads.add(read("a", "one more", 1)), Some(read("a", "one more", 1)));
        assert_eq!(reads.add(read("a", "7", 1)), None, "those that are there go on");
        assert_eq!(reads.take().len(), MOST);
    }
}
