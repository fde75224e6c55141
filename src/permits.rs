//! Permits that are limited per holder, so that one holder cannot take all of them and lock out the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of permits that each holder has.
#[derive(Debug)]
pub(crate) struct Permits<K>(Mutex<HashMap<K, usize>>);

/// A permit. Dropping it returns it.
#[derive(Debug)]
pub(crate) struct Permit<K: Eq + Hash> {
    permits: Arc<Permits<K>>,
    holder: K,
}

impl<K> Default for Permits<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Permits<K> {
    /// Returns a permit, or `None` if the holder has `max` of them.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, holder: &K, max: usize) -> Option<Permit<K>> {
        let mut taken = self.lock();
        let count = taken.get(holder).copied().unwrap_or(0);
        if count >= max {
            return None;
        }
        taken.insert(holder.clone(), count + 1);
        Some(Permit { permits: Arc::clone(self), holder: holder.clone() })
    }
}

impl<K> Permits<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        match taken.get_mut(&self.holder) {
            Some(count) if *count > 1 => *count -= 1,
            // Entries of former holders would pile up.
            _ => drop(taken.remove(&self.holder)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_permits_are_limited_per_holder_and_returned() {
        let permits = Arc::new(Permits::default());
        let held = [permits.take(&"one", 2).unwrap(), permits.take(&"one", 2).unwrap()];
        assert!(permits.take(&"one", 2).is_none());
        assert!(permits.take(&"one", 0).is_none());
        let other = permits.take(&"other", 2).unwrap();
        let [first, second] = held;
        drop(first);
        drop(permits.take(&"one", 2).unwrap());
        drop((second, other));
        assert!(permits.lock().is_empty(), "{permits:?}");
    }
}
