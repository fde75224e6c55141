//! Permits that are limited per holder, so that one holder cannot take all of them and lock out the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::flood::{Flood, Room};

/// The number of permits that each holder has.
#[derive(Debug)]
pub(crate) struct Permits<K>(Mutex<HashMap<K, Taken>>);

#[derive(Debug, Default)]
struct Taken {
    count: usize,
    flood: Flood,
}

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
    /// Returns a permit, or `None` if the holder has too many.
    #[must_use]
    pub(crate) fn take(self: &Arc<Self>, holder: &K, room: Room, now: Instant) -> Option<Permit<K>> {
        let mut taken = self.lock();
        let of = taken.entry(holder.clone()).or_default();
        if !of.flood.admits(of.count, room, now) {
            return None;
        }
        of.count += 1;
        Some(Permit { permits: Arc::clone(self), holder: holder.clone() })
    }
}

impl<K> Permits<K> {
    fn lock(&self) -> MutexGuard<'_, HashMap<K, Taken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash> Drop for Permit<K> {
    fn drop(&mut self) {
        let mut taken = self.permits.lock();
        match taken.get_mut(&self.holder) {
            Some(of) if of.count > 1 => of.count -= 1,
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
        let (room, now) = (Room { in_burst: 2, in_flood: 1 }, Instant::now());
        let take = |holder| permits.take(&holder, room, now);
        let held = [take("one").unwrap(), take("one").unwrap()];
        assert!(take("one").is_none());
        let other = take("other").unwrap();
        let [first, second] = held;
        drop(first);
        assert!(take("one").is_none(), "it floods");
        drop(second);
        let third = take("one").unwrap();
        drop((third, other));
        assert!(permits.lock().is_empty(), "{permits:?}");
    }
}
