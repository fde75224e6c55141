//! Refused requests, counted until a worker publishes the counts as events.
//!
//! A caller without a valid credential must not be able to fill the audit log: there is one event per interval for each API
//! key, act and reason, and one per reason for all unknown callers.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::EventKind;
use crate::subject::Account;

/// Most tallies in memory at once. Each takes some hundred bytes.
const MAX_TALLIES: usize = 10_000;
/// Actor of refusals whose credential is unknown, or for which there is no room.
const UNKNOWN: &str = "unknown";

/// A kind of refusals that is counted together.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Refusal {
    /// [`EventKind::AuthenticationFailed`] or [`EventKind::AdminRefused`].
    pub kind: EventKind,
    /// `None` if the credential proves no account.
    pub account: Option<Account>,
    pub actor: String,
    /// From a fixed list.
    pub reason: &'static str,
}

impl Refusal {
    /// A credential that proves nothing.
    #[must_use]
    pub(crate) fn unknown(reason: &'static str) -> Self {
        Self { kind: EventKind::AuthenticationFailed, account: None, actor: UNKNOWN.to_owned(), reason }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct RefusalSum {
    pub count: u64,
    /// The client's address in the last one.
    pub last_address: Option<IpAddr>,
}

/// The tallies of one process.
#[derive(Debug, Default)]
pub(crate) struct Refusals(Mutex<HashMap<Refusal, RefusalSum>>);

impl Refusals {
    /// Adds refusals to their tally. Without room for another tally, adds them to one of unknown callers.
    pub(crate) fn add(&self, refusal: Refusal, RefusalSum { count, last_address }: RefusalSum) {
        let mut sums = self.lock();
        let has_room = sums.len() < MAX_TALLIES || sums.contains_key(&refusal);
        let refusal = if has_room { refusal } else { Refusal::unknown(refusal.reason) };
        let sum = sums.entry(refusal).or_default();
        sum.count += count;
        sum.last_address = last_address.or(sum.last_address);
    }

    /// Removes and returns all tallies.
    #[must_use]
    pub(crate) fn take(&self) -> HashMap<Refusal, RefusalSum> {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Refusal, RefusalSum>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn once(address: &str) -> RefusalSum {
        RefusalSum { count: 1, last_address: address.parse().ok() }
    }

    #[test]
    fn g2_refusals_are_counted_and_their_number_is_bounded() {
        let refusals = Refusals::default();
        let of = |actor: &str| Refusal { actor: actor.to_owned(), ..Refusal::unknown("wrong_secret") };
        refusals.add(of("key:1"), once("192.0.2.1"));
        refusals.add(of("key:1"), once("192.0.2.2"));
        refusals.add(of("key:1"), once(""));
        let taken = refusals.take();
        assert_eq!(taken[&of("key:1")], RefusalSum { count: 3, ..once("192.0.2.2") });
        assert!(refusals.take().is_empty());
        for number in 0..2 * MAX_TALLIES {
            refusals.add(of(&number.to_string()), once(""));
        }
        let taken = refusals.take();
        assert_eq!(taken.len(), MAX_TALLIES + 1);
        assert_eq!(taken[&of(UNKNOWN)].count, MAX_TALLIES as u64);
    }
}
