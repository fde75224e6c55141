//! Places of which nobody gets more than a share: whoever takes all of them keeps all others out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The places that are taken, by whoever took them.
#[derive(Debug)]
pub(crate) struct Permits<K>(Mutex<HashMap<K, usize>>);

/// A place, until it is dropped.
#[derive(Debug)]
pub(crate) struct Permit<K: Eq + Hash> {
    of: Arc<Permits<K>>,
    taker: K,
}

impl<K> Default for Permits<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Permits<K> {
    /// A place, unless this taker has `most` of them.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, key: &K, most: usize) -> Option<Permit<K>> {
        let mut taken = self.lock();
        let count = taken.get(key).copied().unwrap_or(0);
        if count >= most {
            return None;
        }
        taken.insert(key.clone(), count + 1);
        Some(Permit { of: Arc::clone(self), taker: key.clone() })
    }
}

impl<K> Permits<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.of.lock();
        match taken.get_mut(&self.taker) {
            Some(count) if *count > 1 => *count -= 1,
            // Nothing is kept of those who are gone.
            _ => drop(taken.remove(&self.taker)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_nobody_has_more_than_a_share_and_each_is_given_back() {
        let shares = Arc::new(Permits::default());
        let held = [shares.take(&"one", 2).unwrap(), shares.take(&"one", 2).unwrap()];
        assert!(shares.take(&"one", 2).is_none());
        assert!(shares.take(&"one", 0).is_none());
        let other = shares.take(&"other", 2).unwrap();
        let [first, second] = held;
        drop(first);
        drop(shares.take(&"one", 2).unwrap());
        drop((second, other));
        assert!(shares.lock().is_empty(), "{shares:?}");
    }
}
