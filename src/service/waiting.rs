//! How many calls of an account may wait for commands at once: whoever fills all places would hold up everybody else.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::subject::Account;

/// The calls of one process that wait, by account.
#[derive(Debug, Default)]
pub struct Waiting(Mutex<HashMap<Account, usize>>);

/// One of them; it ends when dropped.
pub struct Waits<'a> {
    all: &'a Waiting,
    account: Account,
}

impl Waiting {
    /// One more of that account; none when that many wait already.
    #[must_use]
    pub fn enter(&self, account: &Account, most: usize) -> Option<Waits<'_>> {
        let mut all = self.lock();
        let count = all.entry(account.clone()).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Waits { all: self, account: account.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Account, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        let mut all = self.all.lock();
        if let Some(count) = all.get_mut(&self.account) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.account);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g3_an_account_has_its_share_and_what_ends_makes_room() {
        let waiting = Waiting::default();
        let [one, other] = [(); 2].map(|()| Account::parse(&nkeys::KeyPair::new_account().public_key()).unwrap());
        let mut held: Vec<_> = (0..9).map(|_| waiting.enter(&one, 9).unwrap()).collect();
        assert!(waiting.enter(&one, 9).is_none());
        assert!(waiting.enter(&other, 9).is_some());
        held.pop();
        assert!(waiting.enter(&one, 9).is_some());
        held.clear();
        assert!(waiting.lock().is_empty(), "nothing is kept of those that ended");
    }
}
